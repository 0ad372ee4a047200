"""Fits learned poolings over an encoder whose parameters are frozen.

Token states are written once (`Writer`) and memory-mapped (`States`). `read_splits` reads tasks to fit to, select
by and test on; `fit` fits a pooler; `assess` tells whether it is better than poolings that need no fitting.
"""

from pooling.training.fit import Epoch, Settings, Split, TrainingError, averaged, fit, followed_by
from pooling.training.layer_weights import LayerWeights
from pooling.training.objectives import objective
from pooling.training.significance import Verdict, assess
from pooling.training.splits import Splits, read_splits
from pooling.training.states import DType, States, StatesError, Writer

__all__ = [
    "DType",
    "Epoch",
    "LayerWeights",
    "Settings",
    "Split",
    "Splits",
    "States",
    "StatesError",
    "TrainingError",
    "Verdict",
    "Writer",
    "assess",
    "averaged",
    "fit",
    "followed_by",
    "objective",
    "read_splits",
]
