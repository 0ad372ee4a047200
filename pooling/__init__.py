"""Pooling: turn the token states of an encoder into one vector per text.

A strategy is a function of token states (batch, time, dim) and a mask (batch, time):

    >>> import torch
    >>> from pooling import build
    >>> tokens, mask = torch.randn(2, 5, 384), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    >>> pooler = build("gem(p=3) + cls", dim=384)
    >>> pooler(tokens, mask).shape
    torch.Size([2, 768])
    >>> build("mean", dim=384).weights(tokens, mask)[1]
    tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])

The mask alone decides which tokens count (`pooling.masks`): it excludes padding and prompts, and selects spans.
"""

from pooling import explain, masks
from pooling.base import Component, EmptyTextError, Pooler, PoolingError, Stage, WeightedPooler, options_of
from pooling.between import KMax, LogSumExp
from pooling.compose import Adaptive, ComposeWarning, Concatenation, Sequence, Windows
from pooling.fixed import Cls, Last, Max, Mean, MeanSqrtLen, Token, WeightedMean
from pooling.learned import Attention, Gated, GeM, MultiHeadAttention
from pooling.masks import pool_spans
from pooling.piecewise import Piecewise
from pooling.registry import PluginWarning, Spec, available, build, load, stages

__all__ = [
    "Adaptive",
    "Attention",
    "Cls",
    "Component",
    "ComposeWarning",
    "Concatenation",
    "EmptyTextError",
    "Gated",
    "GeM",
    "KMax",
    "Last",
    "LogSumExp",
    "Max",
    "Mean",
    "MeanSqrtLen",
    "MultiHeadAttention",
    "Piecewise",
    "PluginWarning",
    "Pooler",
    "PoolingError",
    "Sequence",
    "Spec",
    "Stage",
    "Token",
    "WeightedMean",
    "WeightedPooler",
    "Windows",
    "available",
    "build",
    "explain",
    "load",
    "masks",
    "options_of",
    "pool_spans",
    "stages",
]
