"""What the templates have in common: escaping, undefined values, and the axis of plots."""

import pytest
from jinja2 import UndefinedError

from service.pages import render
from service.pages.axis import Axis


def test_values_are_escaped():
    page = render("explanation.html", answer={"model": "<a> & 'b'", "head": None}, explanations=[])
    assert "Model &lt;a&gt; &amp; &#39;b&#39;. Point at" in page


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="explanations"):
        render("explanation.html", answer={"model": "m", "head": None})


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3e-9, 4e-9), (79.8, 83.1), (-250.0, -250.0)])
def test_an_axis_has_some_round_ticks_within_its_ends(low, high):
    axis = Axis(low, high, 10.0, 110.0)
    assert 2 <= len(axis.ticks) <= 8
    assert all(10 <= axis(tick) <= 110 for tick in axis.ticks)
    assert axis(low) >= 10 and axis(high) <= 110
