"""Whatever a service was doing when it was killed, nothing acknowledged is lost and nothing deleted is found.

Nor in a backup that another process made meanwhile.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kills import Kills


@pytest.mark.parametrize(
    "kills", [pytest.param(4, marks=pytest.mark.slow), pytest.param(500, marks=pytest.mark.peers)]
)
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    tally = Kills(tmp_path, seed=kills).run(kills)
    assert tally.faults == []
    assert tally.kills >= kills and tally.acknowledged > kills and tally.searches and tally.reindexes
    assert tally.backups.finished
