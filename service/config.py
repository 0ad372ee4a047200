"""What a YAML file may say. Every error names the source, the key and the remedy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Annotated, Any, Final, Literal, get_args, get_origin
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from service import environment
from service.errors import ConfigError, did_you_mean
from service.observation.logs import Format, Level

RUNTIMES: Final = "millpond.runtimes"
"""The entry point group in which other packages offer runtimes."""
_RUNTIMES: Final = {
    "torch": "service.encoder.runtimes.torch:TorchRuntime",
    "openvino": "service.encoder.runtimes.openvino:OpenVINORuntime",
}


def runtimes() -> dict[str, EntryPoint]:
    """Return what may run an encoder, by name; nothing is imported, so that reading a config stays quick."""
    built_in = {name: EntryPoint(name, value, RUNTIMES) for name, value in _RUNTIMES.items()}
    return built_in | {point.name: point for point in entry_points(group=RUNTIMES) if point.name not in built_in}


def _known_backend(name: Any) -> Any:
    known = ["auto", *runtimes()]
    if name not in known:
        choices = f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise PydanticCustomError("literal_error", "Input should be {choices}", {"choices": choices})
    return name


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# Strict, since `true` is a number to pydantic.
_Count = Annotated[int, Field(strict=True, ge=1)]
_Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]

Scope = Literal["embed", "search", "write", "admin"]
"""What an API key is for."""


def _server(uri: str) -> str:
    if not re.fullmatch(r"https?://[^/\s@?#]+/?", uri, re.ASCII) or not _has_port(uri):
        raise PydanticCustomError(
            "server", "must be the address of a server, such as http://milvus:19530, without a path, user or password"
        )
    return uri


def _has_port(uri: str) -> bool:
    """Return whether the port of an address is one, where it has any."""
    try:
        return urlsplit(uri).port != 0
    except ValueError:
        return False


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,254}", name, re.ASCII):
        raise PydanticCustomError("identifier", "must have letters, digits and underscores, and begin with no digit")
    return name


def _prefix(path: str) -> str:
    if path and not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII):
        raise PydanticCustomError("prefix", "must be a path that begins with / and does not end with one")
    return path


def _host(name: str) -> str:
    if not re.fullmatch(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9A-Fa-f:.]+\]", name, re.ASCII):
        raise PydanticCustomError(
            "host", "must be a name without a port, such as example.com, *.example.com, 10.0.0.7 or [::1]"
        )
    return name.lower()


def _origin(origin: str) -> str:
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/\s*]+", origin):
        raise PydanticCustomError("origin", "must be an origin such as https://app.example.com, or *")
    return origin


def _sha256(text: str) -> str:
    """Check a hash; a key that was given in its place is not repeated by the error."""
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise PydanticCustomError(
            "not_repeated", "must be the SHA-256 of a key in 64 hexadecimal digits, as `millpond keys new` prints it"
        )
    return text


def _secret(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise PydanticCustomError("not_repeated", "must be text; put it in quotes")
    return value


def _moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        found = value
    if type(found) is date:
        found = datetime(found.year, found.month, found.day)
    if found is not None and not isinstance(found, datetime):
        raise PydanticCustomError("moment", "must be a date or a time, such as 2027-12-31 or 2027-12-31T18:00:00Z")
    if found is None:
        return None
    try:
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        raise PydanticCustomError("moment", "must be a time from the year 1 to 9999 in UTC") from None


class ModelConfig(_Section):
    """One served model: an encoder and how its token states become a vector."""

    encoder: str = Field(min_length=1, description="`bundled/NAME`, a folder, or a Hugging Face id.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a Hugging Face id.")
    pooling: str | dict[str, Any] | list[Any] = "declared"
    layers: str | dict[str, Any] = Field(
        default="declared",
        description="Whose states are pooled: `last`, `{use: [first, last], by: mean}` or `{last: 4, by: mean}`.",
    )
    normalize: bool | Literal["declared"] = "declared"
    max_tokens: _Count | Literal["declared"] = "declared"
    prompts: dict[str, str] | Literal["declared"] = "declared"
    parse_special_tokens: bool = Field(
        default=False,
        description="Read special tokens that a text spells out, such as `[SEP]`, as sentence-transformers does; by "
        "default they are plain characters.",
    )
    trust_remote_code: bool = False
    truncate: bool = Field(
        default=False,
        description="Cut a text that is too long, where a request does not say, instead of refusing it.",
    )


class RerankerConfig(_Section):
    """One served cross-encoder, which scores pairs of texts."""

    encoder: str = Field(min_length=1, description="`bundled/NAME`, a folder, or a Hugging Face id.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a Hugging Face id.")
    activation: str = Field(
        default="declared",
        min_length=1,
        description="What scores go through: a module of `torch.nn`, such as `Sigmoid` or `Identity`.",
    )
    max_tokens: _Count | Literal["declared"] = "declared"
    trust_remote_code: bool = False
    truncate: bool = Field(
        default=False,
        description="Cut a pair that is too long, where a request does not say, instead of refusing it.",
    )


class SparseConfig(_Section):
    """One served sparse encoder, which gives a text weights of its vocabulary's tokens."""

    encoder: str = Field(min_length=1, description="`bundled/NAME`, a folder, or a Hugging Face id.")
    revision: str | None = Field(default=None, description="Commit, tag or branch of a Hugging Face id.")
    max_tokens: _Count | Literal["declared"] = "declared"
    prompts: dict[str, str] | Literal["declared"] = "declared"
    trust_remote_code: bool = False
    truncate: bool = Field(
        default=False,
        description="Cut a text that is too long, where a request does not say, instead of refusing it.",
    )


