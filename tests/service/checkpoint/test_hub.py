"""Models from a hub: only what is needed is downloaded, only when it is needed, and what fails is said in words."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from sentence_transformers.sentence_transformer.modules import Dense

from service.checkpoint.declarations import Module
from service.checkpoint.hub import needed
from tests.support.checkpoints import DIM, plain_bert, routed, sentence_transformer
from tests.support.hub import Hub, altered, cut, status, truncated

ROOT = Path(__file__).parents[3]
NAME = "mill/pond"
READ = """
import logging, sys
from service.checkpoint import read_model
from service.errors import CheckpointError
logging.basicConfig(level="INFO", format="%(levelname)s %(message)s", stream=sys.stdout)
logging.getLogger("httpx2").setLevel("WARNING")
try:
    found = read_model(sys.argv[1], sys.argv[2] or None)
    print("read", getattr(found, "document", found).folder)
except CheckpointError as error:
    print("refused", error)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A checkpoint as hubs have them: beside what is served, the same weights for others."""
    folder = tmp_path_factory.mktemp("hub")
    model = sentence_transformer(plain_bert(folder / "plain"), folder / "model", "mean")
    (model / "README.md").write_text("# Mill\n")
    (model / "pytorch_model.bin").write_bytes(b"pickled" * 1000)
    for name in (
        "onnx/model.onnx",
        "openvino/openvino_model.bin",
        "onnx/config.json",
        "checkpoint-9/model.safetensors",
    ):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_bytes(b"other" * 1000)
    (model / "model-00001-of-00002.safetensors").write_bytes(b"shard")
    (model / "model.safetensors.index.json").write_text("{}")
    return model


@pytest.fixture
def hub(model):
    with Hub() as hub:
        hub.add(NAME, model, "v1")
        yield hub


class Reader:
    """Reads a checkpoint in a process of its own, with a cache of the hub's client that stays."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        self.hub = hub
        self.progress = ""

    def __call__(self, revision: str | None = None, name: str = NAME, most: int | None = None, **env: str) -> str:
        """What it prints; `most` is the largest file that it may write, in bytes."""
        self.hub.requests.clear()
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most else None
        done = subprocess.run(
            [sys.executable, "-c", READ, name, revision or ""],
            **{"cwd": ROOT, "env": os.environ | self.env | env, "capture_output": True, "text": True, "timeout": 100},
            preexec_fn=limit,
        )
        assert done.returncode == 0, done.stderr
        self.progress = done.stderr
        return done.stdout

    def folder(self, revision: str | None = None, **env: str) -> Path:
        """The folder, of a checkpoint that is served."""
        out = self(revision, **env)
        found = re.search(r"^read (.*)$", out, re.MULTILINE)
        assert found, out
        return Path(found[1])

    def refusal(self, revision: str | None = None, name: str = NAME, **env: str) -> str:
        """The error, which is one line."""
        found = re.search(r"^refused (.*)\n\Z", self(revision, name, **env), re.MULTILINE)
        assert found
        assert "Traceback" not in self.progress
        return found[1]


@pytest.fixture
def read(hub, tmp_path):
    return Reader(hub, tmp_path / "home")


