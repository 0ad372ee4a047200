"""The report: a folder with `report.md` and its plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.machine import machine
from loadtests.deployment import Facts
from loadtests.plots import plot_machine, plot_run
from loadtests.records import BACKPRESSURE, FAILURE, OK
from loadtests.run import RAMP, Figures, Run
from loadtests.sampler import Sample, usage, within
from loadtests.scenarios import SCENARIOS

MOST_MESSAGES = 10
"""Kinds of failure that are spelled out for each scenario."""


@dataclass
class Measured:
    """All that a load test found out."""

    command: str
    facts: Facts
    local: bool
    """Whether the service ran on this machine, as a process that was watched."""
    runs: list[Run] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything was wrong with the service, or with the measurement."""
        return bool(self.problems) or any(run.problems or run.count(FAILURE) for run in self.runs)


def write(measured: Measured, folder: Path) -> Path:
    """Write the report, in place of an older one; gives the path of `report.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SCENARIOS, "machine"):
        (folder / f"{name}.png").unlink(missing_ok=True)
    begun = [run for run in measured.runs if run.records]
    parts = [_head(measured), _results(begun)]
    if measured.samples:
        plot_machine(begun, measured.samples, folder / "machine.png")
        parts.append(_cost(begun, measured))
    for run in begun:
        plot_run(run, folder / f"{run.scenario.name}.png")
        parts.append(_scenario(run))
    path = folder / "report.md"
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _head(measured: Measured) -> str:
    lines = [
        "# Load test",
        "",
        f"* When: {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        f"* Command: `{measured.command}`",
        f"* Machine: {machine()}, locust {version('locust')}",
        f"* Service: {measured.facts.summary}",
    ]
    if measured.local:
        lines.append(
            "* Locust ran on the same cores as the service and took its share of them, which the second table shows. "
            "On a machine of its own it would leave the service more, and the figures would be higher."
        )
    if measured.interrupted:
        lines.append("* **Interrupted**: the last scenario is not whole, and others may be missing.")
    problems = [
        *measured.problems,
        *(f"{run.scenario.name}: {text}" for run in measured.runs for text in run.problems),
    ]
    for problem in problems:
        lines += ["", "**Failed**:", "", _literal(problem)]
    return "\n".join(lines)


def _results(runs: Sequence[Run]) -> str:
    rows = [
        "| scenario | users | requests/s | texts/s | p50, ms | p95, ms | p99, ms "
        "| answered | failures | backpressure |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in runs:
        counts = " | ".join(str(run.count(outcome)) for outcome in (OK, FAILURE, BACKPRESSURE))
        rows.append(f"| {run.scenario.name} | {run.users} | {_cells(run.figures(run.steady_records()))} | {counts} |")
    return "\n".join(
        [
            "## Results",
            "",
            *rows,
            "",
            f"Rates and latencies are of the time at the full number of users, after a ramp of {RAMP:.0%} of each "
            "run; the last three columns count the whole run. Backpressure is a 503 or 429 with `Retry-After`: the "
            "user waits as long as it says and sends the request again. Every answer is checked, and a wrong one is "
            "a failure.",
        ]
    )


def _cost(runs: Sequence[Run], measured: Measured) -> str:
    rows = []
    for run in runs:
        used = usage(within(measured.samples, *run.steady))
        resident = [sample.resident for sample in within(measured.samples, run.started, run.ended)]
        if used is None:
            continue
        local = (
            [f"{used.service:.2f}", f"{resident[0]:.0f}", f"{max(resident):.0f}", f"{resident[-1]:.0f}"]
            if measured.local
            else ["not here"] * 4
        )
        cells = [run.scenario.name, local[0], f"{used.generator:.2f}", f"{used.others:.2f}", *local[1:]]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "## What it cost",
            "",
            "| scenario | service, cores | Locust, cores | others, cores | memory at start, MB | peak | end |",
            "|---|--:|--:|--:|--:|--:|--:|",
            *rows,
            "",
            "Cores are means over the time at the full number of users. Others is all else on this machine: where it "
            "is far from 0, something else was running, and the figures are lower than they would be.",
            "",
            "![Memory of the service, and cores in use, over time](machine.png)",
        ]
    )


def _scenario(run: Run) -> str:
    name = run.scenario.name
    lines = [f"## {name}", "", run.scenario.summary, "", f"![Latency and throughput over time]({name}.png)"]
    steady = run.steady_records()
    kinds = sorted({record.name for record in steady if record.outcome == OK})
    if len(kinds) > 1:
        lines += ["", "| request | requests/s | texts/s | p50, ms | p95, ms | p99, ms |", "|---|--:|--:|--:|--:|--:|"]
        for kind in kinds:
            figures = run.figures([record for record in steady if record.name == kind])
            lines.append(f"| {kind} | {_cells(figures)} |")
    failures = run.failures()
    if failures:
        lines += [
            "",
            f"Failures, the {MOST_MESSAGES} most frequent of {len(failures)} kinds:"
            if len(failures) > MOST_MESSAGES
            else "Failures:",
        ]
        for (kind, message), count in failures.most_common(MOST_MESSAGES):
            lines += ["", f"{count} x {kind}:", "", _literal(message)]
    return "\n".join(lines)


def _cells(figures: Figures | None) -> str:
    if figures is None:
        return " | ".join(["-"] * 5)
    values = (figures.requests_per_second, figures.texts_per_second, figures.p50, figures.p95, figures.p99)
    return " | ".join(f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in values)


def _literal(text: str) -> str:
    """Text of others as an indented block, so that nothing in it counts as markup."""
    return "\n".join(f"    {line}" for line in text.splitlines())
