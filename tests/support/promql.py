"""What a query of Prometheus reads: the names of its series and their labels, found without running it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yml"
DASHBOARD: Final = ROOT / "deploy" / "grafana" / "dashboards" / "millpond.json"
_TEXTS: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_DURATIONS: Final = re.compile(r"\[[^\]]*\]")
_GROUPINGS: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHERS: Final = re.compile(r"\{([^}]*)\}")
_NAMES: Final = re.compile(r"(?<![\w:])[a-zA-Z_:][\w:]*(?!\w*\s*\()")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


class Reads(NamedTuple):
    """The series that a query reads, and the labels that it names."""

    series: set[str]
    labels: set[str]


def reads(query: str) -> Reads:
    """Return what a query reads."""
    query = _DURATIONS.sub("", _TEXTS.sub('""', query))
    grouped = {label.strip() for labels in _GROUPINGS.findall(query) for label in labels.split(",") if label.strip()}
    query = _GROUPINGS.sub("", query)
    matched = {label for inside in _MATCHERS.findall(query) for label in re.findall(r"(\w+)\s*[=!]", inside)}
    query = _MATCHERS.sub("", query)
    query = re.sub(r"\b\d[\w.]*", "", query)
    return Reads(set(_NAMES.findall(query)) - _WORDS, grouped | matched)


def rules() -> list[dict[str, Any]]:
    """Return the recording rules and the alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel and a query of it, with Grafana's variables filled in."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$job", "millpond").replace("$__rate_interval", "1m")
            yield panel["title"], query
