"""Measurements against the bare encoder, the library and other servers, each through real processes.

`python -m benchmarks` makes them all and writes `benchmarks/results/`.
"""
