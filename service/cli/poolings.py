"""`millpond poolings`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Column, Table

from service.cli.console import out, warn

if TYPE_CHECKING:
    from pooling import Component


def poolings() -> None:
    """List every pooling strategy there is, those of other packages included."""
    import pooling

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", pooling.PluginWarning)
        strategies = pooling.available()
    out.print(_table("strategy", strategies))
    out.print()
    out.print(_table("stage", pooling.stages()))
    out.print()
    out.print("Vectors of several strategies are joined by +, as in 'mean + max'; stages stand before one,")
    out.print("as in 'window(size=8, stride=4) > mean'. A learned one needs fitted weights to be of use.")
    for warning in caught:
        warn(str(warning.message))


def _table(kind: str, components: Mapping[str, type[Component]]) -> Table:
    from pooling.registry import describe_options

    columns = (Column(kind, no_wrap=True), "options", "what it does", "good for", "weak at")
    table = Table(*columns, box=None, pad_edge=False)
    for name, component in components.items():
        table.add_row(name, describe_options(component), component.summary, component.good_for, component.weak_at)
    return table
