"""A config file, the environment and flags: what is accepted, and what each error says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st

from service.config import KeyConfig, load_config, make_config
from service.errors import ConfigError

MODEL = "models: {default: {encoder: some/model}}\n"
RERANKER = "rerankers: {default: {encoder: some/ranker}}\n"
SPARSE = "sparse: {default: {encoder: some/splade}}\n"
HASH = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
KEY = KeyConfig(hash=HASH, scopes=[])
ARCHITECTURE = """
models:
  default:
    encoder: bundled/all-MiniLM-L6-v2   # or a folder, or a Hugging Face id (with `revision`)
    pooling: declared
    normalize: declared
    max_tokens: declared
runtime:   {backend: auto, precision: auto, threads: auto}
batching:  {max_batch_tokens: 4096, max_queued_tokens: 131072}
store:     {path: ./data}
server:    {host: 127.0.0.1, port: 8000}
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str = MODEL, env=None, **overrides):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config(path, env=env or {}, overrides={key.replace("__", "."): v for key, v in overrides.items()})

    return load


@pytest.fixture
def refused(load, tmp_path):
    """The message, with the file's path as FILE."""

    def refused(text: str = MODEL, env=None, **overrides) -> str:
        with pytest.raises(ConfigError) as caught:
            load(text, env, **overrides)
        return str(caught.value).replace(str(tmp_path / "config.yaml"), "FILE")

    return refused


def test_every_key_of_the_documented_example(load):
    config = load(ARCHITECTURE)
    assert config.models["default"].encoder == "bundled/all-MiniLM-L6-v2"
    assert config.batching.max_batch_tokens == 4096
    assert config.store.path == Path("data")
    assert config.server.port == 8000


@pytest.mark.parametrize(
    "pooling",
    [
        *("mean", "cls", "max", "last", '"gem(p=3)"', '"mean+max"'),
        *("{strategy: attention, weights: path/to/pooler}", "[mean, {strategy: gem, p: 3}]"),
    ],
)
def test_documented_poolings(load, pooling):
    models = load(ARCHITECTURE.replace("pooling: declared", f"pooling: {pooling}")).models
    assert models["default"].pooling == yaml.safe_load(pooling)


def test_defaults(load):
    config = load()
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.models["default"].pooling == "declared"
    assert not config.models["default"].trust_remote_code
    assert config.runtime.precision == "auto"


# Environment and flags


