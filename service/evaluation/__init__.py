"""Evaluates poolings of one encoder on data sets, with the scores of `pooling.tasks`."""

from service.encoder.progress import Progress
from service.evaluation.dimensions import leading
from service.evaluation.evaluate import evaluate
from service.evaluation.layers import OverLayers, over_layers
from service.evaluation.reranking import Reranking
from service.evaluation.spans import both_modes
from service.evaluation.strategies import FIXED, choose

__all__ = [
    "FIXED",
    "OverLayers",
    "Progress",
    "Reranking",
    "both_modes",
    "choose",
    "evaluate",
    "leading",
    "over_layers",
]
