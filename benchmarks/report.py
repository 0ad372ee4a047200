"""Results on stdout and in files: a page of Markdown, the figures behind it as JSON, and plots."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.machine import machine
from benchmarks.options import Settings, progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Report:
    """One benchmark's results.

    Args:
        name: of the module, and of the files.
        title: the page's heading.
        settings: how it was measured.

    """

    def __init__(self, name: str, title: str, settings: Settings) -> None:
        self._name, self._settings = name, settings
        self._made = datetime.now(UTC).strftime("%Y-%m-%d")
        self._command = f"python -m benchmarks.{name} {settings.flags}"
        self._data: dict[str, Any] = {}
        self._parts = [f"# {title}", f"{self._made}; {machine()}.", f"```\n{self._command}\n```"]
        if settings.quick:
            self.say("**A quick try with small samples: its figures say nothing.**")
        settings.results.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(text)

    def note(self, notes: Iterable[str]) -> None:
        """A list of remarks, such as what was left out and why."""
        if lines := [f"* {note}" for note in notes]:
            self._parts.append("\n".join(lines))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table, its first column text and the others figures."""
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
        self._parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))

    def commands(self, commands: Mapping[str, Sequence[Any]]) -> None:
        """How the servers were run, by name; folders of this machine are shown by their last part."""
        shown = {name: shlex.join(_without_folder(str(word)) for word in words) for name, words in commands.items()}
        self._parts.append("Servers:\n\n" + "\n".join(f"* {name}: `{command}`" for name, command in shown.items()))
        self._data["commands"] = shown

    def keep(self, key: str, value: Any) -> None:
        """Figures for the JSON file."""
        self._data[key] = value

    def plot(self, figure: Figure, name: str, caption: str) -> None:
        """A plot, as PNG beside the page."""
        path = self._settings.results / f"{name}.png"
        figure.savefig(path, dpi=120)
        self._parts.append(f"![{caption}]({path.name})")

    def write(self) -> None:
        """Print the page and write the files."""
        page = "\n\n".join(self._parts) + "\n"
        print(page, end="", flush=True)
        made = {"made": self._made, "machine": machine(), "command": self._command}
        folder = self._settings.results
        (folder / f"{self._name}.md").write_text(page)
        (folder / f"{self._name}.json").write_text(json.dumps({**made, **self._data}, indent=1) + "\n")
        progress(f"written: {self._name}.md, {self._name}.json in {folder}")


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median over the rounds of first / second: what slows a whole round down cancels."""
    return median(one / other for one, other in zip(first, second, strict=True))


def number(value: float) -> str:
    """Three significant digits, and whole numbers in full."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the most where there are several."""
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def _without_folder(word: str) -> str:
    return word.rpartition("/")[2] if word.startswith("/") else word