@pytest.mark.parametrize(
    ("name", "text", "keys", "value"),
    [
        ("MILLPOND_MODELS__DEFAULT__ENCODER", "other/model", "models.default.encoder", "other/model"),
        ("MILLPOND_MODELS__DEFAULT__REVISION", "abc", "models.default.revision", "abc"),
        ("MILLPOND_MODELS__DEFAULT__POOLING", "gem(p=3)", "models.default.pooling", "gem(p=3)"),
        ("MILLPOND_MODELS__DEFAULT__POOLING", "{strategy: gem}", "models.default.pooling", {"strategy": "gem"}),
        ("MILLPOND_MODELS__DEFAULT__LAYERS", "last", "models.default.layers", "last"),
        ("MILLPOND_MODELS__DEFAULT__LAYERS", "{last: 4}", "models.default.layers", {"last": 4}),
        ("MILLPOND_MODELS__DEFAULT__NORMALIZE", "false", "models.default.normalize", False),
        ("MILLPOND_MODELS__DEFAULT__MAX_TOKENS", "128", "models.default.max_tokens", 128),
        ("MILLPOND_MODELS__DEFAULT__PROMPTS", "{query: 'q: '}", "models.default.prompts", {"query": "q: "}),
        ("MILLPOND_MODELS__DEFAULT__TRUST_REMOTE_CODE", "true", "models.default.trust_remote_code", True),
        ("MILLPOND_MODELS__DEFAULT__TRUNCATE", "true", "models.default.truncate", True),
        ("MILLPOND_MODELS__DEFAULT__PARSE_SPECIAL_TOKENS", "true", "models.default.parse_special_tokens", True),
        ("MILLPOND_RUNTIME__BACKEND", "torch", "runtime.backend", "torch"),
        ("MILLPOND_RERANKERS__DEFAULT__ENCODER", "008", "rerankers.default.encoder", "008"),
        ("MILLPOND_RERANKERS__DEFAULT__REVISION", "12", "rerankers.default.revision", "12"),
        ("MILLPOND_RERANKERS__DEFAULT__ACTIVATION", "Tanh", "rerankers.default.activation", "Tanh"),
        ("MILLPOND_RERANKERS__DEFAULT__MAX_TOKENS", "65", "rerankers.default.max_tokens", 65),
        ("MILLPOND_RERANKERS__DEFAULT__TRUST_REMOTE_CODE", "true", "rerankers.default.trust_remote_code", True),
        ("MILLPOND_RERANKERS__DEFAULT__TRUNCATE", "true", "rerankers.default.truncate", True),
        ("MILLPOND_SPARSE__DEFAULT__ENCODER", "008", "sparse.default.encoder", "008"),
        ("MILLPOND_SPARSE__DEFAULT__REVISION", "12", "sparse.default.revision", "12"),
        ("MILLPOND_SPARSE__DEFAULT__MAX_TOKENS", "65", "sparse.default.max_tokens", 65),
        ("MILLPOND_SPARSE__DEFAULT__PROMPTS__QUERY", "q: ", "sparse.default.prompts", {"query": "q: "}),
        ("MILLPOND_SPARSE__DEFAULT__TRUST_REMOTE_CODE", "true", "sparse.default.trust_remote_code", True),
        ("MILLPOND_SPARSE__DEFAULT__TRUNCATE", "true", "sparse.default.truncate", True),
        ("MILLPOND_RUNTIME__PRECISION", "bf16", "runtime.precision", "bf16"),
        ("MILLPOND_RUNTIME__THREADS", "3", "runtime.threads", 3),
        ("MILLPOND_RUNTIME__DEVICE", "cuda", "runtime.device", "cuda"),
        ("MILLPOND_RUNTIME__CACHE", "/var/cache", "runtime.cache", Path("/var/cache")),
        ("MILLPOND_RUNTIME__CALIBRATION", "texts.txt", "runtime.calibration", Path("texts.txt")),
        ("MILLPOND_BATCHING__MAX_BATCH_TOKENS", "77", "batching.max_batch_tokens", 77),
        ("MILLPOND_BATCHING__MAX_QUEUED_TOKENS", "78", "batching.max_queued_tokens", 78),
        ("MILLPOND_BATCHING__MAX_QUEUED_SECONDS", "0.5", "batching.max_queued_seconds", 0.5),
        ("MILLPOND_BATCHING__MAX_STATE_BYTES", "79", "batching.max_state_bytes", 79),
        ("MILLPOND_STORE__PATH", "/srv", "store.path", Path("/srv")),
        ("MILLPOND_STORE__ENGINE", "milvus", "store.engine", "milvus"),
        ("MILLPOND_STORE__URI", "https://milvus:19530", "store.uri", "https://milvus:19530"),
        ("MILLPOND_STORE__TOKEN", "root:1", "store.token", "root:1"),
        ("MILLPOND_STORE__DATABASE", "pond", "store.database", "pond"),
        ("MILLPOND_STORE__TIMEOUT", "2.5", "store.timeout", 2.5),
        ("MILLPOND_STORE__DEFAULT_COLLECTION", "docs", "store.default_collection", "docs"),
        ("MILLPOND_SERVER__HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("MILLPOND_SERVER__PORT", "9000", "server.port", 9000),
        ("MILLPOND_SERVER__MAX_TEXTS", "5", "server.max_texts", 5),
        ("MILLPOND_SERVER__MAX_BODY_BYTES", "5000", "server.max_body_bytes", 5000),
        ("MILLPOND_SERVER__MAX_REQUESTS", "6", "server.max_requests", 6),
        ("MILLPOND_SERVER__REQUEST_TIMEOUT", "7", "server.request_timeout", 7.0),
        ("MILLPOND_SERVER__SHUTDOWN_TIMEOUT", "2.5", "server.shutdown_timeout", 2.5),
        ("MILLPOND_SERVER__LOG_FORMAT", "json", "server.log_format", "json"),
        ("MILLPOND_SERVER__LOG_LEVEL", "debug", "server.log_level", "debug"),
        ("MILLPOND_SERVER__ACCESS_LOG", "true", "server.access_log", True),
        ("MILLPOND_SERVER__ROOT_PATH", "/pond", "server.root_path", "/pond"),
        ("MILLPOND_SERVER__KEEP_ALIVE", "9", "server.keep_alive", 9),
        ("MILLPOND_SERVER__ALLOWED_HOSTS", "[a.example]", "server.allowed_hosts", ["a.example"]),
        ("MILLPOND_SERVER__CORS_ORIGINS", "['http://a']", "server.cors_origins", ["http://a"]),
        ("MILLPOND_TLS__CERTFILE", "c.pem", "tls.certfile", Path("c.pem")),
        ("MILLPOND_TLS__KEYFILE", "k.pem", "tls.keyfile", Path("k.pem")),
        ("MILLPOND_TLS__PASSWORD", "007", "tls.password", "007"),
        ("MILLPOND_TLS__CLIENT_CA", "ca.pem", "tls.client_ca", Path("ca.pem")),
        ("MILLPOND_ACCESS__KEYS", f"{{a: {{hash: {HASH}, scopes: []}}}}", "access.keys", {"a": KEY}),
        ("MILLPOND_ACCESS__KEYS_FILE", "keys.yaml", "access.keys_file", Path("keys.yaml")),
        ("MILLPOND_ACCESS__OPEN_TO_ALL", "true", "access.open_to_all", True),
        ("MILLPOND_ACCESS__OPEN_METRICS", "true", "access.open_metrics", True),
        ("MILLPOND_CLUSTER__REPLICAS", "2", "cluster.replicas", 2),
        ("MILLPOND_CLUSTER__MAX_REPLICAS", "8", "cluster.max_replicas", 8),
        ("MILLPOND_CLUSTER__REPLICA_CPUS", "0.5", "cluster.replica_cpus", 0.5),
        ("MILLPOND_CLUSTER__QUEUED_TOKENS", "100", "cluster.queued_tokens", 100),
        ("MILLPOND_SERVER__UNKNOWN_FIELDS", "ignore", "server.unknown_fields", "ignore"),
        ("MILLPOND_SERVER__TOKEN_IDS", "cl100k_base", "server.token_ids", "cl100k_base"),
        ("MILLPOND_SERVER__EMBED_ALL", "tei", "server.embed_all", "tei"),
    ],
)
def test_environment_twins(load, name, text, keys, value):
    found = load(MODEL + RERANKER + SPARSE, {name: text})
    for key in keys.split("."):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == value


def test_every_key_has_a_tested_twin():
    """A key added to the config must be added to the test above."""
    from service.config import Config, ModelConfig, RerankerConfig, SparseConfig

    mark = next(mark for mark in test_environment_twins.pytestmark if mark.name == "parametrize")
    tested = {case[2] for case in mark.args[1]}
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    del sections["models"], sections["rerankers"], sections["sparse"]
    expected = {f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    expected |= {f"models.default.{key}" for key in ModelConfig.model_fields}
    expected |= {f"rerankers.default.{key}" for key in RerankerConfig.model_fields}
    assert tested == expected | {f"sparse.default.{key}" for key in SparseConfig.model_fields}


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(text=_TEXT)
@example("search this ")
@example("query: ")
@example("null")
@example("007")
@example("{query: q}")
@example("'a'")
@example("2020-99-99")
@example(" # no comment")
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("MILLPOND_MODELS__DEFAULT__PROMPTS__QUERY", "models.default.prompts.query"),
        ("MILLPOND_MODELS__DEFAULT__ENCODER", "models.default.encoder"),
        ("MILLPOND_MODELS__DEFAULT__REVISION", "models.default.revision"),
        ("MILLPOND_STORE__PATH", "store.path"),
        ("MILLPOND_STORE__DEFAULT_COLLECTION", "store.default_collection"),
        ("MILLPOND_RUNTIME__CACHE", "runtime.cache"),
        ("MILLPOND_SERVER__HOST", "server.host"),
    ],
)
def test_a_text_is_taken_character_for_character(name, keys, text):
    if not text and not name.endswith(("QUERY", "COLLECTION", "HOST")):
        return  # an empty variable is null, or refused
    found = make_config({"models": {"default": {"encoder": "x"}}}, "a test", env={name: text})
    for key in keys.split("."):
        found = found[key] if isinstance(found, dict) else getattr(found, key)
    assert found == (Path(text) if isinstance(found, Path) else text)


