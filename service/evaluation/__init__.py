"""Poolings of one encoder on a user's data: vectors from here, figures from `pooling.evaluation`."""

from service.evaluation.evaluate import Progress, evaluate
from service.evaluation.strategies import FIXED, Strategy, choose

__all__ = ["FIXED", "Progress", "Strategy", "choose", "evaluate"]
