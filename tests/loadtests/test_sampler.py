"""Mean use of processors."""

from __future__ import annotations

from loadtests.sampler import Sample, Usage, usage


def test_a_generator_that_ended_before_the_last_sample_keeps_its_share():
    samples = [
        Sample(at=10, resident=1, service=5, generator=2, machine=20),
        Sample(at=12, resident=1, service=7, generator=4, machine=24),
        Sample(at=14, resident=1, service=9, generator=0, machine=27),
    ]
    assert usage(samples) == Usage(service=1.0, generator=0.5, others=0.25)
    assert usage(samples[:1]) is None