@given(text=_TEXT)
@example("mean: 1: 2")
@example("gem(p=3) ")
@example("on")
@example("1")
def test_a_pooling_is_a_text_unless_it_is_a_mapping_or_a_list(text):
    try:
        parsed = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        assume(text.lstrip()[:1] not in ("{", "["))
        parsed = None
    assume(not isinstance(parsed, dict | list))
    config = make_config({"models": {"a": {"encoder": "x"}}}, "a test", env={"MILLPOND_MODELS__A__POOLING": text})
    assert config.models["a"].pooling == text


@given(number=st.integers(1, 2**40))
def test_numbers_and_switches_are_read_as_yaml(number):
    env = {
        "MILLPOND_BATCHING__MAX_BATCH_TOKENS": str(number),
        "MILLPOND_BATCHING__MAX_STATE_BYTES": str(number),
        "MILLPOND_MODELS__A__NORMALIZE": "off",
        "MILLPOND_MODELS__A__MAX_TOKENS": "declared",
        "MILLPOND_MODELS__A__POOLING": "[mean, {strategy: gem, p: 4}]",
        "MILLPOND_MODELS__A__PROMPTS": "{query: 'q: '}",
    }
    config = make_config({"models": {"a": {"encoder": "x"}}}, "a test", env=env)
    assert config.batching.max_batch_tokens == config.batching.max_state_bytes == number
    model = config.models["a"]
    assert (model.normalize, model.max_tokens, model.prompts) == (False, "declared", {"query": "q: "})
    assert model.pooling == ["mean", {"strategy": "gem", "p": 4}]


