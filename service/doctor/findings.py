"""Findings and reports: the outcome of an examination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Severity = Literal["ok", "warning", "fault"]

MATERIAL: Final = 0.03
"""Gain in AUC from which another pooling makes the one served look like a mistake."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, how it came out, what was seen, and unless all is well what to do."""

    name: str
    severity: Severity
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How well a strategy tells paraphrases from other sentences.

    Args:
        auc: the chance that a paraphrase is nearer than a sentence of another meaning; 0.5 is a coin's.
        gain: by how much that is more than under the strategy served.
        interval: of the gain, by paired bootstrap.
    """

    auc: float
    gain: float
    interval: tuple[float, float]

    @property
    def better(self) -> bool:
        """Whether the pooling is better than the one served, significantly and by a material amount."""
        return self.interval[0] > 0 and self.gain >= MATERIAL


@dataclass(frozen=True, slots=True)
class Strategy:
    """Vectors under one pooling: their cosine with those they are compared with, and the evidence for it."""

    pooling: str
    cosine: float
    least_cosine: float
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Report on a model.

    Args:
        model: the name it was asked for by.
        declared: what its checkpoint declares, by name.
        served: what vectors are really made with, by the same names and more.
        findings: the outcomes of the checks, in order.
        strategies: poolings, compared with the declared one or with a server's vectors.
        verdict: the outcome in one sentence.
    """

    model: str
    declared: Mapping[str, Any]
    served: Mapping[str, Any]
    findings: Sequence[Finding]
    strategies: Sequence[Strategy]
    verdict: str

    @property
    def faults(self) -> list[str]:
        """Names of the faults."""
        return named(self.findings, "fault")

    @property
    def warnings(self) -> list[str]:
        """Names of the warnings."""
        return named(self.findings, "warning")

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object, with the names of faults and warnings."""
        return asdict(self) | {"faults": self.faults, "warnings": self.warnings}


def refused(model: str, reason: str) -> Report:
    """Return the report on a model that cannot be loaded."""
    remedy = "mend the folder as the message says, or get it anew"
    verdict = f"{model} cannot be served: {reason.rstrip('.')}."
    return Report(model, {}, {}, [Finding("checkpoint", "fault", reason, remedy)], [], verdict)


def named(findings: Sequence[Finding], severity: Severity) -> list[str]:
    """Return the distinct names of the findings of a severity, in order."""
    return list(dict.fromkeys(finding.name for finding in findings if finding.severity == severity))


def summed_up(model: str, sound: str, findings: Sequence[Finding]) -> str:
    """Return the verdict; `sound` describes the model as served, for a model without faults."""
    faults, warnings = named(findings, "fault"), named(findings, "warning")
    doubts = f"{_counted(warnings, 'warning')} ({', '.join(warnings)})" if warnings else ""
    if faults:
        also = f" and {doubts}" if doubts else ""
        return f"{model} is not sound: {_counted(faults, 'fault')} ({', '.join(faults)}){also}."
    if doubts:
        return f"{model} can be served, {sound}, with {doubts}."
    return f"{model} is sound: {sound}, and all {len(findings)} checks passed."


def _counted(names: Sequence[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"
