"""`/doctor`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from service.doctor.findings import Finding, Strategy


class ReportBody(BaseModel):
    """A served model, examined."""

    model: str
    verdict: str = Field(description="All of it in one sentence.")
    faults: list[str] = Field(description="Names of the findings that are faults.")
    warnings: list[str] = Field(description="Names of the findings that may be.")
    declared: dict[str, Any] = Field(description="What the checkpoint says, by name.")
    served: dict[str, Any] = Field(description="What vectors are made with, by the same names and more.")
    findings: list[Finding] = Field(description="The checks, in order.")
    strategies: list[Strategy] = Field(
        description="How near the vectors of each pooling are to those of the right one where that is known, "
        "else of the declared one, and how well each tells paraphrases from look-alikes."
    )


class Examined(BaseModel):
    """A report on each model, by the model's name."""

    models: dict[str, ReportBody]