@pytest.mark.parametrize("text", ["!!bool maybe", "!!int ''", f"0x{'f' * 5000}", "[" * 5000])
def test_a_variable_that_is_no_yaml_is_refused(refused, text):
    assert "MILLPOND_ACCESS__OPEN_TO_ALL: its value is not valid YAML" in refused(
        env={"MILLPOND_ACCESS__OPEN_TO_ALL": text}
    )


def test_an_empty_variable_is_null_where_null_is_taken(load, refused):
    assert load("runtime: {cache: x}\n" + MODEL, {"MILLPOND_RUNTIME__CACHE": ""}).runtime.cache is None
    assert load(MODEL, {"MILLPOND_MODELS__DEFAULT__REVISION": ""}).models["default"].revision is None
    assert "store.path: must be a path, not None" in refused(MODEL, {"MILLPOND_STORE__PATH": ""})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MILLPOND_RUNTIME_PRECISION", "MILLPOND_RUNTIME__PRECISION"),
        ("MILLPOND_MODELS_E5_POOLING", "MILLPOND_MODELS__E5__POOLING"),
        ("MILLPOND_MODELS__E5_POOLING", "MILLPOND_MODELS__E5__POOLING"),
        ("MILLPOND_MODELS_E5__POOLING", "MILLPOND_MODELS__E5__POOLING"),
        ("MILLPOND_MODELS_E5_PROMPTS_QUERY", "MILLPOND_MODELS__E5__PROMPTS__QUERY"),
        ("MILLPOND__SERVER__PORT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_SERVER___PORT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_SERVR__PORT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_SERVER__PROT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_SEVER_PORT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_PORT", "MILLPOND_SERVER__PORT"),
        ("MILLPOND_CACHE", "MILLPOND_RUNTIME__CACHE"),
        ("MILLPOND_BATCHING_MAX_BATCH_TOKENS", "MILLPOND_BATCHING__MAX_BATCH_TOKENS"),
        ("MILLPOND_MODELS__E6__POOLING", "MILLPOND_MODELS__E5__POOLING"),
        ("MILLPOND_MODELS__E6__PROMPTS__QUERY", "MILLPOND_MODELS__E5__PROMPTS__QUERY"),
        ("MILLPOND_MODELS__E5__PROMTS__QUERY", "MILLPOND_MODELS__E5__PROMPTS__QUERY"),
        ("MILLPOND_ULR", "MILLPOND_URL"),
        ("MILLPOND_APIKEY", "MILLPOND_API_KEY"),
    ],
)
def test_a_variable_that_means_nothing_names_the_right_one(refused, name, meant):
    message = refused("models: {e5: {encoder: x}}", {name: "1"})
    assert message.startswith(f"environment variable {name}: ")
    assert message.endswith(f"Did you mean {meant}?")


