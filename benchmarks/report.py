"""How a benchmark is run, and its results: a Markdown page, the figures behind it as JSON, and plots."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final, TypeVar

from benchmarks.machine import machine, processor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.servers import Field

RESULTS: Final = Path(__file__).parent / "results"

Key = TypeVar("Key")
Value = TypeVar("Value")
Rows = Mapping[str, Mapping[str, Value]]
"""A table: by the name of the row, then by the head of the column."""


class Report:
    """The results of one benchmark.

    Args:
        name: of the benchmark, and of the files.
        title: the page's heading.
        rounds: how often to measure; the median counts.
        quick: whether to measure little, only to check that the benchmark works.
        folder: for the files.
        options: further words of the command that makes it.
        vectors: how many to store, where vectors are; None for what the benchmark has by default.

    """

    def __init__(
        self,
        name: str,
        title: str,
        *,
        rounds: int,
        quick: bool,
        folder: Path,
        options: Sequence[str] = (),
        vectors: int | None = None,
    ) -> None:
        self._name, self.rounds, self._quick, self._folder = name, rounds, quick, folder
        self._vectors = vectors
        self._processor = processor()
        flags = shlex.join([*(["--quick"] if quick else []), *options, "--rounds", str(rounds)])
        self._data: dict[str, Any] = {
            "made": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": machine(),
            "command": f"python -m benchmarks {name} {flags}",
        }
        self._parts = [f"# {title}", "{made}; {machine}.\n\n```\n{command}\n```".format(**self._data)]
        if quick:
            self.say("**A quick try with small samples: its figures say nothing.**")

    def size(self, full: int, quick: int) -> int:
        """Choose a sample size: `full` for results to publish, or `quick`."""
        return quick if self._quick else full

    def vectors(self, full: int, quick: int) -> int:
        """Choose how many vectors to store: what was asked for, or by `size`."""
        return self._vectors or self.size(full, quick)

    def interleave(self, contestants: Mapping[Key, Callable[[], Value]]) -> dict[Key, list[Value]]:
        """Measure all contestants in every round, so that what slows the machine for a while slows them alike."""
        found: dict[Key, list[Value]] = {key: [] for key in contestants}
        for done in range(self.rounds):
            for place, (key, measure) in enumerate(contestants.items(), 1):
                found[key].append(measure())
                at = f"{place} of {len(contestants)} in round {done + 1} of {self.rounds}"
                progress(f"{self._name}: {at}, {', '.join(key) if isinstance(key, tuple) else key}")
        return found

    def say(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(text)

    def note(self, notes: Iterable[str]) -> None:
        """Add a list of remarks."""
        if lines := [f"* {note}" for note in notes]:
            self.say("\n".join(lines))

    def table(
        self, corner: str, rows: Rows[Value], show: Callable[[Value], str] = str, heads: Sequence[str] = ()
    ) -> None:
        """Add a table of what is found by row and column, headed by the processor; a missing cell stays empty."""
        self.computed(": ".join(filter(None, (corner, self._processor))), rows, show, heads)

    def computed(
        self, corner: str, rows: Rows[Value], show: Callable[[Value], str] = str, heads: Sequence[str] = ()
    ) -> None:
        """Add such a table of what no processor has a part in."""
        heads = heads or list(dict.fromkeys(head for row in rows.values() for head in row))
        lines = [[corner, *heads], ["---", *["---:"] * len(heads)]]
        for name, row in rows.items():
            lines.append([name, *(show(row[head]) if head in row else "" for head in heads)])
        self.say("\n".join(f"| {' | '.join(cells)} |" for cells in lines))

    def servers(self, field: Field, notes: Iterable[str] = ()) -> None:
        """Add what was left out, how the others ran, and their commands; folders are shown by their last part."""
        self.note([*field.left_out, *notes, *dict.fromkeys(server.remark for server in field.servers)])
        shown = {
            server.name: shlex.join(_without_folder(str(word)) for word in server.running.command)
            for server in field.servers
        }
        self.say("Servers:\n\n" + "\n".join(f"* {name}: `{command}`" for name, command in shown.items()))
        self.keep(commands=shown, left_out=field.left_out)

    def keep(self, **figures: Any) -> None:
        """Add figures to the JSON file."""
        self._data |= figures

    def plot(self, figure: Figure, name: str, caption: str) -> None:
        """Add a plot, as PNG beside the page."""
        self._folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self._folder / f"{name}.png", dpi=120)
        self.say(f"![{caption}]({name}.png)")

    def write(self) -> None:
        """Print the page and write the files."""
        page = "\n\n".join(self._parts) + "\n"
        print(page, end="", flush=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{self._name}.md").write_text(page)
        (self._folder / f"{self._name}.json").write_text(json.dumps(self._data, indent=1) + "\n")
        progress(f"written: {self._name}.md, {self._name}.json in {self._folder}")


def progress(text: str) -> None:
    """Log to stderr."""
    print(text, file=sys.stderr, flush=True)


def nested(found: Mapping[tuple[str, Key], Value]) -> dict[str, dict[Key, Value]]:
    """Regroup what is found by pairs of keys: by the first, then by the second."""
    rows: dict[str, dict[Key, Value]] = {}
    for (row, column), value in found.items():
        rows.setdefault(row, {})[column] = value
    return rows


def medians_by_column(rows: Rows[Sequence[float]], columns: Iterable[str]) -> dict[str, dict[str, float]]:
    """Give the medians of some columns of a table, each by row."""
    return {head: {one: median(row[head]) for one, row in rows.items() if head in row} for head in columns}


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Give the median over the rounds of first / second, so that what slows a whole round down cancels out."""
    return median(one / other for one, other in zip(first, second, strict=True))


def ratios(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """Format the `ratio` of each kind of load that both have measured."""
    return {kind: number(ratio(rates, second[kind])) for kind, rates in first.items() if kind in second}


def number(value: float) -> str:
    """Format with three significant digits, and whole numbers in full."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """Format the median, with the least and the most where there are several values."""
    middle = number(median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}-{number(max(values))})"


def _without_folder(word: str) -> str:
    return word.rpartition("/")[2] if word.startswith("/") else word
