"""Requests through real passes of a tiny encoder, from many threads."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import torch

from service.checkpoint import read_checkpoint
from service.deadline import answered_within
from service.encoder.batcher import Batcher, RowFailed
from service.encoder.loading import load_module
from service.encoder.runtimes.torch import TorchRuntime
from service.encoder.shapes import AnyShape, ShapeBuckets
from service.errors import CheckpointError, DeadlineExceeded, Unavailable
from tests.support.checkpoints import DIM, plain_bert


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # or this thread's own passes and the streams' wait for each other's cores
    checkpoint = read_checkpoint(str(plain_bert(tmp_path_factory.mktemp("bert"))))
    yield TorchRuntime(load_module(checkpoint, torch.float32), "fp32", threads=2)
    torch.set_num_threads(threads)


LIMITS = {
    "pad_id": 0,
    "max_batch_tokens": 256,
    "max_queued_tokens": 10_000,
    "max_queued_seconds": 3600.0,
    "max_state_bytes": 1 << 30,
}


class Gate:
    """Post-processing that holds its stream until the test lets it go: what arrives meanwhile must wait."""

    def __init__(self):
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, states, mask, ids):
        self.entered.set()
        assert self.open.wait(20)
        return mean(states, mask, ids)


def mean(states, mask, ids):
    kept = states * mask.unsqueeze(2)
    return list((kept.sum(1) / mask.sum(1, keepdim=True)).numpy())


def first(states, mask, ids):
    return list(states[:, 0].numpy())


def broken(states, mask, ids):
    raise ValueError("this post-processing is broken")


def ids(*lengths: int, start: int = 5) -> list[np.ndarray]:
    return [(np.arange(length) * 7 + start + number) % 300 + 5 for number, length in enumerate(lengths)]


@contextmanager
def batcher(runtime, streams=1, longest=512, **limits):
    runtime.streams = streams
    limits = LIMITS | limits
    one = Batcher(runtime, shapes=runtime.shapes(limits["max_batch_tokens"], longest), **limits)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def held(one: Batcher):
    """The only stream of a batcher, kept busy."""
    gate = Gate()
    future = one.submit(ids(3), gate)
    assert gate.entered.wait(20)
    try:
        yield future
    finally:
        gate.open.set()
        future.result(20)


def expected(runtime, rows, post_process) -> list[np.ndarray]:
    """Each row in a pass of its own, straight through the runtime."""
    return [
        post_process(
            runtime.states(row[None], np.ones((1, len(row)), bool)),
            torch.ones(1, len(row), dtype=torch.bool),
            torch.from_numpy(row[None]),
        )[0]
        for row in rows
    ]


def assert_close(found, wanted):
    assert len(found) == len(wanted)
    for left, right in zip(found, wanted, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


@pytest.mark.parametrize("streams", [1, 2])
def test_results_keep_their_order(runtime, streams):
    requests = [ids(*(1 + (7 * i + 3 * j) % 40 for j in range(1 + i % 9)), start=i) for i in range(40)]
    post_processes = [mean if i % 3 else first for i in range(40)]
    wanted = [
        expected(runtime, rows, post_process) for rows, post_process in zip(requests, post_processes, strict=True)
    ]
    with batcher(runtime, streams) as one, ThreadPoolExecutor(12) as clients:
        for _ in range(2):
            futures = list(clients.map(one.submit, requests, post_processes))
            for future, want in zip(futures, wanted, strict=True):
                assert_close(future.result(30), want)


def test_requests_with_different_post_processing_share_a_pass(runtime):
    with batcher(runtime) as one:
        with held(one):
            before = one.passes
            futures = [one.submit(ids(9, 9, start=i), mean if i % 2 else first) for i in range(6)]
        for i, future in enumerate(futures):
            assert_close(future.result(20), expected(runtime, ids(9, 9, start=i), mean if i % 2 else first))
        assert one.passes - before == 2  # the one held, and one for all


def test_equal_post_processing_shares_a_call(runtime):
    calls = []

    def counting(states, mask, ids):
        calls.append(len(states))
        return first(states, mask, ids)

    with batcher(runtime) as one:
        with held(one):
            futures = [one.submit(ids(9), counting) for _ in range(5)]
        wait(futures, 20)
    assert calls == [5]


def test_nothing_is_done_for_nothing(runtime):
    with batcher(runtime) as one:
        assert one.submit([], broken).result(5) == []
        assert one.passes == 0


def test_failing_post_processing_fails_only_its_requests(runtime):
    with batcher(runtime) as one:
        with held(one):
            bad, good = one.submit(ids(9, 9), broken), one.submit(ids(9, 9), mean)
        assert_close(good.result(20), expected(runtime, ids(9, 9), mean))
        with pytest.raises(ValueError, match="this post-processing is broken"):
            bad.result(20)
        assert one.alive
        assert_close(one.submit(ids(4), mean).result(20), expected(runtime, ids(4), mean))


def test_post_processing_that_loses_a_row_is_an_error(runtime):
    with batcher(runtime) as one, pytest.raises(ValueError, match="zip"):
        one.submit(ids(4, 4), lambda states, mask, ids: first(states, mask, ids)[:-1]).result(20)


def test_a_failing_pass_fails_its_requests_and_the_stream_goes_on(runtime):
    with batcher(runtime) as one:
        outside = one.submit([np.array([5, 10_000])], mean)  # no such token: the embedding table ends before it
        with pytest.raises(IndexError):
            outside.result(20)
        assert one.alive
        assert_close(one.submit(ids(4), mean).result(20), expected(runtime, ids(4), mean))


def bad_row(states, mask, ids):
    """Fail beside or on a text of 13 tokens."""
    if 13 in mask.sum(1):
        raise ValueError("a text of 13 tokens")
    return mean(states, mask, ids)


def test_neighbours_of_a_failing_row_are_served(runtime):
    with batcher(runtime) as one:
        with held(one):
            clean = [one.submit(ids(12, 11, start=i), bad_row) for i in range(5)]
            poisoned = one.submit(ids(12, 13, 11), bad_row)
        for i, future in enumerate(clean):
            assert_close(future.result(20), expected(runtime, ids(12, 11, start=i), mean))
        with pytest.raises(ValueError, match="a text of 13 tokens"):
            poisoned.result(20)


def test_neighbours_are_run_again_by_request(runtime):
    """After a pass over seven rows, one a request and not one a row; then the row at fault, and what is left."""
    with batcher(runtime) as one:
        calls = []

        def counted(states, mask, ids):
            calls.append(len(states))
            return bad_row(states, mask, ids)

        with held(one):
            poisoned = one.submit(ids(13, 12), counted)
            clean = [one.submit(ids(12, 12, start=i), counted) for i in range(3)]
        wait([*clean, poisoned], 20)
        assert calls[0] == 7
        assert len(calls) <= 1 + 4 + 1 + 1


def test_neighbours_of_a_failing_pass_are_served(runtime):
    outside = np.array([5, 10_000, 7])  # no such token: the embedding table ends before it
    with batcher(runtime) as one:
        with held(one):
            clean = [one.submit(ids(3, 3, start=i), mean) for i in range(5)]
            poisoned = one.submit([*ids(3), outside], mean)
        for i, future in enumerate(clean):
            assert_close(future.result(20), expected(runtime, ids(3, 3, start=i), mean))
        with pytest.raises(IndexError):
            poisoned.result(20)


def test_a_coroutine_learns_which_row_failed(runtime):
    async def run():
        clean, poisoned = await asyncio.gather(
            one.run(ids(9, 9), bad_row), one.run(ids(9, 9, 13, 9), bad_row), return_exceptions=True
        )
        assert_close(clean, expected(runtime, ids(9, 9), mean))
        assert isinstance(poisoned, RowFailed)
        assert poisoned.index == 2
        assert isinstance(poisoned.reason, ValueError)

    with batcher(runtime) as one:
        asyncio.run(run())


def test_a_failure_that_does_not_come_back_fails_nobody(runtime):
    failures = iter([True])

    def once(states, mask, ids):
        if next(failures, False):
            raise ValueError("only this time")
        return mean(states, mask, ids)

    with batcher(runtime) as one:
        assert_close(one.submit(ids(9, 8), once).result(20), expected(runtime, ids(9, 8), mean))


def test_passes_wait_for_memory_and_quick_ones_overtake(runtime):
    """With room for one long pass at a time, the second stream waits, though it is free."""
    gates = [Gate(), Gate()]
    room = runtime.footprint.of_pass(2, 60)
    with batcher(runtime, 2, max_state_bytes=room) as one:
        futures = [one.submit(ids(60, 59, 58), gate) for gate in gates]
        assert gates[0].entered.wait(20)
        assert_close(one.submit(ids(6), mean).result(20), expected(runtime, ids(6), mean))
        assert not gates[1].entered.is_set()
        gates[0].open.set()
        assert gates[1].entered.wait(20)
        gates[1].open.set()
        wait(futures, 20)


class Asked:
    """A footprint that tells when a stream asks for room for a row."""

    def __init__(self, footprint):
        self.of = footprint
        self.event = threading.Event()

    def of_pass(self, rows, width):
        if width > 50:
            self.event.set()
        return self.of.of_pass(rows, width)


def test_who_waits_for_memory_goes_on_after_an_express_pass(runtime, monkeypatch):
    """The express lane's pass is the last to end, and wakes a stream that found no room."""
    gates = [Gate(), Gate()]
    asked = Asked(runtime.footprint)
    monkeypatch.setattr(runtime, "footprint", asked)
    with batcher(runtime, 2, max_state_bytes=runtime.footprint.of_pass(1, 60)) as one:
        long = one.submit(ids(60, 59, 58, 57), gates[0])
        assert gates[0].entered.wait(20)
        quick = one.submit(ids(6), gates[1])
        assert gates[1].entered.wait(20)
        asked.event.clear()
        gates[0].open.set()
        assert asked.event.wait(20)  # its stream finds no room for the next row
        gates[1].open.set()
        assert len(quick.result(20)) == 1
        assert len(long.result(20)) == 4


