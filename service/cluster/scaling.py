"""How many replicas there are to be, by the tokens that wait. Ray Serve sends this module to its controller by value.

So it imports nothing of Millpond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

QUEUED = "queued_tokens"
"""What replicas call the tokens that wait for them."""


class Situation(Protocol):
    """What is asked of Ray Serve's `AutoscalingContext`; figures are means of the last seconds."""

    current_num_replicas: int
    total_num_requests: float
    aggregated_metrics: Mapping[str, Mapping[Any, float]] | None


class QueuedTokens:
    """As many replicas as keep what waits below a number of tokens each, and one fewer where one has nothing to do.

    A request keeps one replica busy at most: where fewer are under way than there are replicas but one, that one is
    idle. Short queues alone do not say so, since replicas that are just fast enough have them too. Serve keeps the
    number between the fewest and the most, and waits before it follows.
    """

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    def __call__(self, situation: Situation) -> tuple[int, dict[str, Any]]:
        """Return how many there are to be, and nothing to remember."""
        now = max(situation.current_num_replicas, 1)
        waiting = sum((situation.aggregated_metrics or {}).get(QUEUED, {}).values())
        if waiting > now * self._tokens:
            return math.ceil(waiting / self._tokens), {}
        return (now - 1 if situation.total_num_requests <= now - 1 else now), {}