class RuntimeConfig(_Section):
    """What runs the encoder."""

    backend: Annotated[str, BeforeValidator(_known_backend)] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    threads: _Count | Literal["auto"] = "auto"
    device: Literal["cpu", "cuda"] = "cpu"
    cache: Path | None = Field(
        default=None, description="Where converted models are kept; by default the user's cache."
    )
    calibration: Path | None = Field(
        default=None, description="A file of texts for int8, one a line; by default packaged ones."
    )


class BatchingConfig(_Section):
    """How texts share forward passes. Tokens are counted with their padding."""

    max_batch_tokens: _Count = 1024
    max_queued_tokens: _Count = 131_072
    max_queued_seconds: _Seconds = Field(
        default=4.0,
        description="Seconds of waiting work, at the measured rate, beyond which requests get a 503; half of it "
        "under a load that lasts.",
    )
    max_state_bytes: _Count | Literal["auto"] = Field(
        default="auto",
        description="Memory for token states: of the passes under way, and again of requests that hold on to some. "
        "`auto` is 1 GiB, or what ordinary batches take on all streams.",
    )


class StoreConfig(_Section):
    """Where documents live. The path is relative to the working directory."""

    engine: Literal["embedded", "milvus"] = Field(
        default="embedded", description="What keeps and searches them: this process, or a Milvus server."
    )
    path: Path = Path("data")
    uri: Annotated[str, AfterValidator(_server)] = Field(
        default="http://127.0.0.1:19530", description="The address of the Milvus server."
    )
    token: str | None = Field(
        default=None, min_length=1, description="What Milvus lets one in by: `user:password` or an API key."
    )
    database: Annotated[str, AfterValidator(_identifier)] = Field(
        default="default", description="The database of the Milvus server."
    )
    timeout: _Seconds = Field(default=10.0, description="Seconds that a call of the Milvus server may take.")
    default_collection: str = "default"


