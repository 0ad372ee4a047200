"""What a model's README says that no file declares: texts that are to stand before others."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Final

_MOST: Final = 1 << 20
"""Characters of a README that are read."""
_WORD: Final = r"(?:search_query|search_document|query|passage|document|clustering|classification):"
_PROMPT: Final = (
    rf"({_WORD} "
    r"|Instruct: "
    r"|Represent th(?:is|e) [^\"'`\u201d\u2019\n]{0,120}?: ?"
    r"|task: [^\"'`|\n]{1,80}\| query: ?"
    r"|title: [^\"'`|\n]{1,80}\| text: ?"
    r"|为这个句子生成表示以用于检索相关文章\uff1a)"
)
_QUOTED: Final = re.compile(rf"(?:[\"'`\u201c\u2018]|<code>){_PROMPT}")
_ALONE: Final = re.compile(rf"(?:[\"'`\u201c\u2018]|<code>)((?i:{_WORD})) ?(?:[\"'`\u201d\u2019]|</code>)")
"""A prompt and nothing else in quotes, in any case and without the space at its end."""
_NAMED: Final = re.compile(
    r"\b(?i:prefix(?:e[sd])?|prepend(?:ed)?|(?:start|begin)s? with):?(?:[^.:\n]{0,40} (?:with|by|as|is))? "
    rf"({_WORD})(?=\s)|(?<=\w )\*\*({_WORD}) ?\*\*"
)
"""A prompt in prose without quotes; one in bold that begins a line is a label."""
_INSTRUCTION: Final = re.compile(r"\b(Represent th(?:is|e) [\w ]{1,60} for [\w ]{1,60}:)")
_SHOWN: Final = re.compile(r"^.*(?:print|input|write|log\w{0,9}\.\w{1,9}) *\(.*$", re.MULTILINE)
"""Lines of code in which a quoted `Query: ` is a label."""
_FENCE: Final = re.compile(r"^ *```[ \t]*(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINE: Final = re.compile(rf"^[ \t]*{_PROMPT}", re.MULTILINE)
_KEYS: Final = {"yaml", "yml", "json", "toml", "graphql", "http"}
"""Languages in which a line that begins with `query: ` sets a key."""


def read_readme(folder: Path) -> str:
    """Return the beginning of a model's README, 2^20 characters at most; empty where there is none to read."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            return file.read(_MOST)
    except OSError:
        return ""


def quoted_prompts(folder: Path) -> list[str]:
    """Return the usual prompts that a model's README quotes or names, or begins a line of code with; at most four."""
    text = read_readme(folder)
    found = {*_QUOTED.findall(text), *_INSTRUCTION.findall(text)}
    words = {*_ALONE.findall(_SHOWN.sub("", text)), *chain.from_iterable(_NAMED.findall(text))}
    found.update(f"{word} " for word in words if word)
    for language, block in _FENCE.findall(text):
        if language.lower() not in _KEYS:
            found.update(_LINE.findall(block))
    return sorted(found)[:4]