def test_a_variable_of_another_spelling_of_a_model_keeps_its_entry(refused):
    message = refused("models: {my-model: {encoder: x}}", {"MILLPOND_MODELS__MY_MODEL__PROMPTS__QUERY": "q: "})
    assert message.endswith("Did you mean MILLPOND_MODELS__MY-MODEL__PROMPTS__QUERY?")


@pytest.mark.parametrize("name", ["MILLPOND_SERVER__API_KEYS", "MILLPOND_SERVER__API_KEY", "MILLPOND_STORE__HOST"])
def test_a_key_like_no_other_of_its_section_suggests_none(refused, name):
    message = refused(env={name: "1"})
    assert message.startswith(f"environment variable {name}: ") and "Known keys: " in message
    assert "Did you mean" not in message


def test_a_variable_like_no_other_says_which_there_are(refused):
    message = refused(env={"MILLPOND_QQQ": "1", "MILLPOND_ZZZ": "2"})
    assert [line.split(":")[0] for line in message.splitlines()] == [
        "environment variable MILLPOND_QQQ",
        "environment variable MILLPOND_ZZZ",
    ]
    assert "MILLPOND_SERVER__PORT" in message and "MILLPOND_URL" in message


def test_a_value_of_the_wrong_kind_suggests_no_other_variable(refused):
    assert "Did you mean" not in refused(env={"MILLPOND_SERVER__PORT": "x"})


def test_what_kubernetes_says_of_a_service_of_this_name_is_left_alone(load, refused):
    told = {
        "MILLPOND_PORT": "tcp://10.0.0.7:8000",
        "MILLPOND_PORT_8000_TCP": "tcp://10.0.0.7:8000",
        "MILLPOND_PORT_8000_TCP_ADDR": "10.0.0.7",
        "MILLPOND_SERVICE_HOST": "10.0.0.7",
        "MILLPOND_SERVICE_PORT": "8000",
        "MILLPOND_SERVICE_PORT_HTTP": "8000",
        "MILLPOND_EU_PORT": "tcp://10.0.0.8:8000",
        "MILLPOND_EU_SERVICE_HOST": "10.0.0.8",
    }
    assert load(MODEL, told) == load(MODEL)
    assert load(MODEL, {"MILLPOND__EU_PORT": "tcp://10.0.0.9:8000"}) == load(MODEL)  # a service may be `millpond--eu`
    assert "MILLPOND_SERVICE_PORT" in refused(env={"MILLPOND_SERVICE_PORT": "8000"})
    assert "MILLPOND_SERVER_PORT" in refused(env={**told, "MILLPOND_SERVER_PORT": "8000"})


def test_a_byte_order_mark_before_a_config(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + MODEL.encode())
    assert load_config(tmp_path / "c.yaml", env={}).models["default"].encoder == "some/model"


def test_flags_win_over_the_environment_and_that_over_the_file(load):
    text, env = MODEL + "server: {port: 1, host: a}", {"MILLPOND_SERVER__PORT": "2"}
    assert load(text).server.port == 1
    assert load(text, env).server.port == 2
    assert load(text, env, server__port=3).server.port == 3
    assert load(text, env, server__port=None).server.port == 2
    assert load(text, env, server__port=3).server.host == "a"


def test_the_environment_reaches_models_whatever_their_case(load):
    config = load("models: {E5-Small: {encoder: x}}", {"MILLPOND_MODELS__E5-SMALL__POOLING": "cls"})
    assert list(config.models) == ["E5-Small"]
    assert config.models["E5-Small"].pooling == "cls"


def test_the_environment_fills_an_empty_section(load):
    assert load(MODEL + "server:\n", {"MILLPOND_SERVER__PORT": "9"}).server.port == 9


