"""Texts a second by the length of the texts, and by the number of clients that send one text at a time.

It says whether there is a cliff: a loss of more than a quarter from one number of clients to its double.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, Final

from transformers import AutoTokenizer

from benchmarks.encoder import minilm
from benchmarks.load import HOW, Client
from benchmarks.millpond import millponds, millponds_in
from benchmarks.peers.infinity import INT8, infinities
from benchmarks.plots import Panel, curves
from benchmarks.report import Report, nested, number
from benchmarks.servers import Target, field_of
from benchmarks.texts import sentences, sts

LENGTHS: Final = (16, 32, 64, 128, 256, 512)
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLIFF: Final = 0.25
REQUEST_TOKENS: Final = 1024
"""About so many tokens make a request where lengths are compared, by 4 clients."""
LEAST_TEXTS: Final = 2

Curve = Mapping[int, Sequence[float]]
"""Texts a second of each round, by step."""


def texts_of(length: int, count: int) -> list[str]:
    """Make texts of exactly so many tokens, special ones included; raises ValueError where a word is split."""
    tokenizer: Any = AutoTokenizer.from_pretrained(minilm())
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 3)
    draw = random.Random(length)
    texts = [" ".join(draw.choices(words, k=length - 2)) for _ in range(count)]
    if any(len(ids) != length for ids in tokenizer(texts)["input_ids"]):
        raise ValueError(f"a text has other than {length} tokens")
    return texts


def medians(curve: Curve) -> dict[int, float]:
    """Give the median of the rounds at each step."""
    return {step: median(rates) for step, rates in curve.items()}


def cliffs(curve: Curve) -> list[str]:
    """Find where the median falls by more than `CLIFF` from one step to the next."""
    middles = medians(curve)
    return [
        f"from {before} to {after} clients, {number(middles[before])} to {number(middles[after])} texts/s"
        for before, after in pairwise(middles)
        if middles[after] < middles[before] * (1 - CLIFF)
    ]


def run(report: Report) -> None:
    """Measure, and fill the report."""
    seconds = 1.0 if report.size(1, 0) else 0.5
    single = sentences(sts())
    each = {length: max(LEAST_TEXTS, REQUEST_TOKENS // length) for length in LENGTHS}
    texts = {length: texts_of(length, 8 * each[length]) for length in LENGTHS}
    with field_of([*millponds({"max_tokens": max(LENGTHS)}), *infinities(INT8)]) as field, Client() as client:

        def by_length(server: Target, length: int) -> float:
            return client.run(server.load(texts[length], clients=4, each=each[length], seconds=seconds)).rate

        def by_clients(server: Target, clients: int) -> float:
            return client.run(server.load(single, clients=clients, each=1, seconds=seconds)).rate

        for server in field.servers:
            server.warm_up(client, single[:128])
        ours = millponds_in(field)
        lengths = {(one.name, length): partial(by_length, one, length) for length in LENGTHS for one in ours}
        clients = {(one.name, count): partial(by_clients, one, count) for count in CLIENTS for one in field.servers}
        lengths_found, clients_found = nested(report.interleave(lengths)), nested(report.interleave(clients))
        report.say(
            f"By the length of the texts, all of one length, `max_tokens: {max(LENGTHS)}`; 4 clients, about "
            f"{REQUEST_TOKENS} tokens a request and at least {LEAST_TEXTS} texts; texts/s, and in brackets tokens/s; "
            f"median of {report.rounds}. {INT8} cuts texts at 256 tokens, so it is measured by clients alone:"
        )
        table = {
            one: {str(length): f"{number(rate)} ({rate * length:.0f})" for length, rate in medians(curve).items()}
            for one, curve in lengths_found.items()
        }
        report.table("tokens a text", table)
        _plot(report, lengths_found, "tokens a text", "scaling-length", "By the length of the texts", log=True)
        report.say(f"By clients, each sending one STS-B sentence a request; texts/s, median of {report.rounds}:")
        middles = {
            one: {str(count): number(rate) for count, rate in medians(curve).items()}
            for one, curve in clients_found.items()
        }
        report.table("clients", middles)
        falls = {one: cliffs(curve) for one, curve in clients_found.items()}
        no_cliff = f"no cliff: no step loses more than {CLIFF:.0%}"
        report.note(f"{one}: {'a cliff ' + '; '.join(of) if of else no_cliff}." for one, of in falls.items())
        _plot(report, clients_found, "clients, one text a request", "scaling-clients", "By the number of clients")
        report.say(f"Each step is {seconds} s and what was under way then. {HOW}")
        report.servers(field)
    report.keep(by_length=lengths_found, by_clients=clients_found, cliffs=falls)


def _plot(report: Report, found: Mapping[str, Curve], x: str, name: str, title: str, *, log: bool = False) -> None:
    series = {one: list(medians(curve).values()) for one, curve in found.items()}
    panel = Panel("", x, "texts/s", list(next(iter(found.values()))), series, (None if log else 0, None), log)
    report.plot(curves([panel], title), name, title)
