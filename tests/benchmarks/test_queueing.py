"""Replicas in simulated time: what they cost, refuse and lose, and what is told of them."""

from __future__ import annotations

import math
from functools import partial

import pytest

from benchmarks.fleet import Autoscaler, Fleet, closed_loop
from benchmarks.simulation import Costs, Events, Limits, Request
from benchmarks.traffic import BULK, WINDOW, Phase, arrivals, recovery, summary

COSTS = Costs(cores=2, tokens_per_second=1000.0, pass_seconds=0.01, request_seconds=0.002, text_seconds=0.001)
LENGTHS = [12] * 50


def fleet_of(replicas: int, costs: Costs = COSTS, patience: float = 30.0) -> Fleet:
    fleet = Fleet(Events(), costs, Limits(), patience)
    fleet.add(replicas)
    return fleet


def sent(fleet: Fleet, requests: list[Request], until: float = 1000.0) -> list[Request]:
    fleet.plan(requests)
    fleet.events.run(until)
    return requests


def test_events_happen_in_order() -> None:
    events, seen = Events(), []
    for seconds, name in ((2.0, "b"), (1.0, "a"), (2.0, "c"), (9.0, "never")):
        events.after(seconds, partial(seen.append, name))
    events.run(5.0)
    assert (seen, events.now) == (["a", "b", "c"], 5.0)


def test_a_lone_text_has_all_cores() -> None:
    (one,) = sent(fleet_of(1), [Request(1.0, [12])])
    assert one.done == pytest.approx(1.0 + 0.002 + 0.001 + 0.01 + 12 / 1000)


def test_texts_share_a_pass_and_padding_costs_as_much_as_text() -> None:
    costs = Costs(cores=1, tokens_per_second=1000.0, pass_seconds=0.01, request_seconds=0.0, text_seconds=0.0)
    (one,) = sent(fleet_of(1, costs), [Request(1.0, [40, 80, 76])])
    assert one.done == pytest.approx(1.0 + (0.01 + 2 * 80 / 1000) + (0.01 + 40 / 1000))


def test_two_passes_share_the_cores_between_them() -> None:
    costs = Costs(tokens_per_second=1000.0, pass_seconds=0.0, request_seconds=0.0, text_seconds=0.0)
    first, second = sent(fleet_of(1, costs), [Request(1.0, [256]), Request(1.0, [256])])
    assert first.done == pytest.approx(1.0 + 2 * 0.256)
    assert second.done == pytest.approx(first.done)


def test_a_quick_request_overtakes_a_large_one() -> None:
    large, quick = sent(fleet_of(1), [Request(1.0, [256] * 100), Request(1.5, [12])])
    assert large.done > 1.0 + 25.6
    assert quick.done < 1.5 + 0.2


def test_a_closed_loop_has_no_more_than_the_cores_give() -> None:
    by_text = 0.001 + 0.002 / 32 + 2 * 12 / 1000  # core-seconds
    rate = closed_loop(COSTS, LENGTHS, clients=8, texts=32, seconds=60)
    assert 0.9 * 2 / by_text < rate < 2 / by_text
    twice = Costs(**{**vars(COSTS), "speed": 2.0})
    assert closed_loop(twice, LENGTHS, clients=8, texts=32, seconds=30) == pytest.approx(2 * rate, rel=1e-6)


def test_arrivals_are_those_of_their_seed_and_of_their_phases() -> None:
    phases = [Phase(100, 50.0), Phase(100, 500.0)]
    found = [planned.request for planned in arrivals(1, LENGTHS, phases)]
    assert [one.at for one in found] == [planned.request.at for planned in arrivals(1, LENGTHS, phases)]
    assert [one.at for one in found] != [planned.request.at for planned in arrivals(2, LENGTHS, phases)]
    assert {one.texts for one in found} == {1, BULK}
    slow, fast = (sum(one.texts for one in found if low <= one.at < low + 100) for low in (0, 100))
    assert slow == pytest.approx(5000, rel=0.3)
    assert fast == pytest.approx(50_000, rel=0.15)


def test_overload_is_refused_and_its_clients_come_back_until_they_give_up() -> None:
    rate = closed_loop(COSTS, LENGTHS, clients=8, texts=BULK, seconds=60)
    fleet = fleet_of(1)
    requests = sent(fleet, [one.request for one in arrivals(0, LENGTHS, [Phase(120, 2 * rate)])])
    assert all(one.gone != (one.done is not None) for one in requests)
    assert any(one.refused and one.done for one in requests)
    found = summary(requests, fleet.refusals, 30, 120)
    assert 0.2 < found.gone < 0.6
    assert 0.8 * rate < found.answered < 1.05 * rate
    assert found.whole > 10_000 > found.bulk[1]  # who is taken waits for seconds, who comes back for many
    waited = max(one.sent - one.at for one in requests)
    assert 20 < waited <= 30 + 1e-9