@pytest.mark.slow
def test_only_what_is_needed_is_downloaded(hub, read, model):
    folder = read.folder()
    wanted = {"1_Pooling/config.json", "config.json", "config_sentence_transformers.json", "model.safetensors"}
    wanted |= {"modules.json", "sentence_bert_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert hub.fetched() == wanted | {"README.md"}
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_the_routes_of_a_router_are_downloaded(hub, read, tmp_path):
    model = routed(tmp_path, Dense(DIM, 8))
    (model / "other").mkdir()
    (model / "other" / "model.safetensors").write_bytes(b"of no module")
    hub.add("mill/routes", model, "v1")
    assert "read" in read(name="mill/routes")
    fetched = hub.fetched()
    assert {
        f"{folder}/model.safetensors" for folder in ("query_0_StaticEmbedding", "document_0_Transformer")
    } < fetched
    assert {"router_config.json", "document_1_Pooling/config.json", "1_Dense/model.safetensors"} < fetched
    assert "other/model.safetensors" not in fetched


@pytest.mark.slow
def test_progress_is_shown_and_logged(hub, read):
    assert re.search(r"INFO downloading mill/pond: \d files, 0\.\d MB", read())
    assert "Fetching 9 files: 100%" in read.progress


@pytest.mark.slow
def test_a_cached_commit_asks_nobody(hub, read):
    commit = hub.repositories[NAME].refs["v1"]
    first = read.folder(commit)
    assert hub.requests
    assert read.folder(commit) == first
    assert not hub.requests


@pytest.mark.slow
def test_a_branch_is_looked_up_and_followed(hub, read, model):
    first = read.folder()
    assert read.folder() == first
    assert [path for _, path, _ in hub.requests] == ["/api/models/mill/pond"]
    files = hub.repositories[NAME].commits[hub.repositories[NAME].refs["main"]]
    commit = hub.repositories[NAME].commit(files | {"vocab.txt": b"a newer one"})
    assert read.folder().name == commit
    assert hub.fetched() == {"vocab.txt"}
    assert read.folder("v1") == first


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["nobody", "offline", "500"])
def test_without_hub_the_cache_is_used(hub, read, fault):
    first = read.folder()
    hub.faults["/api/models/mill/pond"] = [status(500)] if fault == "500" else []
    env = {"nobody": {"HF_ENDPOINT": "http://127.0.0.1:9"}, "offline": {"HF_HUB_OFFLINE": "1"}}.get(fault, {})
    out = read(**env)
    assert f"read {first}" in out
    level = "INFO" if fault == "offline" else "WARNING"
    assert f"{level} encoder 'mill/pond' starts from the cache, at commit {first.name}: " in out


@pytest.mark.slow
def test_what_fails_to_come_leaves_the_last_commit_in_use(hub, read):
    first = read.folder()
    repository = hub.repositories[NAME]
    files = repository.commits[first.name] | {"model.safetensors": b"newer" * 1000}
    repository.commit(files)
    hub.faults["/model.safetensors"] = [truncated(9)]
    assert (
        f"WARNING encoder 'mill/pond' starts from the cache, at commit {first.name}: the download broke off" in read()
    )
    assert read.folder(HF_HUB_OFFLINE="1") == first


