"""What a model's README says that no file declares: texts that are to stand before others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MOST: Final = 1 << 20
"""Characters of a README that are read."""
_PROMPT: Final = (
    r"((?:search_query|search_document|query|passage|document|clustering|classification): "
    r"|Instruct: "
    r"|Represent th(?:is|e) [^\"'`\u201d\u2019\n]{0,120}?: ?"
    r"|task: [^\"'`|\n]{1,80}\| query: ?"
    r"|title: [^\"'`|\n]{1,80}\| text: ?"
    r"|为这个句子生成表示以用于检索相关文章\uff1a)"
)
_QUOTED: Final = re.compile(rf"(?:[\"'`\u201c\u2018]|<code>){_PROMPT}")
_FENCE: Final = re.compile(r"^ *```[ \t]*(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_LINE: Final = re.compile(rf"^[ \t]*{_PROMPT}", re.MULTILINE)
_KEYS: Final = {"yaml", "yml", "json", "toml", "graphql", "http"}
"""Languages in which a line that begins with `query: ` sets a key."""


def quoted_prompts(folder: Path) -> list[str]:
    """Return the usual prompts that a model's README quotes, or begins a line of code with; sorted, at most four."""
    try:
        with (folder / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
    except OSError:
        return []
    found = set(_QUOTED.findall(text))
    for language, block in _FENCE.findall(text):
        if language.lower() not in _KEYS:
            found.update(_LINE.findall(block))
    return sorted(found)[:4]
