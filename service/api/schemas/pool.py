"""`/pool`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from service.api.requests import Body
from service.api.schemas.fields import PoolingSpec, examples

Number = Annotated[float, Field(allow_inf_nan=False)]


class PoolRequest(Body):
    """Token states, and the poolings of them."""

    model_config = examples(
        {"states": [[0.5, 0.3], [0.8, -0.2], [0.1, 0.9], [-0.3, 0.5]], "pooling": ["mean", "max", "gem(p=3)"]},
        {"states": [[0.6, 0.4], [0.8, 0.2], [0.1, 0.05]], "counts": [True, True, False], "pooling": "mean"},
    )

    states: list[list[Number]] = Field(description="Of each token, a list of as many numbers.")
    counts: list[bool] | None = Field(
        default=None, description="Which tokens count, as a mask says it; all by default."
    )
    pooling: PoolingSpec = Field(description="A strategy, or a list of several.")
    query: list[Number] | None = Field(default=None, description="The query of `attention`; zeros by default.")

    @property
    def poolings(self) -> list[str | dict[str, Any] | list[Any]]:
        """Each strategy asked for."""
        return self.pooling if isinstance(self.pooling, list) else [self.pooling]


class PooledBody(BaseModel):
    """What one strategy gives."""

    pooling: str
    vector: list[float]
    weights: list[float] | list[list[float]] = Field(
        description="Of each token; a list of one a dimension where dimensions have weights of their own."
    )
    gradient: list[list[float]] = Field(
        description="Of the sum of the vector's numbers, by each number of the states: who is told of an error."
    )


class PoolBody(BaseModel):
    """One answer a strategy, in the order asked for."""

    poolings: list[PooledBody]
