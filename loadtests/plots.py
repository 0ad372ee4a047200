"""Plots of a load test, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.records import BACKPRESSURE, FAILURE, LOOKS, OK
from loadtests.run import RAMP, Run, percentiles
from loadtests.sampler import Sample


def plot_run(run: Run, path: Path) -> None:
    """Latency percentiles and throughput over the time of a run."""
    width = max(1, round(run.seconds / 40))
    length = min(run.ended - run.started, run.seconds)
    bins = [(start, start + width) for start in range(0, int(length) - width + 1, width)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    latency, rate = figure.subplots(2, 1, sharex=True)
    middles, p50, p95, p99, answers, refusals, failures, users = [], [], [], [], [], [], [], []
    for start, end in bins:
        here = [record for record in run.within(run.started + start, run.started + end) if record.name not in LOOKS]
        answered = [record for record in here if record.outcome == OK]
        middles.append((start + end) / 2)
        low, high, highest = percentiles(answered) if answered else (float("nan"),) * 3
        p50.append(low)
        p95.append(high)
        p99.append(highest)
        answers.append(len(answered) / width)
        refusals.append(sum(record.outcome == BACKPRESSURE for record in here) / width)
        failures.append(sum(record.outcome == FAILURE for record in here) / width)
        users.append(max((record.users for record in here), default=float("nan")))
    for values, label in ((p50, "p50"), (p95, "p95"), (p99, "p99")):
        latency.plot(middles, values, label=label)
    latency.set_ylabel("latency, ms")
    latency.set_title(f"{run.scenario.name}, {run.users} users, {width} s a point")
    rate.plot(middles, answers, label="answers/s")
    if any(refusals):
        rate.plot(middles, refusals, label="backpressure/s", color="tab:orange")
    if any(failures):
        rate.plot(middles, failures, label="failures/s", color="tab:red")
    rate.plot(middles, users, label="users", color="tab:gray", linestyle="--")
    rate.set_ylabel("a second")
    rate.set_xlabel(
        "seconds; dotted lines part the phases" if run.phases else "seconds; tables count from the dotted line"
    )
    for axes in (latency, rate):
        for begins in [start - run.started for _, start, _ in run.phases[1:]] or [RAMP * run.seconds]:
            axes.axvline(begins, color="tab:gray", linestyle=":")
        _finish(axes)
    figure.savefig(path, dpi=100)


def plot_machine(runs: Sequence[Run], samples: Sequence[Sample], path: Path) -> None:
    """Memory of the service and use of processors over all runs."""
    begin = samples[0].at
    times = [sample.at - begin for sample in samples]
    figure = Figure(figsize=(8, 5), layout="constrained")
    memory, cores = figure.subplots(2, 1, sharex=True)
    memory.plot(times, [sample.resident for sample in samples])
    memory.set_ylabel("memory of the service, MB")
    for name in ("service", "generator", "machine"):
        # A new Locust begins at 0 again; that step is no use of processors.
        used = [
            max(getattr(after, name) - getattr(before, name), 0) / (after.at - before.at)
            for before, after in pairwise(samples)
        ]
        cores.plot(
            times[1:], _smoothed(used), label={"generator": "Locust", "machine": "all of the machine"}.get(name, name)
        )
    cores.set_ylabel("cores in use")
    cores.set_xlabel("seconds; shaded where a scenario ran")
    for run in runs:
        for axes in (memory, cores):
            axes.axvspan(run.started - begin, run.ended - begin, color="tab:gray", alpha=0.15)
        # Upright, so that the names of short runs do not meet.
        middle, foot = (run.started + run.ended) / 2 - begin, memory.get_xaxis_transform()
        memory.text(middle, 0.03, run.scenario.name, transform=foot, rotation=90, ha="center", fontsize="small")
    _finish(memory, legend=False)
    _finish(cores)
    figure.savefig(path, dpi=100)


def _smoothed(values: Sequence[float], most: int = 5) -> list[float]:
    """Return the mean of each value and the few before it."""
    windows = (values[max(0, place - most + 1) : place + 1] for place in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def _finish(axes: Axes, *, legend: bool = True) -> None:
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(loc="best", fontsize="small")
