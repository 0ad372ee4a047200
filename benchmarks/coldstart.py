"""From the start of the process to the first answer, and the memory that it takes by then.

    python -m benchmarks.coldstart

Millpond was started once before at each precision, so that converted models are in their cache.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks import datasets
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.peers import Infinity, MissingPeer, Txtai, quantized_folder
from benchmarks.plots import bars
from benchmarks.report import Report, spread
from benchmarks.servers import Server
from benchmarks.service import Millpond, runnable

FIGURES = ("ready", "first answer", "memory, ready", "memory, answered")


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("coldstart", "Cold start and memory", settings)
    sentence = datasets.sts_sentences()[:1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ExitStack() as stack:
            ours, notes = runnable(stack, folder)
        runs_on: dict[str, str] = {}
        kinds: dict[str, Callable[[], Server]] = {
            server.name: lambda precision=precision: Millpond(
                f"Millpond {precision}", folder, runtime={"precision": precision}
            )
            for precision, server in ours.items()
        }
        peers: dict[str, Callable[[], Server]] = {
            "Infinity torch fp32": lambda: Infinity(folder),
            "Infinity ONNX int8": lambda: Infinity(folder, quantized=quantized_folder()),
            "txtai": lambda: Txtai(folder),
        }
        for peer, make in peers.items():
            try:
                make()
                kinds[peer] = make
            except MissingPeer as error:
                notes.append(f"{peer} is left out: {error}")
        found: dict[str, dict[str, list[float]]] = {one: {figure: [] for figure in FIGURES} for one in kinds}
        commands = {}
        for number_of in range(settings.rounds):
            for one, make in kinds.items():
                with make() as server:
                    figures = _start(server, sentence)
                    commands[one] = server.command()
                    if isinstance(server, Millpond):
                        runs_on[one] = server.runs_on
                for figure, value in zip(FIGURES, figures, strict=True):
                    found[one][figure].append(value)
            progress(f"coldstart: round {number_of + 1} of {settings.rounds}")
    report.say(
        "Seconds from the start of the process until it says that it is ready, and until the first sentence is "
        "answered; resident memory of all its processes, in MB, at both moments. Converted models are in their "
        f"cache from a start before. Median of {settings.rounds} (least-most)."
    )
    report.table(
        ["cold start", "ready, s", "first answer, s", "memory when ready, MB", "memory after the answer, MB"],
        [[one, *(spread(values) for values in figures.values())] for one, figures in found.items()],
    )
    report.note([*notes, *(f"{one} ran {on}." for one, on in runs_on.items())])
    report.commands(commands)
    panels = {
        heading: {one: median(figures[figure]) for one, figures in found.items()}
        for heading, figure in (
            ("process start to first answer, seconds", "first answer"),
            ("resident memory after the first answer, MB", "memory, answered"),
        )
    }
    report.plot(
        bars(panels, x="lower is better", title="Cold start and memory"), "coldstart", "Cold start and memory"
    )
    report.keep("coldstart", found)
    report.keep("left_out", notes)
    report.write()


def _start(server: Server, sentence: list[str]) -> tuple[float, float, float, float]:
    """`FIGURES` of a server that has just become ready."""
    ready, memory = server.ready_after, server.memory
    asked = time.perf_counter()
    server.embed(sentence)
    return ready, ready + time.perf_counter() - asked, memory, server.memory


if __name__ == "__main__":
    run(from_command_line(__doc__))
