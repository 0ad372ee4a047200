"""Pages of HTML, each a single file that loads nothing, from the Jinja2 templates beside this module."""

from __future__ import annotations

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from service.pages.axis import Axis

_ENVIRONMENT: Final = Environment(
    loader=PackageLoader(__name__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.globals["Axis"] = Axis


def render(template: str, **values: Any) -> str:
    """Render a template with values, which are escaped."""
    return _ENVIRONMENT.get_template(template).render(values)
