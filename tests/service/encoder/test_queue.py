"""The queue as a data structure: every row once, budgets kept, nobody starved, nothing kept."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.encoder.queue import QUICK, Job, TokenQueue
from service.encoder.shapes import AnyShape, EqualLengths, ShapeBuckets

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
BUDGETS = st.sampled_from([1, 16, 64, 200, 1024])
STREAMS = st.integers(1, 4)


def post_process(states, mask, ids):
    raise AssertionError("the queue runs nothing")


def job(*lengths: int) -> Job:
    return Job([np.zeros(length, dtype=np.int64) for length in lengths], post_process)


def drain(queue: TokenQueue) -> list[list]:
    batches = []
    while batch := queue.take():
        batches.append(batch)
    return batches


class QueueMachine(RuleBasedStateMachine):
    """Puts, takes and cancellations in any order."""

    @initialize(budget=BUDGETS, streams=STREAMS, shapes=st.sampled_from(["any", "buckets", "equal"]))
    def start(self, budget, streams, shapes):
        self.budget, self.streams = budget, streams
        self.shapes = {"any": AnyShape(), "buckets": ShapeBuckets(budget, 40), "equal": EqualLengths()}[shapes]
        self.queue = TokenQueue(budget, streams, self.shapes)
        self.rows = {}  # job -> its rows; the job itself gives up those that lead
        self.handed_out = Counter()
        self.since_put = {}  # job without a lead so far -> (takes since, takes within which it must lead)

    @rule(lengths=LENGTHS)
    def put(self, lengths):
        new = job(*lengths)
        self.rows[new] = list(new.rows)
        self.queue.put(new)
        live = sum(any(not row.taken for row in rows) for rows in self.rows.values())
        self.since_put[new] = [0, live]

    @rule(data=st.data())
    @precondition(lambda self: any(not one.over for one in self.rows))
    def cancel(self, data):
        live = [one for one in self.rows if not one.over]
        live[data.draw(st.integers(0, len(live) - 1))].future.cancel()

    @rule()
    def take(self):
        before = self.queue.tokens
        budget = min(self.budget, max(before // self.streams, 64))
        batch = self.queue.take()
        expected = any(not row.taken and not one.over for one, rows in self.rows.items() for row in rows)
        if not batch:
            assert not expected
            assert self.queue.tokens == 0
            return
        width = len(batch[0])
        assert all(self.shapes.shortest(width) <= len(row) <= width for row in batch)
        assert len(batch) == 1 or width * len(batch) <= budget
        assert len(batch) == 1 or self.shapes.width(width) * len(batch) <= self.budget
        assert self.shapes.rows(len(batch)) == len(batch)
        for row in batch:
            assert row.taken
            assert not row.job.over
            self.handed_out[row] += 1
        leader = batch[0].job
        assert width == max(len(row) for row in self.rows[leader] if not row.taken or row in batch)
        self.since_put.pop(leader, None)
        for one, counts in list(self.since_put.items()):
            counts[0] += 1
            if one.over or all(row.taken for row in self.rows[one]):
                del self.since_put[one]
            else:
                assert counts[0] < counts[1], "a job that came late waits for more than one lead of each other job"

    @rule()
    def take_quick(self):
        waiting = {
            row for one, rows in self.rows.items() if one.quick and not one.over for row in rows if not row.taken
        }
        batch = self.queue.take_quick()
        assert bool(batch) == bool(waiting)
        assert set(batch) <= waiting
        assert len(batch) <= 1 or len(batch) * self.shapes.width(len(batch[0])) <= QUICK
        assert not batch or self.shapes.rows(len(batch)) == len(batch)
        assert all(self.shapes.shortest(len(batch[0])) <= len(row) <= len(batch[0]) for row in batch)
        self.handed_out.update(batch)

    @invariant()
    def tokens_are_exact(self):
        if hasattr(self, "queue"):
            assert self.queue.tokens == sum(len(row) for rows in self.rows.values() for row in rows if not row.taken)

    @invariant()
    def no_row_twice(self):
        if hasattr(self, "queue"):
            assert all(count == 1 for count in self.handed_out.values())

    def teardown(self):
        if not hasattr(self, "queue"):
            return
        for batch in drain(self.queue):
            self.handed_out.update(batch)
        for one, rows in self.rows.items():
            counts = [self.handed_out[row] for row in rows]
            assert all(count <= 1 for count in counts) if one.over else counts == [1] * len(rows)
        assert self.queue.tokens == 0


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(stateful_step_count=40)


@settings(max_examples=2 * settings.default.max_examples)
@given(st.lists(LENGTHS, min_size=1, max_size=8), BUDGETS, STREAMS)
def test_every_row_is_handed_out_once(requests, budget, streams):
    queue = TokenQueue(budget, streams, AnyShape())
    jobs = [job(*lengths) for lengths in requests]
    for one in jobs:
        queue.put(one)
    assert queue.tokens == sum(map(sum, requests))
    batches = drain(queue)
    found = Counter((jobs.index(row.job), row.index, len(row)) for batch in batches for row in batch)
    assert found == Counter((j, i, n) for j, lengths in enumerate(requests) for i, n in enumerate(lengths))
    assert all(len(batch) == 1 or len(batch) * len(batch[0]) <= budget for batch in batches)


def test_a_row_beyond_the_budget_rides_alone():
    queue = TokenQueue(100, 1, AnyShape())
    queue.put(job(500, 10, 10, 300))
    assert [[len(row) for row in batch] for batch in drain(queue)] == [[500], [300], [10, 10]]


def test_equal_lengths_are_never_padded():
    queue = TokenQueue(1000, 1, EqualLengths())
    queue.put(job(30, 29, 30, 29, 28))
    queue.put(job(29, 30))
    assert [[len(row) for row in batch] for batch in drain(queue)] == [[30] * 3, [29] * 3, [28]]
    queue.put(job(9, 8))
    queue.put(job(8))
    quick = [[len(row) for row in queue.take_quick()] for _ in range(3)]
    assert sorted(map(tuple, quick)) == [(8,), (8,), (9,)]


def test_padding_counts():
    """Four rows of 25 fill a budget of 100; a row of 26 in front of them makes it three."""
    queue = TokenQueue(100, 1, AnyShape())
    queue.put(job(25, 25, 25, 25))
    assert [len(batch) for batch in drain(queue)] == [4]
    queue.put(job(25, 25, 25, 26))
    assert [len(batch) for batch in drain(queue)] == [3, 1]


def test_rows_of_unlike_length_do_not_ride_together():
    queue = TokenQueue(10_000, 1, AnyShape())
    queue.put(job(200, 200, 5, 5, 5))
    assert [[len(row) for row in batch] for batch in drain(queue)] == [[200, 200], [5, 5, 5]]


def test_the_surplus_of_a_bucket_is_in_the_next_batch():
    queue = TokenQueue(10_000, 1, ShapeBuckets(10_000, 40))
    queue.put(job(*[10] * 7))
    first = queue.take()
    assert (len(first), queue.tokens) == (6, 10)
    queue.put(job(10, 10))
    assert [len(batch) for batch in drain(queue)] == [3]


def test_a_row_waits_for_memory_and_keeps_its_turn():
    queue = TokenQueue(1000, 1, AnyShape())
    queue.put(job(100, 100))
    queue.put(job(5))
    assert queue.take(lambda width: 0) == []
    assert queue.tokens == 205
    assert [len(row) for row in queue.take(lambda width: 1 if width == 100 else 9)] == [100]
    assert [[len(row) for row in batch] for batch in drain(queue)] == [[5], [100]]


def test_idle_streams_get_a_share():
    queue = TokenQueue(10_000, 2, AnyShape())
    queue.put(job(*[10] * 40))
    assert next(len(batch) for batch in drain(queue)) == 20


def test_rows_of_several_requests_ride_together():
    queue = TokenQueue(1024, 1, AnyShape())
    jobs = [job(10, 11), job(10), job(11, 12)]
    for one in jobs:
        queue.put(one)
    assert {row.job for row in queue.take()} == set(jobs)


def test_a_small_request_waits_for_few_batches_of_a_huge_one():
    queue = TokenQueue(64, 1, AnyShape())
    queue.put(job(*[32] * 5_000))
    for _ in range(10):
        queue.take()
    late = job(7)
    queue.put(late)
    assert any(row.job is late for _ in range(2) for row in queue.take())


def test_a_cancelled_request_is_dropped():
    queue = TokenQueue(64, 1, AnyShape())
    gone, stays = job(*[10] * 100), job(9)
    queue.put(gone)
    queue.put(stays)
    first = queue.take()
    gone.future.cancel()
    rest = drain(queue)
    assert [row.job for batch in rest for row in batch] == [stays] or any(row.job is stays for row in first)
    assert all(row.job is stays for batch in rest for row in batch)
    assert queue.tokens == 0


def test_clear_gives_what_waits_and_nothing_else():
    queue = TokenQueue(64, 1, AnyShape())
    running, half, waits = job(50), job(*[20] * 5), job(30)
    queue.put(running)
    assert [row.job for row in queue.take()] == [running]
    assert queue.clear() == []
    queue.put(half)
    assert {row.job for row in queue.take()} == {half}
    queue.put(waits)
    assert set(queue.clear()) == {half, waits}
    assert queue.tokens == 0
    assert queue.take() == []
    assert queue.clear() == []


def test_memory_is_released_when_idle():
    queue = TokenQueue(256, 2, AnyShape())
    kept = []
    for lengths in ([5, 9, 30], [100] * 20, [7]):
        one = job(*lengths)
        kept.append(weakref.ref(one.rows[0].ids))
        kept.append(weakref.ref(one))
        queue.put(one)
        del one
    drain(queue)
    gc.collect()
    assert [ref() for ref in kept] == [None] * len(kept)


def test_what_was_taken_by_the_express_lane_or_cancelled_is_released_while_busy():
    queue = TokenQueue(256, 2, AnyShape())
    queue.put(job(*[250] * 2_000))
    gone = []
    for number in range(300):
        quick, cancelled = job(1 + number % 40), job(*[60] * 3)
        gone += [weakref.ref(quick), weakref.ref(cancelled)]
        for one in (quick, cancelled):
            queue.put(one)
        cancelled.future.cancel()
        del one, quick, cancelled
        queue.take_quick()
        queue.take()
    gc.collect()
    assert queue.tokens > 0
    assert sum(ref() is not None for ref in gone) < 10


def test_memory_does_not_grow_while_busy():
    """A queue that is never empty keeps no row for long after it was handed out."""
    queue = TokenQueue(64, 1, AnyShape())
    queue.put(job(*[3] * 30_000))
    rows = []
    for number in range(400):
        one = job(1 + number % 37, 1 + number % 11)
        rows.append(weakref.ref(one))
        queue.put(one)
        del one
        queue.take()
        queue.take()
    gc.collect()
    assert queue.tokens > 0
    assert sum(ref() is not None for ref in rows) < 100
