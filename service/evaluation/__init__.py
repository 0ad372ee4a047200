"""Evaluates poolings of one encoder on data sets, with the scores of `pooling.tasks`."""

from service.evaluation.evaluate import Progress, evaluate
from service.evaluation.spans import BySpans, both_modes
from service.evaluation.strategies import FIXED, Strategy, choose

__all__ = ["FIXED", "BySpans", "Progress", "Strategy", "both_modes", "choose", "evaluate"]
