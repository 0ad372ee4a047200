"""Parameter cost: what has to be fitted and kept, and what an index has to hold of each text."""

from __future__ import annotations

from typing import Final

from benchmarks.pooling_figures.gallery import Figure, rows
from benchmarks.pooling_figures.laboratory import Laboratory
from pooling import build

DIM: Final = 384
"""That of all-MiniLM-L6-v2."""
SPECS: Final = (
    *("cls", "last", "mean", "weighted_mean", "max", "mean + max"),
    *("gem(p=3)", "attention(scores=descriptors)", "attention", "gem(p=3, per_dim=True)"),
    "multihead_attention(heads=12, split_heads=True)",
    "gated",
    "multihead_attention(heads=4)",
    "multihead_attention(heads=12, split_heads=True, projection=True)",
)


def draw(laboratory: Laboratory) -> Figure:
    poolers = {spec: build(spec, DIM) for spec in SPECS}
    parameters = {spec: sum(p.numel() for p in pooler.parameters()) for spec, pooler in poolers.items()}
    dimensions = {spec: pooler.output_dim for spec, pooler in poolers.items()}
    numbers = {"dim": DIM, "parameters": parameters, "dimensions": dimensions}
    panels = {"Parameters (logarithmic)": parameters, "Numbers in a vector": dimensions}
    title = f"Cost, where a token state has {DIM} numbers"
    return Figure(rows(panels, title, logarithmic=["Parameters (logarithmic)"]), numbers)