def test_other_variables_are_none_of_the_configs(load):
    others = {"MILLPOND_DATA": "/x", "MILLPOND_API_KEY": "y", "OTHER__KEY": "z", "millpond_server__prot": "1"}
    assert load(MODEL, others) == load(MODEL)


def test_the_process_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("MILLPOND_SERVER__PORT", "4321")
    (tmp_path / "c.yaml").write_text(MODEL)
    assert load_config(tmp_path / "c.yaml").server.port == 4321


# Errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            MODEL + "sever: {port: 1}",
            "sever: is not a key here. Did you mean 'server'? Known keys: models",
        ),
        (MODEL + "server: {prot: 1}", "server.prot: is not a key here. Did you mean 'port'? Known keys: host, port"),
        (
            "models: {default: {encoder: x, poling: cls}}",
            "models.default.poling: is not a key here. Did you mean 'pooling'? Known keys: encoder, revision",
        ),
        (MODEL + "batching: {zzz: 1}", "batching.zzz: is not a key here. Known keys: max_batch_tokens"),
        ("models: {default: {pooling: cls}}", "models.default.encoder: is required and missing"),
        ("runtime: {}", "models: is required and missing"),
        ("models: {}", "models: must hold at least one entry"),
        ("models: []", "models: must be a mapping, not []"),
        ("models: {default: }", "models.default: must be a mapping, not None"),
        ("models: {default: {encoder: ''}}", "models.default.encoder: "),
        ("models: {1: {encoder: x}}", "models.1: "),
        (MODEL + "server: {port: none}", "server.port: input should be a valid integer, not 'none'"),
        (MODEL + "server: {port: 65536}", "server.port: input should be less than or equal to 65535, not 65536"),
        (MODEL + "server: {port: true}", "server.port: input should be a valid integer, not True"),
        (MODEL + "server: {port: 1.5}", "server.port: "),
        (MODEL + "server: 8000", "server: must be a mapping, not 8000"),
        (MODEL + "runtime: {threads: 0}", "runtime.threads: input should be greater than or equal to 1"),
        (MODEL + "runtime: {threads: -1}", "or input should be 'auto'"),
        (
            MODEL + "runtime: {precision: fp8}",
            "runtime.precision: input should be 'auto', 'fp32', 'bf16', 'fp16' or 'int8', not 'fp8'",
        ),
        (MODEL + "runtime: {backend: onnx}", "backend: input should be 'auto', 'torch' or 'openvino', not 'onnx'"),
        (MODEL + "runtime: {backend: 3}", "backend: input should be 'auto', 'torch' or 'openvino', not 3"),
        (MODEL + "batching: {max_batch_tokens: 0}", "batching.max_batch_tokens: "),
        (MODEL + "store: {path: 3}", "store.path: must be a path, not 3"),
        (MODEL + "store: {engine: qdrant}", "store.engine: input should be 'embedded' or 'milvus', not 'qdrant'"),
        (MODEL + "store: {uri: milvus}", "store.uri: must be the address of a server, such as http://milvus:19530"),
        (MODEL + "store: {uri: 'http://a:b@c'}", "without a path, user or password"),
        (MODEL + "store: {uri: 'http://c:port'}", "must be the address of a server"),
        (MODEL + "store: {uri: 'http://c:99999'}", "must be the address of a server"),
        (MODEL + "store: {database: a-b}", "store.database: must have letters, digits and underscores"),
        (MODEL + "store: {timeout: 0}", "store.timeout: input should be greater than 0"),
        (
            MODEL + "server: {root_path: pond/}",
            "server.root_path: must be a path that begins with /",
        ),
        (MODEL + "server: {root_path: /}", "server.root_path: must be a path"),
        (MODEL + "server: {allowed_hosts: a.example}", "server.allowed_hosts: "),
        (MODEL + "server: {allowed_hosts: []}", "server.allowed_hosts: must hold at least one entry"),
        (MODEL + "server: {allowed_hosts: ['a.example:80']}", "server.allowed_hosts: must be a name without a port"),
        (MODEL + "server: {cors_origins: [a.example]}", "server.cors_origins: must be an origin such as https://"),
        (MODEL + "server: {cors_origins: ['https://a.example/']}", "server.cors_origins: must be an origin"),
        (MODEL + "server: {keep_alive: 0}", "server.keep_alive: "),
        (MODEL + "access: {keys: {a: {hash: x, scopes: []}}}", "access.keys.a.hash: must be the SHA-256 of a key"),
        (MODEL + "access: {key_file: x}", "access.key_file: is not a key here. Did you mean 'keys_file'?"),
        ("models: {default: {encoder: x, max_tokens: 0}}", "models.default.max_tokens: "),
        ("models: {default: {encoder: x, max_tokens: all}}", "or input should be 'declared'"),
        ("models: {default: {encoder: x, pooling: 3}}", "models.default.pooling: "),
        ("models: {default: {encoder: x, prompts: {a: 1}}}", "models.default.prompts: "),
    ],
)
def test_errors_name_the_file_the_key_and_the_remedy(refused, text, words):
    message = refused(text)
    assert message.startswith("FILE: ")
    assert words in message
    assert message.endswith(".")


