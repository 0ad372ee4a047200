"""What passes take in memory, and who waits for it."""

from __future__ import annotations

import asyncio

import pytest

from service.deadline import answered_within
from service.encoder.memory import Footprint, StateBudget
from service.errors import DeadlineExceeded

BERT = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12}


def test_worked_footprints():
    fused, eager = Footprint.of(BERT, fused_attention=True), Footprint.of(BERT, fused_attention=False)
    assert fused.token == eager.token == 4 * (10 * 384 + 2 * 1536)
    assert (fused.pair, eager.pair) == (4, 4 + 4 * 2 * 12)
    assert fused.of_pass(2, 100) == 2 * 100 * (fused.token + 100 * 4)


def test_other_names_for_the_sizes():
    distilbert = {"dim": 384, "hidden_dim": 1536, "n_heads": 12}
    assert Footprint.of(distilbert, fused_attention=False) == Footprint.of(BERT, fused_attention=False)
    assert Footprint.of({}, fused_attention=True).token == 4 * (10 * 768 + 2 * 4 * 768)


def test_logits_count_and_make_passes_smaller():
    states, logits = (Footprint.of(BERT, fused_attention=True, numbers=numbers) for numbers in (0, 2 * 30_522))
    assert logits.of_pass(3, 7) == states.of_pass(3, 7) + 3 * 7 * 4 * 2 * 30_522
    assert states.most_tokens(8192) == 8192
    assert logits.most_tokens(8192) == 2**27 // (4 * 2 * 30_522)
    assert logits.most_tokens(100) == 100
    huge = Footprint.of(BERT, fused_attention=True, numbers=2 * 250_000)
    assert huge.most_tokens(8192) == 128


def test_who_does_not_fit_waits_for_those_before():
    async def run():
        budget, events = StateBudget(100), []

        async def hold(name, size, until):
            async with budget.hold(size):
                events.append(name)
                assert budget.held <= 100
                await until.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        rest.set()
        tasks = [
            asyncio.ensure_future(hold(*one))
            for one in (("a", 60, first), ("b", 30, first), ("c", 50, rest), ("d", 5, rest))
        ]
        while len(events) < 2:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert events == ["a", "b"]  # d would fit, but c was before it
        first.set()
        await asyncio.gather(*tasks)
        assert events == ["a", "b", "c", "d"]
        assert budget.held == 0

    asyncio.run(run())


def test_who_has_no_more_time_stops_to_wait():
    async def run():
        budget = StateBudget(100)
        async with budget.hold(60):
            with answered_within(0.01), pytest.raises(DeadlineExceeded):
                async with budget.hold(50):
                    raise AssertionError
            async with budget.hold(40):  # behind the one that has left
                assert budget.held == 100
        assert budget.held == 0

    asyncio.run(run())


def test_more_than_all_is_held_alone():
    async def run():
        budget, order = StateBudget(10), []

        async def hold(size):
            async with budget.hold(size):
                order.append((size, budget.held))
                await asyncio.sleep(0)

        await asyncio.gather(hold(5), hold(50), hold(5))
        assert order == [(5, 5), (50, 50), (5, 5)]

    asyncio.run(run())


def test_who_leaves_lets_those_behind_in():
    async def run():
        budget = StateBudget(100)
        async with budget.hold(90):
            first, small = asyncio.ensure_future(budget.hold(50).__aenter__()), budget.hold(5)
            second = asyncio.ensure_future(small.__aenter__())
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.wait_for(second, 20)
            assert budget.held == 95

    asyncio.run(run())


def test_who_leaves_just_after_being_let_in_gives_it_back():
    async def run():
        budget = StateBudget(10)
        async with budget.hold(10):
            waiting = asyncio.ensure_future(budget.hold(5).__aenter__())
            await asyncio.sleep(0)
        assert budget.held == 5  # let in, though it has not run since
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.held == 0

    asyncio.run(run())


def test_who_leaves_while_waiting_holds_nothing():
    async def run():
        budget = StateBudget(10)
        async with budget.hold(10):
            waiting = asyncio.ensure_future(budget.hold(5).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert budget.held == 0
        async with budget.hold(10):
            assert budget.held == 10

    asyncio.run(run())
