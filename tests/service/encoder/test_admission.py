"""What waits in a queue is bounded in tokens and in seconds."""

from __future__ import annotations

import math

import pytest

from service.encoder.admission import Admission, DrainRate
from service.errors import Unavailable


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    *, max_tokens: int = 1_000_000, max_seconds: float = 2.0, rate: float = 0.0, clock: Clock | None = None
) -> Admission:
    """Two streams with batches of up to 1,000 tokens, at a rate that was measured, unless that is 0."""
    one = Admission(2, 1000, max_tokens, max_seconds, clock or Clock())
    if rate:
        one.rate.add(1000, 2 * 1000 / rate)
    return one


def refused(one: Admission, tokens: int, waiting: int = 0) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        one.take(tokens, waiting)
    return caught.value


def test_the_rate_is_that_of_all_streams_together_and_follows_the_latest_passes():
    rate = DrainRate(2)
    assert rate.tokens_per_second == math.inf
    for _ in range(5):
        rate.add(1000, 0.2)
    assert rate.tokens_per_second == pytest.approx(10_000)
    for _ in range(200):
        rate.add(1000, 1.0)
    assert rate.tokens_per_second == pytest.approx(2000, rel=1e-3)


def test_the_bound_in_seconds_follows_the_rate():
    for rate in (10_000, 50_000):
        one = admission(rate=rate)
        for _ in range(2 * rate // 1000):
            one.take(1000, 0)
        assert "batching.max_queued_seconds is 2." in refused(one, 1000).detail


def test_what_is_not_quick_is_refused_from_a_refusal_until_there_is_room_for_the_largest():
    one = admission(rate=10_000)
    for _ in range(20):
        one.take(1000, 0)
    assert not one.full
    refused(one, 1000)
    for _ in range(4):
        assert one.full
        refused(one, 200)
        assert one.take(100, 0) == 100
        one.release(100)
        one.release(1000)
    one.release(1000)
    assert not one.full
    assert one.take(10**6, 0) == 5000  # whatever small ones have come meanwhile


def test_a_burst_may_fill_the_queue_and_a_load_that_lasts_half_of_it():
    clock = Clock()
    one = admission(rate=10_000, max_seconds=4.0, clock=clock)
    for _ in range(20):
        one.take(1000, 0)
    clock.now += 3.9
    for _ in range(20):
        one.take(1000, 0)
    assert "batching.max_queued_seconds is 4." in refused(one, 1000).detail
    clock.now += 0.2
    for _ in range(24):
        assert "max_queued_seconds is 4, half of which is for a load that lasts." in refused(one, 1000).detail
        one.release(1000)
    one.release(1000)
    for _ in range(5):
        one.take(1000, 0)
    refused(one, 1000)
    for _ in range(20):
        one.release(1000)
    for _ in range(40):  # it was empty
        one.take(1000, 0)
    refused(one, 1000)


def test_without_a_measured_rate_tokens_bound_what_waits():
    one = admission(max_tokens=10_000)
    for _ in range(10):
        one.take(1000, 0)
    assert "10000 tokens wait" in refused(one, 1000).detail
    assert "batching.max_queued_tokens is 10000." in refused(one, 1000).detail


def test_tokens_bound_what_waits_also_where_the_rate_is_high():
    one = admission(max_tokens=10_000, rate=1e6)
    for _ in range(10):
        one.take(1000, 0)
    assert "batching.max_queued_tokens" in refused(one, 1000).detail


def test_a_slow_encoder_has_a_batch_that_runs_and_one_that_follows_for_each_stream():
    one = admission(rate=10)
    for _ in range(4):
        one.take(1000, 0)
    refused(one, 1000)


def test_quick_requests_still_get_in_beside_larger_ones():
    one = admission(rate=10_000)
    for _ in range(20):
        one.take(1000, 0)
    refused(one, 1000)
    for _ in range(50):
        one.take(100, 0)
    refused(one, 100)


@pytest.mark.parametrize("rate", [0, 10, 10_000])
def test_a_request_that_is_alone_is_taken_however_large(rate):
    one = admission(rate=rate)
    cost = one.take(10**9, 0)
    assert one.take(20, 0) == 20  # beside it
    one.release(cost + 20)
    assert one.admitted == 0


def test_nothing_to_compute_is_never_refused():
    one = admission(rate=10_000)
    one.admitted = 10**9
    assert one.take(0, 0) == 0


def test_a_client_comes_back_when_what_waits_is_done():
    one = admission(rate=10_000)
    one.admitted = 10**6
    assert [refused(one, 1000, waiting).retry_after for waiting in (0, 9000, 10_001, 75_000, 10**9)] == [
        1,
        1,
        2,
        8,
        60,
    ]
    assert "again in 8 s" in refused(one, 1000, 75_000).detail
    unmeasured = admission(max_tokens=10)
    unmeasured.admitted = 100
    assert refused(unmeasured, 10, 1000).retry_after == 1


def test_an_estimate_is_corrected_once_the_tokens_are_known():
    one = admission(rate=10_000)
    cost = one.take(900, 0)
    assert one.correct(cost, 400) == one.admitted == 400
    assert one.correct(400, 10**6) == one.admitted == one.take(10**6, 0)
