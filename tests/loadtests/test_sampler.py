"""Mean use of processors."""

from __future__ import annotations

import pytest

from loadtests.sampler import Sample, Usage, slope, usage


def test_a_generator_that_ended_before_the_last_sample_keeps_its_share():
    samples = [
        Sample(at=10, resident=1, service=5, generator=2, machine=20),
        Sample(at=12, resident=1, service=7, generator=4, machine=24),
        Sample(at=14, resident=1, service=9, generator=0, machine=27),
    ]
    assert usage(samples) == Usage(service=1.0, generator=0.5, others=0.25)
    assert usage(samples[:1]) is None


def test_the_slope_of_memory_is_in_megabytes_a_minute():
    samples = [
        Sample(at=second, resident=100 + second / 30, service=0, generator=0, machine=0)
        for second in range(0, 120, 5)
    ]
    assert slope(samples) == pytest.approx(2.0)
    assert slope(samples[:2]) == 0
