"""The documentation is right: its examples are run, and do what the page says.

| block | what is done with it |
|---|---|
| `bash` | run; the `json`, `text` or plain block directly below is its output |
| `console` | each `$ command` is run; what is below it is its output |
| `python` | executed, with the names of the blocks before; output as with `bash` |
| `yaml` | read as a config |

`...` in an output stands for anything. The blocks of a page share a folder, in which the project's files are, and all
pages a service with `configs/mean.yaml`, which the pages call http://127.0.0.1:8000. A block that cannot be run has
`<!-- not run: reason -->` above it.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from service.cli import app
from service.config import Config, load_config
from tests.support.markdown import Block, Page, commands
from tests.support.outputs import differs
from tests.support.servers import Server

ROOT = Path(__file__).parents[2]
URL = "http://127.0.0.1:8000"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {
    "bulk.md",
    "collections.md",
    "command-line.md",
    "configuration.md",
    "datasets.md",
    "doctor.md",
    "evaluate.md",
    "long-texts.md",
    "python.md",
    "serving.md",
    "train.md",
}
"""Pages of which a command starts a process, examines a model, or reads a data set."""
NOT_RUN = {
    "README.md": 1,
    "docs/benchmarks.md": 1,
    "docs/bulk.md": 1,
    "docs/command-line.md": 1,
    "docs/datasets.md": 1,
    "docs/deployment.md": 3,
    "docs/doctor.md": 1,
    "docs/load-test.md": 2,
    "docs/milvus.md": 2,
    "docs/observability.md": 1,
    "docs/pooling.md": 3,
    "docs/ray.md": 2,
    "docs/ranking.md": 1,
    "docs/sparse.md": 1,
    "docs/serving.md": 5,
}
"""How many blocks of each page are not run."""


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


_every_page = pytest.mark.parametrize("path", PAGES, ids=_name)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    """The service that the pages talk to."""
    assert shutil.which("curl"), "the examples are written for curl; install it"
    with Server(ROOT / "configs" / "mean.yaml", tmp_path_factory.mktemp("docs") / "store") as server:
        yield server


@pytest.fixture
def reader(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What somebody has who reads a page: the project's files, the commands, and a service without collections."""
    for path in ROOT.iterdir():
        if not path.name.startswith(".") and path.name not in ("data", "dist"):
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MILLPOND_URL", service.url)
    monkeypatch.setenv("MILLPOND_RUNTIME__PRECISION", "fp32")  # what the pages show was computed in it
    monkeypatch.delenv("COLUMNS", raising=False)  # with it, tables would be cut to a screen
    yield service
    for collection in service.http.get("/collections").json()["collections"]:
        service.http.delete(f"/collections/{collection['name']}").raise_for_status()


@pytest.mark.parametrize(
    "path", [pytest.param(page, marks=[pytest.mark.slow] * (page.name in SLOW)) for page in PAGES], ids=_name
)
def test_the_examples_of_a_page_do_what_it_says(path: Path, reader: Server) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in Page(path).blocks():
        if block.not_run is not None:
            continue
        match block.language:
            case "bash" | "console":
                for command in commands(block):
                    printed = _shell(command.text.replace(URL, reader.url), f"{path.name}:{command.line}")
                    _compare(command.output, printed, command.output_language, f"{path.name}:{command.line}", reader)
            case "python":
                printed = _python(block, path, names, reader)
                _compare(block.output, printed, block.output_language, f"{path.name}:{block.line}", reader)
            case "yaml":
                _config(block.text)


def _shell(command: str, where: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ,  # by default the C library's, in which readline puts a COLUMNS unknown to Python
    )
    assert done.returncode == 0, f"{where}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def _python(block: Block, path: Path, names: dict[str, Any], service: Server) -> str:
    code = "\n" * (block.line - 1) + block.text.replace(URL, service.url)  # a traceback then names the page's line
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, str(path), "exec"), names)
    return printed.getvalue()


def _compare(expected: str | None, printed: str, language: str, where: str, service: Server) -> None:
    if expected is not None and differs(expected.replace(URL, service.url), printed, language):
        pytest.fail(f"{where}: it says\n{expected}\nbut it prints\n{printed}", pytrace=False)


def _config(text: str) -> None:
    """Read a config, or the part of one, as the service does."""
    named = "models" in text.split(":")[0]
    Path("example.yaml").write_text(text if named else f"models: {{default: {{encoder: bundled/x}}}}\n{text}")
    load_config(Path("example.yaml"), env={})


def test_what_is_not_run_has_a_reason_and_is_expected() -> None:
    marked = {_name(page): [block for block in Page(page).blocks() if block.not_run is not None] for page in PAGES}
    assert all(block.not_run for blocks in marked.values() for block in blocks)
    assert {name: len(blocks) for name, blocks in marked.items() if blocks} == NOT_RUN


def test_no_mark_stands_alone() -> None:
    """A mark that is spelled otherwise, or not right above a block, would not be seen."""
    for page in PAGES:
        marks = sum(block.not_run is not None for block in Page(page).blocks())
        assert Page(page).text.count("<!--") == marks, _name(page)


@_every_page
def test_make_knows_every_target_that_is_named(path: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z][a-z-]*)", Page(path).code(), re.MULTILINE))
    assert named <= targets


@_every_page
def test_every_module_that_is_run_exists(path: Path) -> None:
    named = re.findall(r"\bpython -m ([a-z_.]+)", Page(path).code())
    assert [name for name in named if find_spec(name) is None] == []


@_every_page
def test_no_page_names_a_folder_that_a_reader_has_not(path: Path) -> None:
    assert "shared/data" not in Page(path).text


def test_the_readme_can_be_read_at_once() -> None:
    assert len(Page(ROOT / "README.md").text.splitlines()) <= 150


def test_the_index_has_every_page() -> None:
    linked = set(Page(ROOT / "docs" / "README.md").links())
    assert {page.name for page in PAGES[1:]} - {"README.md"} <= linked


def test_every_key_of_a_config_is_described() -> None:
    described = Page(ROOT / "docs" / "configuration.md").code().split("\n")
    for section, field in Config.model_fields.items():
        if section in ("models", "rerankers", "sparse"):
            continue
        for key in type(field.default).model_fields:
            assert f"{section}.{key}" in described
            assert f"MILLPOND_{section}__{key}".upper() in described


def test_every_command_and_option_is_described() -> None:
    described = Page(ROOT / "docs" / "command-line.md").code()
    for name, command in get_command(app).commands.items():
        assert f"millpond {name}" in described
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
        assert [option for option in options if option not in described] == []


_LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md"]


@pytest.mark.parametrize("path", _LINKING, ids=_name)
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in Page(path).links():
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if "://" not in link and (not target.exists() or (anchor and anchor not in Page(target).anchors())):
            broken.append(link)
    assert broken == []
