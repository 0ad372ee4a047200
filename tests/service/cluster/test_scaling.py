"""How many replicas there are to be, by what waits for them."""

from dataclasses import dataclass, field

import pytest

from service.cluster.scaling import QUEUED, QueuedTokens


@dataclass
class Situation:
    """As Ray Serve describes one: the mean of the last seconds."""

    current_num_replicas: int
    total_num_requests: float
    waiting: list[float] = field(default_factory=list)

    @property
    def aggregated_metrics(self):
        return {QUEUED: dict(enumerate(self.waiting))} if self.waiting else {}


@pytest.mark.parametrize(
    ("replicas", "requests", "waiting", "wanted"),
    [
        (1, 1, [], 1),
        (1, 8, [1000], 1),
        (1, 8, [1001], 2),
        (2, 8, [1000, 1000], 2),
        (2, 8, [3500, 0], 4),
        (2, 1.5, [0, 0], 2),  # just fast enough: a short queue is no reason to be fewer
        (2, 1, [0, 0], 1),
        (3, 0, [0, 0, 0], 2),
        (1, 0, [0], 0),  # the fewest is Serve's affair
        (0, 0, [], 0),
    ],
)
def test_more_where_tokens_wait_and_fewer_where_one_is_idle(replicas, requests, waiting, wanted):
    found, _ = QueuedTokens(1000)(Situation(replicas, requests, waiting))
    assert found == wanted