def test_what_one_replica_refuses_another_is_asked() -> None:
    fleet = fleet_of(2)
    full, free = fleet.replicas
    large = [256] * 100
    assert [full.offer(Request(0.0, large)) for _ in range(4)] == [None] * 4
    assert full.offer(Request(0.0, large)) is not None
    assert [free.offer(Request(0.0, [130])) for _ in range(5)] == [None] * 5
    fleet.first(Request(0.0, large))  # the full one has the fewest under way
    assert (len(full.under_way), len(free.under_way), fleet.refusals) == (4, 6, [])
    assert [free.offer(Request(0.0, large)) for _ in range(2)] == [None] * 2
    fleet.first(again := Request(0.0, large))
    assert (len(fleet.refusals), again.refused, again.gone) == (1, 1, False)


@pytest.mark.parametrize("noticed", [0.0, 10.0])
def test_what_a_lost_replica_had_is_answered_by_others(noticed: float) -> None:
    fleet = fleet_of(3)
    fleet.events.after(30.0, partial(fleet.lose, noticed, 20.0))
    rate = closed_loop(COSTS, LENGTHS, clients=8, texts=BULK, seconds=60)
    requests = sent(fleet, [one.request for one in arrivals(0, LENGTHS, [Phase(90, 0.5 * 3 * rate)])])
    assert all(one.done for one in requests)
    assert [size for _, size in fleet.sizes] == [3, 2, 3]
    assert fleet.sizes[-1][0] == 30 + noticed + 20
    hung = [one for one in requests if one.sent < 30 + noticed and one.done - one.sent > noticed]
    assert bool(noticed) == any(one.done - one.sent > 8 for one in hung)


@pytest.mark.slow
def test_replicas_are_added_where_work_waits() -> None:
    rate = closed_loop(COSTS, LENGTHS, clients=8, texts=BULK, seconds=60)
    fleet = fleet_of(2)
    Autoscaler(fleet, most=5, start=40.0, target=500.0)
    phases = [Phase(60, 0.5 * 2 * rate), Phase(300, 2 * 2 * rate)]
    requests = sent(fleet, [one.request for one in arrivals(0, LENGTHS, phases)], until=360)
    (_, first), (when, grown), *_ = fleet.sizes
    assert (first, grown > 2, fleet.sizes[-1][1]) == (2, True, 5)
    assert 60 + 40 <= when <= 60 + 40 + 30
    before = summary(requests, fleet.refusals, 10, 60)
    assert recovery(requests, fleet.refusals, 60, 100, before.whole) is None
    assert recovery(requests, fleet.refusals, 60, 360, before.whole) is not None
    assert fleet_of(2).sizes == [(0.0, 2)]


def test_a_summary_counts_what_happened_in_its_time() -> None:
    requests = [
        Request(0.0, [5], sent=0.0, done=1.0),  # before
        Request(10.0, [5], sent=12.0, refused=2, done=12.5),
        Request(11.0, [5] * 3, sent=11.0, done=13.0),
        Request(12.0, [5], sent=18.0, refused=3, gone=True),
        Request(19.0, [5], sent=19.0, done=25.0),  # answered later
    ]
    found = summary(requests, [10.0, 11.0, 12.0, 15.0, 18.0, 30.0], 10, 20)
    assert (found.offered, found.answered) == (0.6, 0.4)
    assert found.one == (500, 500)
    assert found.bulk == (2000, 2000)
    assert found.whole == pytest.approx(2500 - 5)
    assert (found.refused, found.gone) == (5 / 8, 1 / 4)
    assert math.isnan(summary([], [], 0, 1).whole)


def test_all_is_as_before_where_nothing_is_refused_and_nothing_slow() -> None:
    requests = [Request(at, [5], sent=at, done=at + (2.0 if at < 20 else 0.1)) for at in map(float, range(60))]
    assert recovery(requests, [8.0], 10, 60, 100.0) == 12  # 19 is answered at 21
    assert recovery(requests, [8.0, 30.5], 10, 60, 100.0) == 12
    assert recovery(requests, [8.0, 24.5], 10, 60, 100.0) == 15
    assert recovery(requests, [8.0], 10, 12 + WINDOW, 100.0) is None