def test_every_error_is_told_at_once(refused):
    message = refused(MODEL + "server: {prot: 1}\nruntime: {thread: 2}")
    assert [line.split(":")[1].strip() for line in message.splitlines()] == ["runtime.thread", "server.prot"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a config is a mapping that begins with 'models:'; this is NoneType"),
        ("- models", "this is list"),
        ("models", "this is str"),
        ("a: b: c", "is not valid YAML"),
        ("models: [", "is not valid YAML"),
        ("models: {a: 1, a: 2}", "key 'a' appears twice"),
        ("models: {m: {encoder: x}}\nmodels: {n: {encoder: y}}", "key 'models' appears twice"),
        ("models: {m: {encoder: x, pooling: cls, encoder: y}}", "key 'encoder' appears twice"),
        ("!!python/object/apply:os.system [true]", "is not valid YAML"),
        ("a: 2020-99-99", "is not valid YAML"),
        ("[1, 2]: 3", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
        ("a: *nothing", "is not valid YAML"),
        ("a: \x07", "is not valid YAML"),
        ("a: !!bool maybe", "is not valid YAML: this is no bool"),
        ("a: !!int ''", "is not valid YAML: this is no int"),
        ("a: !!float ''", "is not valid YAML: this is no float"),
        ("a: !!timestamp today", "is not valid YAML: this is no timestamp"),
        ("a: !!map [b]", "is not valid YAML: this is no mapping"),
        (f"a: 1{':9' * 190}.5", "is not valid YAML: this is no float"),
        (f"a: 0x{'f' * 5000}", "is not valid YAML: this number has more than 400 digits"),
        ("a: &a [*a]", "is not valid YAML: this is part of itself, by an alias"),
        ("a: &a {<<: *a}", "is not valid YAML: this is part of itself, by an alias"),
    ],
)
def test_what_is_no_mapping(refused, text, words):
    message = refused(text)
    assert message.startswith("FILE: ")
    assert words in message


@pytest.mark.slow
def test_a_long_file_without_aliases_is_taken(load):
    pooling = load(MODEL.replace("model}", f"model, pooling: [{'mean, ' * 110_000}]}}")).models["default"].pooling
    assert len(pooling) == 110_000


@pytest.mark.parametrize("repeat", ["[{}]", "{{<<: [{}], k{}: x}}"])
def test_aliases_that_blow_a_file_up_are_refused(refused, repeat):
    lines = [
        "a0: &a0 {k: x}",
        *(f"a{i}: &a{i} {repeat.format(', '.join([f'*a{i - 1}'] * 9), i)}" for i in range(1, 12)),
    ]
    message = refused("\n".join([*lines, "models: {m: {encoder: *a11}}"]))
    assert "its aliases make more than 100000 values of it" in message
    assert len(message) < 1000


