"""What the documentation is checked with can tell right from wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.markdown import Block, Command, Page, commands
from tests.support.outputs import differs

PAGE = """# A page: `code`, & more

See [one](one.md#part), and `[none](none.md)`.

```bash
curl one
```
```json
{"a": 1}
```

<!-- not run: it has no end -->
```bash
make run
```

Prose.

```text
no output
```

```console
$ first \\
  --more
printed
$ second
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Page:
    (tmp_path / "page.md").write_text(PAGE)
    return Page(tmp_path / "page.md")


def test_blocks_have_their_output_line_and_mark(page: Page) -> None:
    assert page.blocks() == [
        Block("bash", "curl one\n", 6, '{"a": 1}\n', "json"),
        Block("bash", "make run\n", 14, not_run="it has no end"),
        Block("text", "no output\n", 20),
        Block("console", "$ first \\\n  --more\nprinted\n$ second\n", 24),
    ]


def test_commands_have_the_output_that_is_shown(page: Page) -> None:
    first, *_, last = page.blocks()
    assert list(commands(first)) == [Command("curl one\n", 6, '{"a": 1}\n', "json")]
    assert list(commands(last)) == [
        Command("first \\\n  --more\n", 24, "printed\n", "text"),
        Command("second\n", 27, "", "text"),
    ]


def test_links_anchors_and_code(page: Page) -> None:
    assert page.links() == ["one.md#part"]
    assert page.anchors() == {"a-page-code--more"}
    assert {"curl one", "make run", "code"} <= set(page.code().splitlines())


EQUAL = [
    ("json", '{"a": 0.1234, "created": "x"}', '{"created": "y", "a": 0.1239}'),
    ("json", '{"a": 1}\n[2, ...]', '{"a": 1}[2, 3, 4]'),
    ("json", '{"a": [{"b": 1, ...}], ...}', '{"a": [{"b": 1, "c": 2}], "d": 3}'),
    ("text", "score 0.12 +0.5\n", "score   0.13 +0.4"),
    ("text", "took 1.5 s, 20 documents/s, off by 1e-07", "took 22 s, 3.1 documents/s, off by 2.5e-08"),
    ("text", "first\n...\nlast", "first\nsecond\nthird\nlast"),
    ("text", "... b ... b ...", "a b b"),
    ("text", "a ███ 1", "a █▌ 1"),
]
DIFFERENT = [
    ("json", '{"a": 0.1234}', '{"a": 0.1254}'),
    ("json", '{"a": 1}', '{"a": 1, "b": 2}'),
    ("json", '{"a": 1, "created": "x"}', '{"a": 1}'),
    ("json", '{"a": 1}', '{"a": true}'),
    ("json", "[1]", "[1][2]"),
    ("json", "[1, 2, ...]", "[1]"),
    ("text", "score 0.12", "score 0.15"),
    ("text", "3 documents", "4 documents"),
    ("text", "one word", "another word"),
    ("text", "first\n...\nlast", "first\nlast\nmore"),
    ("text", "... b ... b", "a b"),
    ("text", "a ... b ... c", "a b d c e"),
    ("text", "", "printed"),
]


@pytest.mark.parametrize(("language", "expected", "actual"), EQUAL)
def test_what_varies_makes_no_difference(language: str, expected: str, actual: str) -> None:
    assert not differs(expected, actual, language)


@pytest.mark.parametrize(("language", "expected", "actual"), DIFFERENT)
def test_what_does_not_vary_does(language: str, expected: str, actual: str) -> None:
    assert differs(expected, actual, language)