@pytest.mark.slow
def test_a_download_goes_on_where_it_broke_off(hub, read):
    repository = hub.repositories[NAME]
    weights = save({"x": torch.randn(2 * constants.DOWNLOAD_CHUNK_SIZE // 4)})
    repository.commit(repository.commits[repository.refs["main"]] | {"model.safetensors": weights})
    hub.faults["/model.safetensors"] = [cut(constants.DOWNLOAD_CHUNK_SIZE + 1000)]
    assert (read.folder() / "model.safetensors").read_bytes() == weights
    assert f"bytes={constants.DOWNLOAD_CHUNK_SIZE}-" in [seen for *_, seen in hub.requests]


@pytest.mark.slow
def test_the_next_start_fetches_only_what_is_missing(hub, read):
    hub.faults["/model.safetensors"] = [truncated(1000)]
    refusal = read.refusal()
    assert "encoder 'mill/pond': is neither a folder here nor to be had from the Hugging Face hub" in refusal
    assert "the download broke off: OSError: Consistency check failed" in refusal
    read.folder()
    assert hub.fetched() == {"model.safetensors"}


@pytest.mark.slow
def test_a_busy_hub_is_waited_for(hub, read):
    hub.faults["/model.safetensors"] = [status(429, {"Retry-After": "0"})]
    read.folder()


@pytest.mark.slow
def test_damaged_weights_are_refused(hub, read):
    hub.faults["/model.safetensors"] = [altered]
    refusal = read.refusal()
    found = re.search(r"has sha256 (\w+), and the hub gives (\w+).* Delete (\S+) and start again", refusal)
    assert found and found[1] != found[2]
    assert read.refusal() == refusal
    Path(found[3]).unlink()
    read.folder()


@pytest.mark.slow
def test_a_token_opens_what_is_private_or_gated(hub, read):
    hub.repositories[NAME].token = "hf_right"
    refusal = read.refusal()
    assert f"(there is no {hub.url}/mill/pond, or it is private)" in refusal
    assert "set HF_TOKEN to a token that may read it" in refusal
    assert "the hub does not accept the token" in read.refusal(HF_TOKEN="hf_wrong")
    hub.repositories[NAME].gated = True
    assert f"it is gated, and you have no access). Accept its terms at {hub.url}/mill/pond, " in read.refusal()
    assert "the account of HF_TOKEN has no access" in read.refusal(HF_TOKEN="hf_wrong")
    read.folder(HF_TOKEN="hf_right")


@pytest.mark.slow
@pytest.mark.parametrize("code", [429, 500, 503])
def test_errors_of_the_hub(hub, read, code):
    hub.faults["/api/models/mill/pond"] = [status(code)]
    refusal = read.refusal()
    assert (f"{hub.url} answers {code}" if code >= 500 else "takes no more requests for now (429)") in refusal
    assert "Start again later" in refusal


@pytest.mark.slow
def test_what_is_not_there(hub, read):
    assert f"there is no {hub.url}/mill/pont, or it is private). Check the name" in read.refusal(name="mill/pont")
    refusal = read.refusal("v2")
    assert "encoder 'mill/pond' at revision 'v2': is neither" in refusal
    assert f"({hub.url}/mill/pond has no such revision). Set revision to a commit, tag or branch" in refusal
    assert "has no such revision" in read.refusal("0" * 40)
    assert "Check the name and the network" in read.refusal(HF_ENDPOINT="http://127.0.0.1:9")
    refusal = read.refusal(HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, and it is not, or not whole, in" in refusal


@pytest.mark.slow
def test_pickled_weights_are_not_downloaded(hub, read):
    files = {"config.json": b"{}", "pytorch_model.bin": b"pickled", "onnx/model.onnx": b"other"}
    hub.repositories["mill/old"].commit(files)
    refusal = read.refusal(name="mill/old")
    assert "has no *.safetensors file for it (there is pytorch_model.bin)" in refusal
    assert hub.fetched() == {"config.json"}


@pytest.mark.slow
def test_a_full_disk(hub, read, model):
    """Stood in for by the largest file that the process may write, which is too small for the weights alone."""
    size = (model / "model.safetensors").stat().st_size
    refusal = re.search(r"^refused (.*)\n\Z", read(most=size - 1000), re.MULTILINE)
    assert refusal
    assert "hub cannot be written: File too large). Make room or allow writing there, or set HF_HOME" in refusal[1]
    read.folder()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system can be mounted by root only: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_too_little_room_is_said_before_the_download(hub, small_disk):
    refusal = Reader(hub, small_disk).refusal()
    assert re.search(rf"0\.1 MB are to be downloaded and {small_disk}/hub has 0\.0 MB free", refusal)
    assert hub.fetched() == {"config.json", "modules.json"}


def test_shards_and_other_weights():
    def chosen(*files: str, modules: tuple[Module, ...] = ()) -> list[str]:
        return [file for file in needed(files, modules) if file.endswith(".safetensors")]

    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    others = ["consolidated.safetensors", "model.fp16.safetensors"]
    assert chosen("model.safetensors", index, *shards, *others) == ["model.safetensors"]
    assert chosen(index, *shards, *others) == shards
    assert chosen("encoder.safetensors") == ["encoder.safetensors"]
    listed = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    modules = tuple(Module(path=path, type=f"sentence_transformers.models.{kind}") for path, kind in listed)
    inside = ["0_Transformer/model.safetensors", "2_Dense/model.safetensors"]
    assert chosen("model.safetensors", "3_Dense/model.safetensors", *inside, modules=modules) == inside


@pytest.mark.parametrize("path", [".", "", "0_StaticEmbedding"])
def test_static_models_and_adapters(path):
    """model2vec says "." of the repository itself; an adapter comes whatever weights lie beside it."""
    at = "" if path in {".", ""} else f"{path}/"
    kept = [f"{at}adapter_model.safetensors", f"{at}model.safetensors", f"{at}tokenizer.json"]
    files = [*kept, "modules.json", "onnx/model.safetensors", "onnx/tokenizer.json", "pytorch_model.bin"]
    modules = [Module(path=path, type="StaticEmbedding"), Module(path="1_Normalize", type="Normalize")]
    assert needed(files, modules) == sorted([*kept, "modules.json"])
