"""A load in phases, for Locust: used where `--phases` is given beside `locustfile.py`."""

from __future__ import annotations

from locust import LoadTestShape


class Phases(LoadTestShape):
    """So many users up to each of some moments."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now, and how many are added a second; None when all is over."""
        assert self.runner is not None and self.runner.environment.parsed_options is not None
        phases = [phase.split(":") for phase in self.runner.environment.parsed_options.phases.split(",")]
        within_a_second = max(float(users) for users, _ in phases)
        return next(
            ((int(users), within_a_second) for users, until in phases if self.get_run_time() < float(until)), None
        )
