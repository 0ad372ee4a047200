"""How good poolings are, and how sure that is."""

from pooling.evaluation.bootstrap import paired_bootstrap

__all__ = ["paired_bootstrap"]
