"""Fits learned poolings over an encoder that stays as it is.

Token states are written once (`Writer`) and mapped into memory (`States`); `task` makes data something to fit to
and to judge by; `fit` fits a pooler to it.
"""

from pooling.training.fit import Epoch, Head, Settings, Split, TrainingError, averaged, fit, followed_by
from pooling.training.significance import Verdict, judge, outcomes
from pooling.training.splits import Splits, read_splits
from pooling.training.states import DType, States, StatesError, Writer
from pooling.training.tasks import Task, Text, task

__all__ = [
    "DType",
    "Epoch",
    "Head",
    "Settings",
    "Split",
    "Splits",
    "States",
    "StatesError",
    "Task",
    "Text",
    "TrainingError",
    "Verdict",
    "Writer",
    "averaged",
    "fit",
    "followed_by",
    "judge",
    "outcomes",
    "read_splits",
    "task",
]
