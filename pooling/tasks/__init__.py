"""Data sets as tasks: read by one reader, scored by one scorer, for training and evaluation alike.

To add a kind of task, write a subclass of `Task` that declares its `columns` and its scores, and name it in
`pooling.tasks.datasets.KINDS`. To let poolers be fitted to it, add an objective (`pooling.training.objectives`).
"""

from pooling.tasks.bootstrap import paired_bootstrap
from pooling.tasks.classification import Classification
from pooling.tasks.datasets import of_rows, read
from pooling.tasks.retrieval import PositivePairs, Retrieval
from pooling.tasks.similarity import Similarity
from pooling.tasks.task import DataError, Part, Role, Task

__all__ = [
    "Classification",
    "DataError",
    "Part",
    "PositivePairs",
    "Retrieval",
    "Role",
    "Similarity",
    "Task",
    "of_rows",
    "paired_bootstrap",
    "read",
]