class ServerConfig(_Section):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, strict=True, ge=0, le=65535)
    max_texts: _Count = Field(default=16_384, description="Texts or documents in one request.")
    max_body_bytes: int = Field(default=64 * 2**20, strict=True, ge=1024)
    max_requests: _Count = Field(default=1024, description="Requests under way beyond which others get a 503.")
    request_timeout: _Seconds | None = Field(
        default=None, description="Seconds that a request has; a request may ask for fewer by X-Request-Timeout."
    )
    shutdown_timeout: _Seconds = Field(default=20.0, description="Seconds from SIGTERM to the end of the process.")
    log_format: Format = Field(default="console", description="`json` is for machines: an object a line.")
    log_level: Level = Field(default="info", description="What is less important is not logged.")
    access_log: bool = Field(default=False, description="A log line for each request; never a text, a body or a key.")
    root_path: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", description="The prefix under which a proxy serves it, such as `/millpond`."
    )
    keep_alive: _Count = Field(default=75, description="Seconds for which an idle connection stays open.")
    allowed_hosts: list[Annotated[str, AfterValidator(_host)]] | None = Field(
        default=None, min_length=1, description="Names in the header Host that are answered; null is any."
    )
    cors_origins: list[Annotated[str, AfterValidator(_origin)]] = Field(
        default=[], description="Origins whose web pages may call the service, such as `https://app.example.com`."
    )
    unknown_fields: Literal["refuse", "ignore"] = Field(
        default="refuse", description="What becomes of a field that a request body should not have."
    )
    token_ids: str = Field(
        default="refuse",
        min_length=1,
        description="Whose the token ids are that requests send: `refuse` takes none, `model` those of the model, "
        "and a name of tiktoken, such as `cl100k_base`, those of that encoding, whose text is embedded.",
    )
    embed_all: Literal["millpond", "tei"] = Field(
        default="millpond",
        description="What `/embed_all` answers: tokens, offsets and states, or states alone as TEI does.",
    )


class TLSConfig(_Section):
    """What HTTPS is served with; nothing is plain HTTP."""

    certfile: Path | None = Field(default=None, description="The certificate and those above it, in PEM.")
    keyfile: Path | None = Field(default=None, description="Its private key; by default it is in `certfile`.")
    password: Annotated[str | None, BeforeValidator(_secret)] = Field(
        default=None, repr=False, description="Of the private key, where that has one."
    )
    client_ca: Path | None = Field(
        default=None, description="Certificates of which a client must have one that is signed by."
    )


class KeyConfig(_Section):
    """What is known of an API key: never the key itself."""

    hash: Annotated[str, AfterValidator(_sha256)] = Field(description="SHA-256 of the key, in hexadecimal.")
    scopes: list[Scope] = Field(description="What it is for: embed, search, write; admin is everything.")
    requests_per_minute: _Count | None = None
    tokens_per_minute: _Count | None = None
    tokens_per_day: _Count | None = None
    expires: Annotated[datetime | None, BeforeValidator(_moment)] = Field(
        default=None, description="A date or a time from which on it is no key any more; in UTC unless it says."
    )


class AccessConfig(_Section):
    """Who may call the service. With no key at all, everybody who reaches it may."""

    keys: dict[str, KeyConfig] = Field(default={}, description="Keys by name.")
    keys_file: Path | None = Field(
        default=None, description="A YAML or JSON file of keys by name, which is read again whenever it changes."
    )
    open_to_all: bool = Field(
        default=False, description="Listen on an address that other machines reach although there is no key."
    )
    open_metrics: bool = Field(default=False, description="Answer `/metrics` without a key.")

    @property
    def needs_key(self) -> bool:
        """Whether requests need a key."""
        return bool(self.keys or self.keys_file)


class ClusterConfig(_Section):
    """How `millpond cluster serve` spreads the models over replicas on Ray; `millpond serve` does not look at it."""

    replicas: _Count = Field(default=1, description="Replicas of all models, or the fewest of them.")
    max_replicas: _Count | None = Field(
        default=None, description="The most of them; by default there are always as many as `replicas`."
    )
    replica_cpus: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] = Field(
        default=1.0, description="CPUs that a replica takes of the cluster; it computes with as many threads."
    )
    queued_tokens: _Count = Field(
        default=4096, description="Tokens that wait for each replica, on average, beyond which there are more."
    )


class Config(_Section):
    """A whole deployment."""

    models: dict[str, ModelConfig] = Field(min_length=1)
    rerankers: dict[str, RerankerConfig] = Field(default={}, description="Cross-encoders by name.")
    sparse: dict[str, SparseConfig] = Field(default={}, description="Sparse encoders by name.")
    runtime: RuntimeConfig = RuntimeConfig()
    batching: BatchingConfig = BatchingConfig()
    store: StoreConfig = StoreConfig()
    server: ServerConfig = ServerConfig()
    tls: TLSConfig = TLSConfig()
    access: AccessConfig = AccessConfig()
    cluster: ClusterConfig = ClusterConfig()

    def use_of(self, name: str) -> str | None:
        """Say what is served under a name, and which routes it is for; None where nothing is."""
        if name in self.models:
            return f"{name!r} makes vectors: it is for '/embed', '/similarity' and searches"
        if name in self.rerankers:
            return f"{name!r} scores pairs of texts: it is for '/rerank' and '/predict'"
        return f"{name!r} makes sparse vectors: it is for '/embed_sparse'" if name in self.sparse else None

    def unexposed(self) -> Config:
        """Return the same deployment for this process alone, which reaches it without keys, hosts and prefixes."""
        server = self.server.model_copy(update={"root_path": "", "allowed_hosts": None})
        return self.model_copy(update={"server": server, "access": AccessConfig()})


