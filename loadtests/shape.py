"""A load in phases, for Locust: used where `--phases` is given beside `locustfile.py`."""

from __future__ import annotations

from locust import LoadTestShape


class Phases(LoadTestShape):
    """So many users up to each of some moments."""

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there should be now, and how many are added a second; None when all is over."""
        assert self.runner is not None and self.runner.environment.parsed_options is not None
        for phase in self.runner.environment.parsed_options.phases.split(","):
            users, _, until = phase.partition(":")
            if self.get_run_time() < float(until):
                return int(users), float(users)
        return None
