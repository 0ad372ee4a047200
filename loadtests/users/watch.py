"""A user that looks after the service, as whatever restarts it or sends it clients does."""

from __future__ import annotations

from typing import Any

from locust import constant, task

from loadtests.records import LOOKS
from loadtests.users.base import ServiceUser, require


class Watcher(ServiceUser):
    """Asks whether the service is there and ready: never refused, and never waiting behind work."""

    fixed_count = 1
    wait_time = constant(0.2)

    @task
    def look(self) -> None:
        """Ask once."""

        def well(answer: Any) -> None:
            require(answer["status"] in ("ok", "ready"), f"status {answer['status']!r}")

        for path in LOOKS:
            self.ask("GET", path, name=path, check=well)