def test_yaml_anchors_and_merges(load):
    config = load("models:\n  a: &a {encoder: x, pooling: cls}\n  b: {<<: *a, pooling: max}\n")
    assert (config.models["b"].encoder, config.models["b"].pooling) == ("x", "max")


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: there is no such file. Name one with --config"):
        load_config(tmp_path / "none.yaml", env={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, env={})
    (tmp_path / "latin.yaml").write_bytes("encoder: é".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yaml: cannot be read"):
        load_config(tmp_path / "latin.yaml", env={})
    with pytest.raises(ConfigError, match=r"/dev/zero: cannot be read: it has more than 10 MB"):
        load_config("/dev/zero", env={})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_permission(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MODEL)
    path.chmod(0)
    with pytest.raises(ConfigError, match=r"cannot be read: .*ermission"):
        load_config(path, env={})


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("MILLPOND_SERVER__PORT", "none", "server.port: input should be a valid integer, not 'none'"),
        ("MILLPOND_SERVER__PORT", "", "server.port: input should be a valid integer, not None"),
        (
            "MILLPOND_SERVER__PORT",
            "tcp://10.0.0.7:8000",
            "input should be a valid integer, not 'tcp://10.0.0.7:8000'",
        ),
        ("MILLPOND_SERVER__PORT", "[1", "its value is not valid YAML: '[1'"),
        ("MILLPOND_SERVER__PORT", "2020-99-99", "its value is not valid YAML"),
        ("MILLPOND_MODELS__DEFAULT__PROMPTS", "{a: 1, a: 2}", "its value is not valid YAML"),
        ("MILLPOND_RUNTIME__THREAD", "1", "runtime.thread: is not a key here. Did you mean 'threads'?"),
        ("MILLPOND_SERVR__PORT", "1", "servr: is not a key here. Did you mean 'server'?"),
        ("MILLPOND_SERVER__HOST__NAME", "x", "server.host: input should be a valid string"),
        ("MILLPOND_MODELS__DEFAULT", "{encoder: x, poling: y}", "models.default.poling: is not a key here"),
    ],
)
def test_errors_name_the_variable(refused, name, text, words):
    message = refused(MODEL, {name: text})
    assert message.startswith(f"environment variable {name}: ")
    assert words in message


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("MILLPOND_MODELS__DEFAULT__PROMPTS__QUERY", b"\xff ", "models.default.prompts.query"),
        ("MILLPOND_MODELS__DEFAULT__POOLING", b"\xff", "models.default.pooling"),
        ("MILLPOND_MODELS__DEFAULT__REVISION", b"\xff", "models.default.revision"),
        ("MILLPOND_STORE__DEFAULT_COLLECTION", b"\xff", "store.default_collection"),
    ],
)
def test_a_variable_that_is_no_utf8_is_refused(refused, name, value, key):
    message = refused(MODEL, {name: os.fsdecode(value)})
    assert message.startswith(f"environment variable {name}: ")
    assert f"{key}: is not valid UTF-8" in message and message.isascii()


def test_a_folder_may_have_any_bytes_in_its_name(load):
    found = load(MODEL, {"MILLPOND_STORE__PATH": os.fsdecode(b"/srv/\xff")}).store.path
    assert os.fsencode(found) == b"/srv/\xff"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r'models: {default: {encoder: x, prompts: {query: "\ud800"}}}', "models.default.prompts.query"),
        (r'models: {default: {encoder: x, prompts: {"\ud800": a}}}', r"models.default.prompts.\ud800"),
        (r'models: {default: {encoder: x, pooling: [{strategy: "\ud800"}]}}', "models.default.pooling"),
        (r'models: {"\ud800": {encoder: x}}', r"models.\ud800"),
        (MODEL + r'store: {path: "\ud800"}', "store.path"),
        (MODEL + r'server: {host: "\ud800"}', "server.host"),
    ],
)
def test_half_a_surrogate_pair_in_a_file_is_refused(refused, text, key):
    message = refused(text)
    assert message.startswith(f"FILE: {key}") and "is not valid UTF-8" in message and r"\ud800" in message
    message.encode()


def test_a_variable_inside_what_is_no_section(refused):
    message = refused(MODEL + "server: {host: a}", {"MILLPOND_SERVER__HOST__NAME": "x"})
    assert message == "MILLPOND_SERVER__HOST__NAME: 'host' is not a section that has keys of its own."


def test_errors_name_the_flag(refused):
    assert refused(server__port="x") == "--port: input should be a valid integer, not 'x'."
    assert refused(store__default_collection=3).startswith("--default-collection: input")
    assert refused(store__path=3) == "--store: must be a path, not 3."


def test_a_config_does_not_change(load):
    config = load()
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1