_RELOADED: Final = {
    "batching": {"max_queued_tokens", "max_queued_seconds"},
    "server": {"max_texts", "max_requests", "request_timeout", "shutdown_timeout", "log_level"},
}
"""The keys that can change while a config is served."""


_NAMED: Final = ("models", "rerankers", "sparse")
"""Sections of what is named by who writes a config."""


def reloaded(served: Config, read: Config) -> tuple[Config, list[str], list[str]]:
    """Return a config as it is served, with what another one says of the keys that can change meanwhile.

    Also returns the names of the keys that have changed so, and of those that differ and need a restart.
    """
    sections: dict[str, BaseModel] = {}
    changed: list[str] = []
    restart = [name for name in _NAMED if getattr(served, name) != getattr(read, name)]
    for name in type(served).model_fields.keys() - set(_NAMED):
        before, after = getattr(served, name), getattr(read, name)
        differing = [key for key in type(before).model_fields if getattr(before, key) != getattr(after, key)]
        live = [key for key in differing if key in _RELOADED.get(name, ())]
        sections[name] = before.model_copy(update={key: getattr(after, key) for key in live})
        changed += [f"{name}.{key}" for key in live]
        restart += [f"{name}.{key}" for key in differing if key not in live]
    return served.model_copy(update=sections), changed, restart


MOST_BYTES: Final = 10_000_000
"""Of a file that is read whole to be understood: a config, or one of those in which a model declares something."""
_MOST_NESTED: Final = 100
_MOST_DIGITS: Final = 400
_MOST_VALUES: Final = 100_000
"""Of a whole document, what aliases repeat among them; as many as it spells out, however many, are taken."""
_TAG: Final = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """YAML as a config may use it: no key twice, of which the later would win in silence, and nothing that blows up.

    Whatever cannot be read is a `yaml.YAMLError`, where PyYAML lets errors of Python through.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= _MOST_NESTED:  # PyYAML takes seconds for some thousands
            raise yaml.scanner.ScannerError(None, None, f"nested deeper than {_MOST_NESTED} levels", self.get_mark())
        super().fetch_flow_collection_start(token)

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        sizes: dict[yaml.Node, int | None] = {}
        if node is not None and _size(node, sizes) > max(_MOST_VALUES, 2 * len(sizes)):
            problem = f"its aliases make more than {_MOST_VALUES} values of it"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("int", "float") and len(node.value) > _MOST_DIGITS:
            problem = f"this number has more than {_MOST_DIGITS} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, ArithmeticError):
            raise yaml.constructor.ConstructorError(None, None, f"this is no {kind}", node.start_mark) from None

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "this is no mapping", node.start_mark)
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key if isinstance(key, str | int) else id(key_node))
        return super().construct_mapping(node, deep=deep)


def _size(node: yaml.Node, sizes: dict[yaml.Node, int | None]) -> int:
    """Return how many values a node has, as often as aliases repeat them; `sizes` has those of others.

    Raises:
        yaml.YAMLError: it is part of itself.
    """
    if node not in sizes:
        sizes[node] = None
        within = node.value if isinstance(node, yaml.CollectionNode) else ()
        nodes = chain.from_iterable(within) if isinstance(node, yaml.MappingNode) else within
        sizes[node] = 1 + sum(_size(each, sizes) for each in nodes)
    size = sizes[node]
    if size is None:
        raise yaml.composer.ComposerError(None, None, "this is part of itself, by an alias", node.start_mark)
    return size


def load_config(
    path: str | Path, *, env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read a config file, then lay the environment over it, then the flags.

    Args:
        path: a YAML file.
        env: variables such as ``MILLPOND_SERVER__PORT=9000``; the process's own by default.
        overrides: dotted keys from flags, such as ``{"server.port": 9000}``; ``None`` values are skipped.

    Raises:
        ConfigError: naming the file or variable, the key, and what would be right.
    """
    return make_config(_read_yaml(Path(path)), str(path), env=env, overrides=overrides)


