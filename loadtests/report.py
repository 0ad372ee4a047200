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
from loadtests.records import BACKPRESSURE, FAILURE, LOOKS, OK, Record
from loadtests.run import RAMP, Figures, Run, percentiles
from loadtests.sampler import Sample, slope, usage, within
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
        parts.append(_scenario(run, measured.samples))
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
            "a failure. Of a scenario in phases they are of the phase with most users; the users are those of the "
            "others.",
        ]
    )


def _cost(runs: Sequence[Run], measured: Measured) -> str:
    rows = []
    for run in runs:
        used = usage(within(measured.samples, *run.steady))
        resident = [sample.resident for sample in within(measured.samples, run.started, run.ended)]
        if used is None:
            continue
        local = ["not here"] * 7
        if measured.local:
            memory = [f"{megabytes:.0f}" for megabytes in (resident[0], max(resident), resident[-1])]
            growth = f"{slope(within(measured.samples, *run.steady)):+.1f}"
            local = [f"{used.service:.2f}", *memory, growth, *_change(run, measured.samples)]
        cells = [run.scenario.name, local[0], f"{used.generator:.2f}", f"{used.others:.2f}", *local[1:]]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [
            "## What it cost",
            "",
            "| scenario | service, cores | Locust, cores | others, cores | memory at start, MB | peak | end "
            "| slope, MB a minute | open files | threads |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
            *rows,
            "",
            "Cores and the slope of memory are of the time at the full number of users; open files, with sockets, "
            "and threads are those of its beginning and its end. Others is all else on this machine: where it is far "
            "from 0, something else was running, and the figures are lower than they would be.",
            "",
            "![Memory of the service, and cores in use, over time](machine.png)",
        ]
    )


def _change(run: Run, samples: Sequence[Sample]) -> tuple[str, str]:
    """Open files and threads at the beginning and the end of the steady part."""
    first, *_, last = within(samples, *run.steady)
    return f"{first.descriptors} to {last.descriptors}", f"{first.threads} to {last.threads}"


def _phases(run: Run, samples: Sequence[Sample]) -> list[str]:
    """Say what each phase was like, and how soon the service was as before when the load was."""
    rows = [
        "",
        "| phase | seconds | users | answered/s | p50, ms | p95, ms | p99, ms | refused/s | refused in p50, ms | p99 "
        "| /health and /ready p50, ms | p99 | memory, MB a minute |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for phase, start, end in run.phases:
        here = run.within(start, end)
        load = [record for record in here if record.name not in LOOKS]
        answered, refused = _outcome(load, OK), _outcome(load, BACKPRESSURE)
        looks = [record for record in here if record.name in LOOKS]
        cells = [
            *(phase.name, f"{end - start:.0f}", str(run.users * phase.factor)),
            *(_rate(answered, end - start), *_percentiles(answered, (0, 1, 2))),
            *(_rate(refused, end - start), *_percentiles(refused, (0, 2)), *_percentiles(looks, (0, 2))),
            f"{slope(within(samples, start, end)):+.1f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    if (seconds := _recovery(run)) is not None:
        rows += [
            "",
            f"The service was as before {seconds:.1f} s after the load was: nothing refused, and no answer "
            "slower than twice the 99th percentile of the first phase.",
        ]
    return rows


def _recovery(run: Run) -> float | None:
    """Return after how many seconds of the last phase nothing is refused or slow any more; None where it never is."""
    normal, *_, last = run.phases
    before = _outcome([record for record in run.within(*normal[1:]) if record.name not in LOOKS], OK)
    after = [record for record in run.within(*last[1:]) if record.name not in LOOKS]
    if not before or not after:
        return None
    slow = 2 * percentiles(before)[2]
    odd = [record.at for record in after if record.outcome != OK or record.milliseconds > slow]
    return max(odd, default=last[1]) - last[1]


def _outcome(records: Sequence[Record], outcome: str) -> list[Record]:
    return [record for record in records if record.outcome == outcome]


def _rate(records: Sequence[Record], seconds: float) -> str:
    return f"{len(records) / seconds:.1f}"


def _percentiles(records: Sequence[Record], which: Sequence[int]) -> list[str]:
    found = percentiles(records) if records else None
    return [f"{found[number]:.0f}" if found else "-" for number in which]


def _scenario(run: Run, samples: Sequence[Sample]) -> str:
    name = run.scenario.name
    lines = [f"## {name}", "", run.scenario.summary, "", f"![Latency and throughput over time]({name}.png)"]
    if run.scenario.phases:
        lines += _phases(run, samples)
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
