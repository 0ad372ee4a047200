"""What can be checked in a Markdown page: its fenced blocks, its links and its headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FENCE: Final = re.compile(
    r"^(?:<!-- not run:(?P<reason>.*?)-->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OUTPUT: Final = ("json", "text", "")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: the word behind the fence.
        text: what stands between the fences.
        line: the number of its first line.
        output: the text of the block directly below, where that shows what this one prints.
        output_language: the word behind that block's fence.
        not_run: the reason given in `<!-- not run: reason -->` right above; None where there is no such mark.

    """

    language: str
    text: str
    line: int
    output: str | None = None
    output_language: str = ""
    not_run: str | None = None


@dataclass(frozen=True)
class Command:
    """A shell command of a page, and the output it shows; None where it shows none."""

    text: str
    line: int
    output: str | None
    output_language: str = ""


class Page:
    """A Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    def blocks(self) -> list[Block]:
        """The fenced blocks in order, those that are the output of another left out."""
        found: list[Block] = []
        fences = list(_FENCE.finditer(self.text))
        while fences:
            fence = fences.pop(0)
            below = fences[0] if fences and self._is_output(fence, fences[0]) else None
            if below is not None:
                del fences[0]
            reason = None if fence["reason"] is None else fence["reason"].strip()
            line = self.text.count("\n", 0, fence.start("text")) + 1
            output, kind = (None, "") if below is None else (below["text"], below["language"])
            found.append(Block(fence["language"], fence["text"], line, output, kind, reason))
        return found

    def _is_output(self, fence: re.Match[str], below: re.Match[str]) -> bool:
        adjacent = not self.text[fence.end() : below.start()].strip()
        return adjacent and fence["language"] not in _OUTPUT and below["language"] in _OUTPUT

    def code(self) -> str:
        """All code of the page, one piece a line: of fenced blocks, and between backquotes."""
        prose = _FENCE.sub("", self.text)
        fenced = (fence["text"] for fence in _FENCE.finditer(self.text))
        return "\n".join([*fenced, *_CODE.findall(prose)])

    def links(self) -> list[str]:
        """The targets of its links and images, code left out."""
        return _LINK.findall(_CODE.sub("", _FENCE.sub("", self.text)))

    def anchors(self) -> set[str]:
        """What `#...` may name: its headings, spelled as GitHub does."""
        headings = _HEADING.findall(_FENCE.sub("", self.text))
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(block: Block) -> Iterator[Command]:
    """The commands of a `bash` block, all as one, or of a `console` block, each with the output below it."""
    if block.language == "bash":
        yield Command(block.text, block.line, block.output, block.output_language)
        return
    lines = block.text.splitlines(keepends=True)
    while lines:
        line = block.line + block.text.count("\n") - len(lines)
        command = [lines.pop(0).removeprefix("$ ")]
        while command[-1].endswith("\\\n"):
            command.append(lines.pop(0))
        output = []
        while lines and not lines[0].startswith("$ "):
            output.append(lines.pop(0))
        yield Command("".join(command), line, "".join(output), "text")