def make_config(
    values: dict[str, Any],
    source: str,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """As `load_config`, from what a file would hold; `source` is what errors call it."""
    sources: dict[tuple[str, ...], str] = {}
    variables = os.environ if env is None else env
    models = [name for key in _NAMED if isinstance(values.get(key), dict) for name in values[key]]
    environment.check(variables, Config, models)
    for name, keys in environment.twins(variables).items():
        parse = partial(_yaml_value, name=name)
        value = environment.read(variables[name], environment.wanted(Config, keys), parse)
        sources[_put(values, keys, value, name)] = _VARIABLE + name
    for dotted, value in (overrides or {}).items():
        if value is not None:
            keys = tuple(dotted.split("."))
            sources[_put(values, keys, value, dotted)] = _FLAGS.get(dotted, f"--{keys[-1].replace('_', '-')}")
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, source, sources, models)) from None
    for keys, text in _texts(config.model_dump()):
        if not _encodes(text):
            problem = f"is not valid UTF-8, but {str(text)!r}; give text in UTF-8"
            placed = _placed(keys, problem, _source(keys, sources) or source, models)
            raise ConfigError(placed.encode(errors="backslashreplace").decode())
    return config


def require_file(path: Path) -> None:
    """Refuse a pipe, a device or a folder, which could be waited for without end; links to files are files.

    Raises:
        ConfigError: there is such a thing at the path.
    """
    try:
        regular = S_ISREG(path.stat().st_mode)
    except OSError:
        return  # what is not there, or may not be looked at, is told where it is read
    if not regular:
        raise ConfigError(f"{path}: is no regular file, but a pipe, a device or a folder. Name a file.")


_MAYBE_A_KEY: Final = re.compile(r"\w*[0-9a-f]{16,}")


def read_keys(path: Path) -> dict[str, KeyConfig]:
    """Read a file of API keys, YAML or JSON: what `access.keys` may say.

    Raises:
        ConfigError: naming the file, the key and what would be right. No key that is there by mistake is repeated.
    """
    make = f"`millpond keys new NAME --file {path}` makes one"
    require_file(path)
    try:
        values = _read_yaml(path, absent=f"{make}.", shape="a file of keys is a mapping of their names", empty={})
        return AccessConfig.model_validate({"keys": values}).keys
    except ConfigError as error:
        message = str(error)
    except ValidationError as error:
        lines = []
        for item in error.errors(include_url=False):
            keys, fields = _locate(("access", *item["loc"]))
            lines.append(f"{path}: {'.'.join(keys[2:])}: {_problem(item, keys, fields)}.")
        message = "\n".join(lines)
    parts = message.split(str(path))
    raise ConfigError(str(path).join(_MAYBE_A_KEY.sub("...", part) for part in parts))


def _texts(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str | Path]]:
    """Yield each text and path within a value, names in mappings included, and the keys that lead to it."""
    if isinstance(value, str | Path):
        yield keys, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _texts(key, (*keys, str(key)))
            yield from _texts(member, (*keys, str(key)))
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member, keys)


def _encodes(text: str | Path) -> bool:
    """Return whether a text has an encoding: halves of surrogate pairs, as bytes that are no UTF-8 become, have none.

    Names of files may have any bytes, which Python reads to such halves.
    """
    try:
        os.fsencode(text) if isinstance(text, Path) else text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a whole file of at most `most` bytes.

    Raises:
        OSError: it cannot be read, or is larger, and maybe endless, as a device is.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"it has more than {most // 1_000_000} MB")
    return content


def _read_yaml(
    path: Path,
    *,
    absent: str = "Name one with --config; configs/ has examples.",
    shape: str = "a config is a mapping that begins with 'models:'",
    empty: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Read a mapping; errors say what to do where the file is `absent`, and which `shape` it should have."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file. {absent}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}.") from None
    try:
        values = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}.") from None
    if values is None and empty is not None:
        return empty
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {shape}; this is {type(values).__name__}.")
    return values