def test_a_pass_beyond_the_memory_runs_alone(runtime):
    with batcher(runtime, 2, max_state_bytes=1) as one:
        futures = [one.submit(ids(60, 50, 40, start=i), mean) for i in range(4)]
        for i, future in enumerate(futures):
            assert_close(future.result(20), expected(runtime, ids(60, 50, 40, start=i), mean))


class Compiling(TorchRuntime):
    """Asks for shapes from a set."""

    def __init__(self, module):
        super().__init__(module, "fp32", threads=1)

    def shapes(self, max_batch_tokens, longest):
        return ShapeBuckets(max_batch_tokens, longest)


def test_passes_have_shapes_of_the_set(tmp_path):
    noting = Compiling(load_module(read_checkpoint(str(plain_bert(tmp_path))), torch.float32))
    requests = [ids(*(1 + (5 * i + 3 * j) % 60 for j in range(1 + i % 7)), start=i) for i in range(30)]
    with batcher(noting, 1, longest=64) as one:
        futures = [one.submit(rows, mean) for rows in requests]
        for rows, future in zip(requests, futures, strict=True):
            assert_close(future.result(30), expected(noting, rows, mean))
        known = {(*shape, wide) for shape in one.shapes for wide in (False, True)}
        assert one.compiled <= known
        assert len(one.compiled) <= one.most_compiled


