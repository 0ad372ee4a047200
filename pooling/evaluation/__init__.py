"""Which pooling suits an encoder and data: scores with intervals, robustness, information, advice.

Vectors in, figures out; what makes the vectors is elsewhere. `tasks` says which texts to embed for a data set
and what their vectors score, `comparison` which differences are more than noise, `advice` what follows.
"""

from pooling.evaluation.advice import Advice, Candidate, advise, advise_spans
from pooling.evaluation.bootstrap import paired_bootstrap
from pooling.evaluation.comparison import Comparison, Difference, compare
from pooling.evaluation.tasks import Part, Search, Task, task

__all__ = [
    "Advice",
    "Candidate",
    "Comparison",
    "Difference",
    "Part",
    "Search",
    "Task",
    "advise",
    "advise_spans",
    "compare",
    "paired_bootstrap",
    "task",
]
