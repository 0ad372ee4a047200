"""Texts a second by the length of the texts, and by the number of clients that send one text at a time.

    python -m benchmarks.scaling

It says whether there is a cliff: a loss of more than a quarter from one number of clients to its double.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Final

from transformers import AutoTokenizer

from benchmarks import datasets
from benchmarks.load import HOW, Client
from benchmarks.loop import bundled
from benchmarks.options import Settings, from_command_line, progress
from benchmarks.peers import INT8, infinities
from benchmarks.plots import lines
from benchmarks.report import Report, number
from benchmarks.servers import Server
from benchmarks.service import MODELS, runnable

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLIFF: Final = 0.25
REQUEST_TOKENS: Final = 1024
"""About so many tokens make a request where lengths are compared, by 4 clients."""
LEAST_TEXTS: Final = 2

Curve = dict[int, list[float]]
"""Texts a second of each round, by step."""


def texts_of(length: int, count: int) -> list[str]:
    """Texts of exactly so many tokens, special ones included, of whole words.

    Raises:
        ValueError: the tokenizer splits a word after all.

    """
    tokenizer: Any = AutoTokenizer.from_pretrained(bundled())
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 3)
    draw = random.Random(length)
    texts = [" ".join(draw.choices(words, k=length - 2)) for _ in range(count)]
    if any(len(ids) != length for ids in tokenizer(texts)["input_ids"]):
        raise ValueError(f"a text has other than {length} tokens")
    return texts


def cliffs(curve: Curve) -> list[str]:
    """Where the median falls by more than `CLIFF` from one step to the next."""
    middles = {step: median(rates) for step, rates in curve.items()}
    return [
        f"from {before} to {after} clients, {number(middles[before])} to {number(middles[after])} texts/s"
        for before, after in pairwise(middles)
        if middles[after] < middles[before] * (1 - CLIFF)
    ]


def run(settings: Settings) -> None:
    """Measure, print and write."""
    report = Report("scaling", "By length and by clients", settings)
    seconds = 0.5 if settings.quick else 1.0
    sentences = datasets.sts_sentences()
    made = {length: texts_of(length, 8 * max(LEAST_TEXTS, REQUEST_TOKENS // length)) for length in LENGTHS}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        models = {"default": {**MODELS["default"], "max_tokens": max(LENGTHS)}}
        ours, notes = runnable(stack, folder, models=models)
        best, left_out = infinities(stack, folder, [INT8])
        servers: list[Server] = [*ours.values(), *best]
        notes += left_out or [f"{INT8} cuts texts at 256 tokens, so that it is measured by clients alone."]
        client = stack.enter_context(Client())
        by_length: dict[str, Curve] = {one.name: {length: [] for length in LENGTHS} for one in ours.values()}
        by_clients: dict[str, Curve] = {one.name: {clients: [] for clients in CLIENTS} for one in servers}
        for server in servers:
            server.warm_up(client, sentences[:128])
        for number_of in range(settings.rounds):
            for length, texts in made.items():
                each = max(LEAST_TEXTS, REQUEST_TOKENS // length)
                for one in ours.values():
                    outcome = client.run(one.load(texts, clients=4, each=each, seconds=seconds))
                    by_length[one.name][length].append(outcome.rate)
            for clients in CLIENTS:
                for server in servers:
                    outcome = client.run(server.load(sentences, clients=clients, each=1, seconds=seconds))
                    by_clients[server.name][clients].append(outcome.rate)
            progress(f"scaling: round {number_of + 1} of {settings.rounds}")
        runs_on = [f"{server.name} ran {server.runs_on}." for server in ours.values()]
        commands = {server.name: server.command() for server in servers}
    report.say(
        f"By the length of the texts, all of one length, `max_tokens: {max(LENGTHS)}`; 4 clients, about "
        f"{REQUEST_TOKENS} tokens a request and at least {LEAST_TEXTS} texts; texts/s, and in brackets tokens/s; "
        f"median of {settings.rounds}:"
    )
    report.table(
        ["tokens a text", *map(str, LENGTHS)],
        [
            [one, *(f"{number(median(rates))} ({number(median(rates) * length)})" for length, rates in curve.items())]
            for one, curve in by_length.items()
        ],
    )
    _plot(report, by_length, LENGTHS, "scaling-length", "tokens a text", "By the length of the texts", log_y=True)
    report.say(f"By clients, each sending one STS-B sentence a request; texts/s, median of {settings.rounds}:")
    report.table(
        ["clients", *map(str, CLIENTS)],
        [[one, *(number(median(rates)) for rates in curve.values())] for one, curve in by_clients.items()],
    )
    found = {one: cliffs(curve) for one, curve in by_clients.items()}
    report.note(
        f"{one}: " + (f"a cliff {'; '.join(falls)}." if falls else f"no cliff: no step loses more than {CLIFF:.0%}.")
        for one, falls in found.items()
    )
    _plot(report, by_clients, CLIENTS, "scaling-clients", "clients, one text a request", "By the number of clients")
    report.say(f"Each step is {seconds} s and what was under way then. {HOW}")
    report.note([*notes, *runs_on])
    report.commands(commands)
    report.keep("by_length", by_length)
    report.keep("by_clients", by_clients)
    report.keep("cliffs", found)
    report.keep("left_out", notes)
    report.write()


def _plot(
    report: Report,
    curves: dict[str, Curve],
    steps: Sequence[int],
    name: str,
    x: str,
    title: str,
    *,
    log_y: bool = False,
) -> None:
    series = {one: [median(rates) for rates in curve.values()] for one, curve in curves.items()}
    report.plot(lines(steps, series, x=x, y="texts/s", title=title, log_y=log_y), name, title)


if __name__ == "__main__":
    run(from_command_line(__doc__))