def test_what_runs_again_after_a_failure_has_shapes_of_the_set(tmp_path):
    """Requests of 5 and 7 rows are run again in passes of 4, 6 and 1."""
    noting = Compiling(load_module(read_checkpoint(str(plain_bert(tmp_path))), torch.float32))
    with batcher(noting, 1, longest=64) as one:
        with held(one):
            poisoned = one.submit(ids(13), bad_row)
            requests = [ids(*[12] * rows, start=rows) for rows in (5, 7)]
            clean = [one.submit(rows, bad_row) for rows in requests]
        for rows, future in zip(requests, clean, strict=True):
            assert_close(future.result(20), expected(noting, rows, mean))
        with pytest.raises(ValueError, match="a text of 13 tokens"):
            poisoned.result(20)
        assert {(rows, width) for rows, width, _ in one.compiled} <= set(one.shapes)


@pytest.mark.parametrize("length", [5, 9, 21])
def test_passes_on_all_cores_have_shapes_that_are_counted(tmp_path, length):
    noting = Compiling(load_module(read_checkpoint(str(plain_bert(tmp_path))), torch.float32))
    rows = ids(*[length] * (128 // length))
    with batcher(noting, 1, longest=64) as one:
        assert_close(one.submit(rows, mean).result(20), expected(noting, rows, mean))
        assert all(rows * width <= 128 for rows, width, wide in one.compiled if wide)


def test_common_shapes_are_run_before_anybody_asks(tmp_path):
    noting = Compiling(load_module(read_checkpoint(str(plain_bert(tmp_path))), torch.float32))
    with batcher(noting, 1, longest=64) as one:
        common = {(rows, width) for rows, width in one.shapes if width <= 32}
        wanted = {(*shape, False) for shape in common if math.prod(shape) <= 256}
        wanted |= {(*shape, True) for shape in common if math.prod(shape) <= 128}
        deadline = time.monotonic() + 60
        while one.compiled < wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        assert one.compiled == wanted
        assert one.passes == 0
        assert_close(one.submit(ids(20), mean).result(20), expected(noting, ids(20), mean))


def test_a_request_that_failed_costs_no_further_pass(runtime):
    with batcher(runtime, max_batch_tokens=64) as one:
        future = one.submit(ids(*[30] * 50), broken)
        with pytest.raises(ValueError, match="broken"):
            future.result(20)
        one.submit(ids(3), mean).result(20)
        assert one.passes <= 4


def test_cancelled_before_it_ran_costs_no_pass(runtime):
    with batcher(runtime) as one:
        with held(one):
            before = one.passes
            futures = [one.submit(ids(*[20] * 30), mean) for _ in range(5)]
            assert all(future.cancel() for future in futures)
        one.submit(ids(3), mean).result(20)
        assert one.passes - before == 2  # the one held, and the last request
        with pytest.raises(CancelledError):
            futures[0].result(5)


def test_a_full_queue_refuses_and_then_takes_again(runtime):
    with batcher(runtime, max_queued_tokens=100) as one:
        with held(one):
            waiting = [one.submit(ids(20), mean) for _ in range(4)]
            with pytest.raises(Unavailable, match=r"batching\.max_queued_tokens is 100") as caught:
                one.submit(ids(20), mean)
            assert caught.value.retry_after >= 1
            assert waiting[0].cancel()
            waiting.append(one.submit(ids(20), mean))
        for future in waiting[1:]:
            future.result(20)
        one.submit(ids(20), mean).result(20)


def test_a_room_is_there_before_the_tokens_are_known(runtime):
    async def run():
        with (
            batcher(runtime, max_queued_tokens=100) as one,
            one.room(70) as room,
            one.room(25),
            one.room(25),
        ):  # a quarter of the queue each
            with one.room(25), pytest.raises(Unavailable, match="queue is full: 100 tokens"), one.room(1):
                raise AssertionError
            assert len(await one.run(ids(7, 8), mean, room)) == 2
            assert room.cost == 15
            with one.room(35):
                pass

    asyncio.run(run())


@pytest.mark.parametrize("roomy", [False, True])
def test_a_request_that_is_too_late_is_not_computed(runtime, roomy):
    async def run():
        with batcher(runtime) as one:
            with held(one):
                before = one.passes
                with answered_within(0.05), one.room(40) if roomy else nullcontext() as room:
                    with pytest.raises(DeadlineExceeded, match=r"within its 0\.05 s"):
                        await one.run(ids(20, 20), mean, room)
                    with pytest.raises(DeadlineExceeded):
                        await one.run(ids(20), mean, room)
                with answered_within(1e-9), pytest.raises(DeadlineExceeded), one.room(20):
                    raise AssertionError
            with answered_within(60):
                await one.run(ids(3), mean)
            assert one.passes - before == 2  # the one held, and the last request

    asyncio.run(run())


def test_the_rate_is_measured_while_all_streams_are_busy(runtime):
    with batcher(runtime) as one:
        one.submit(ids(20), mean).result(20)
        assert one.tokens_per_second is None  # alone on all cores
        one.submit(ids(*[40] * 20), mean).result(20)
        assert one.tokens_per_second > 0


def test_limits_change_meanwhile(runtime):
    with batcher(runtime, max_queued_tokens=100) as one:
        with held(one):
            waiting = [one.submit(ids(20), mean) for _ in range(4)]
            one.limit(50, 60.0)
            with pytest.raises(Unavailable, match=r"batching\.max_queued_tokens is 50"):
                one.submit(ids(20), mean)
            one.limit(200, 60.0)
            waiting.append(one.submit(ids(20), mean))
        wait(waiting, 20)


def test_room_is_given_back_however_a_request_ends(runtime):
    with batcher(runtime, max_queued_tokens=100) as one:
        for _ in range(20):
            one.submit(ids(20), mean).result(20)
            with pytest.raises(ValueError, match="broken"):
                one.submit(ids(20), broken).result(20)
            with held(one):
                assert one.submit(ids(20), mean).cancel()
        with held(one):
            futures = [one.submit(ids(20), mean) for _ in range(4)]
        wait(futures, 20)


def test_small_requests_get_in_beside_a_huge_one(runtime):
    with batcher(runtime, max_queued_tokens=400) as one:
        with held(one):
            huge = one.submit(ids(*[40] * 200), mean)
            small = one.submit(ids(6), mean)
            ended = []
            huge.add_done_callback(lambda _: ended.append("huge"))
            small.add_done_callback(lambda _: ended.append("small"))
        assert_close(small.result(20), expected(runtime, ids(6), mean))
        assert len(huge.result(60)) == 200
        assert ended == ["small", "huge"]


def test_a_quick_request_does_not_wait_for_a_pass_of_a_large_one(runtime):
    gate = Gate()
    with batcher(runtime) as one:
        large = one.submit(ids(*[40] * 5), gate)
        try:
            assert gate.entered.wait(20)
            assert_close(one.submit(ids(6, 9), mean).result(20), expected(runtime, ids(6, 9), mean))
            assert_close(one.submit(ids(12), mean).result(20), expected(runtime, ids(12), mean))
            waiting = one.submit(ids(*[40] * 4), mean)
            assert not large.done() and not waiting.done()
        finally:
            gate.open.set()
        assert len(large.result(20)) == 5
        assert_close(waiting.result(20), expected(runtime, ids(*[40] * 4), mean))


def test_a_quick_request_waits_for_another_to_share_the_next_pass(runtime):
    with batcher(runtime) as one:
        with held(one):
            futures = [one.submit(ids(20, start=i), mean) for i in range(5)]
            assert one.passes == 0
        wait(futures, 20)
        assert one.passes == 2


class Widths(TorchRuntime):
    """Notes which passes were given all cores."""

    def __init__(self, module):
        super().__init__(module, "fp32", threads=2)
        self.wide = []

    def states(self, ids, mask, *, wide=False):
        self.wide.append(wide)
        return super().states(ids, mask, wide=wide)


def test_a_small_batch_that_is_alone_gets_all_cores(tmp_path):
    noting = Widths(load_module(read_checkpoint(str(plain_bert(tmp_path))), torch.float32))
    with batcher(noting) as one:
        one.submit(ids(20), mean).result(20)
        one.submit(ids(*[40] * 5), mean).result(20)
    assert noting.wide == [True, False]


def test_a_request_larger_than_the_queue_is_taken_when_it_is_alone(runtime):
    with batcher(runtime, max_queued_tokens=10) as one:
        assert len(one.submit(ids(30, 30), mean).result(20)) == 2


def test_close_finishes_what_runs_and_fails_what_waits(runtime):
    runtime.streams = 1
    others = set(threading.enumerate())
    one = Batcher(runtime, shapes=AnyShape(), **LIMITS)
    streams = set(threading.enumerate()) - others
    gate = Gate()
    running = one.submit(ids(3), gate)
    assert gate.entered.wait(20)
    waiting = [one.submit(ids(5), mean) for _ in range(3)]
    closing = threading.Thread(target=one.close)
    closing.start()
    for future in waiting:
        with pytest.raises(Unavailable, match="stopping"):
            future.result(20)
    assert not one.alive
    with pytest.raises(Unavailable, match="stopping"):
        one.submit(ids(5), mean)
    gate.open.set()
    closing.join(20)
    assert_close(running.result(20), expected(runtime, ids(3), mean))
    assert not closing.is_alive()
    assert len(streams) == 2 and not any(thread.is_alive() for thread in streams)
    one.close()


def test_two_streams_work_at_once(runtime):
    gates = [Gate(), Gate()]
    with batcher(runtime, 2) as one:
        futures = [one.submit(ids(60), gate) for gate in gates]
        try:
            assert all(gate.entered.wait(20) for gate in gates)
        finally:
            for gate in gates:
                gate.open.set()
        wait(futures, 20)


def test_a_stream_without_work_waits_until_it_is_woken(runtime, monkeypatch):
    """It does not poll, so an idle batcher uses no processor time."""
    others = set(threading.enumerate())
    waits, waiting, wait = [], threading.Event(), threading.Condition.wait

    def noted(condition, timeout=None):
        if threading.current_thread() not in others:
            waits.append(timeout)
            waiting.set()
        return wait(condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait", noted)
    with batcher(runtime, 2) as one:
        one.submit(ids(3), mean).result(20)
        assert waiting.wait(20)
    assert set(waits) == {None}


def test_runtime_shapes(runtime):
    rows = ids(5, 2)
    table, mask = np.zeros((2, 5), np.int64), np.zeros((2, 5), bool)
    for place, row in enumerate(rows):
        table[place, : len(row)], mask[place, : len(row)] = row, True
    states = runtime.states(table, mask)
    assert states.shape == (2, 5, DIM)
    assert states.dtype == torch.float32
    assert_close([states[1, 0].numpy()], expected(runtime, rows[1:], first))


def test_runtime_of_a_folder_without_usable_weights(tmp_path):
    folder = plain_bert(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"\0" * 200)
    with pytest.raises(CheckpointError, match="its weights cannot be loaded"):
        load_module(read_checkpoint(str(folder)), torch.float32)
