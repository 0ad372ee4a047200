"""What an examination comes to: findings by name, and how far off each strategy would be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Severity = Literal["ok", "warning", "fault"]

MATERIAL: Final = 0.03
"""The gain in AUC from which another strategy makes the one served look like a mistake."""


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
        """Whether it is better than the strategy served beyond noise, and by more than fine tuning is worth."""
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
    """A model, examined.

    Args:
        model: what it was asked for by.
        declared: what its checkpoint says, by name.
        served: what vectors are really made with, by the same names and more.
        findings: the checks, in order.
        strategies: how far each is from the declared one, or from a server's vectors.
        verdict: all of it in one sentence.

    """

    model: str
    declared: Mapping[str, Any]
    served: Mapping[str, Any]
    findings: Sequence[Finding]
    strategies: Sequence[Strategy]
    verdict: str

    @property
    def faults(self) -> list[str]:
        """Names of what is wrong."""
        return named(self.findings, "fault")

    @property
    def warnings(self) -> list[str]:
        """Names of what may be."""
        return named(self.findings, "warning")

    def to_json(self) -> dict[str, Any]:
        """The same as JSON can hold it, with the names of faults and warnings."""
        return asdict(self) | {"faults": self.faults, "warnings": self.warnings}


def refused(model: str, reason: str) -> Report:
    """The report on a model that cannot be loaded."""
    remedy = "mend the folder as the message says, or get it anew"
    verdict = f"{model} cannot be served: {reason.rstrip('.')}."
    return Report(model, {}, {}, [Finding("checkpoint", "fault", reason, remedy)], [], verdict)


def named(findings: Sequence[Finding], severity: Severity) -> list[str]:
    """Distinct names of the findings of a severity, in order."""
    return list(dict.fromkeys(finding.name for finding in findings if finding.severity == severity))


def summed_up(model: str, sound: str, findings: Sequence[Finding]) -> str:
    """The verdict: `sound` says in what way the model is, where no check says otherwise."""
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
