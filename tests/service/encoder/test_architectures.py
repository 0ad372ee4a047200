"""Every text architecture of transformers: the vectors of transformers alone, or a refusal in words."""

from __future__ import annotations

import pytest

from service.encoder.runtimes.openvino import is_installed
from tests.support.architectures import examined, kinds, table

TABLE = table()


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="the extra 'openvino' is not installed")
@pytest.mark.parametrize("expected", TABLE, ids=lambda row: row.kind)
def test_an_architecture_gives_the_vectors_of_transformers_or_is_refused(expected):
    found = examined(expected.kind)
    assert not found.wrong
    assert (found.served, found.longest) == (expected.served, expected.longest), found.reason
    assert found.reason or found.served.startswith("OpenVINO")


def test_the_table_has_all_of_them():
    """Run `python -m tests.support.architectures KIND ...` to add some."""
    assert sorted(row.kind for row in TABLE) == kinds()
    assert sum(row.served != "refused" for row in TABLE) >= 80