def _yaml_value(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        raise ConfigError(f"environment variable {name}: its value is not valid YAML: {text!r}.") from None


def _put(values: dict[str, Any], keys: tuple[str, ...], value: Any, source: str) -> tuple[str, ...]:
    """Set a nested value; gives its keys as the file spells them, since a variable's name has no case."""
    spelled: list[str] = []
    for place, wanted in enumerate(keys):
        key = next((known for known in (wanted, *values) if known in values and str(known).lower() == wanted), wanted)
        spelled.append(key)
        if place == len(keys) - 1:
            values[key] = value
            break
        if values.get(key) is None:
            values[key] = {}
        if not isinstance(values[key], dict):
            raise ConfigError(f"{source}: '{key}' is not a section that has keys of its own.")
        values = values[key]
    return tuple(spelled)


_VARIABLE: Final = "environment variable "
_FLAGS: Final = {"store.path": "--store"}
"""Flags that are not called as the last of their keys is."""
_EXPECTED: Final = {  # where pydantic's words are Python's and not the file's
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "path_type": "must be a path",
    "too_short": "must hold at least one entry",
}


def expected(problem: ErrorDetails) -> str:
    """Say what pydantic expected of a value, and what it is unless it may be secret."""
    if problem["type"] == "not_repeated":
        return problem["msg"]
    text = _EXPECTED.get(problem["type"], problem["msg"])
    return f"{text[0].lower()}{text[1:]}, not {problem['input']!r}"


def _explain(error: ValidationError, path: str, sources: Mapping[tuple[str, ...], str], models: Sequence[str]) -> str:
    problems: dict[tuple[str, ...], list[str]] = {}
    for item in error.errors(include_url=False):
        keys, fields = _locate(item["loc"])
        problems.setdefault(keys, []).append(_problem(item, keys, fields))
    lines = []
    for keys, texts in problems.items():
        # A model that the file does not have is one of variables alone, which leave out what is missing.
        added = len(keys) > 2 and keys[0] in _NAMED and keys[1] not in models
        source = _source(keys[:2] if added else keys, sources) or path
        lines.append(_placed(keys, " or ".join(dict.fromkeys(texts)), source, models))
    return "\n".join(lines)


def _problem(item: ErrorDetails, keys: tuple[str, ...], fields: Sequence[str]) -> str:
    """Say what is wrong with the value at some keys, beside which others are known."""
    match item["type"]:
        case "extra_forbidden":
            return f"is not a key here.{did_you_mean(keys[-1], fields)} Known keys: {', '.join(fields)}"
        case "missing":
            return "is required and missing"
        case _:
            return expected(item)


def _placed(keys: tuple[str, ...], problem: str, source: str, models: Sequence[str]) -> str:
    """Say what set a key to something wrong; a flag is its own name for the key."""
    if source.startswith("--"):
        return f"{source}: {problem}."
    meant = ""
    if source.startswith(_VARIABLE):
        meant = environment.suggestion(source.removeprefix(_VARIABLE), Config, models)
    return f"{source}: {'.'.join(keys)}: {problem}.{meant and f' {meant}'}"


def _source(keys: tuple[str, ...], sources: Mapping[tuple[str, ...], str]) -> str | None:
    """Return the variable or flag that set a key, the section around it, or something within it."""
    for set_keys, source in reversed(list(sources.items())):  # the more particular name is the later one
        shared = min(len(keys), len(set_keys))
        if keys[:shared] == set_keys[:shared]:
            return source
    return None


def _locate(loc: tuple[int | str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Split pydantic's location into config keys (without its union tags) and the fields known beside the last."""
    section: Any = Config
    keys: list[str] = []
    fields: list[str] = []
    for part in (str(part) for part in loc if part != "[key]"):
        if isinstance(section, type) and issubclass(section, BaseModel):
            fields = list(section.model_fields)
            keys.append(part)
            field = section.model_fields.get(part)
            section = field.annotation if field else None
        elif get_origin(section) is dict and isinstance(get_args(section)[1], type):
            keys.append(part)
            fields, section = [], get_args(section)[1]
        else:
            break
    return tuple(keys), fields
