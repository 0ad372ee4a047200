"""Data sets as tasks: read once, scored once, for training and evaluation alike."""

from pooling.tasks.bootstrap import paired_bootstrap
from pooling.tasks.task import Part, Search, Task, task

__all__ = ["Part", "Search", "Task", "paired_bootstrap", "task"]
