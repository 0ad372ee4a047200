"""Strategies without parameters."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from pooling.base import Pooler, PoolingError, WeightedPooler
from pooling.masks import rank
from pooling.weights import uniform


class OneToken(WeightedPooler):
    """The state of one token, selected by `_index` (batch, time) -> (batch,)."""

    @abstractmethod
    def _index(self, mask: Tensor) -> Tensor: ...

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens[torch.arange(len(tokens), device=tokens.device), self._index(mask)]

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return torch.zeros_like(tokens[..., 0]).scatter(1, self._index(mask).unsqueeze(1), 1.0)


class Cls(OneToken):
    """The first token that counts (BERT's `[CLS]`; Devlin et al. 2019)."""

    name = "cls"
    summary = "the first token that counts"
    good_for = "encoders trained for it (BGE, Arctic, mxbai), fine-tuned classification"
    weak_at = "encoders that were not; on a causal LM the first token saw nothing"

    def _index(self, mask: Tensor) -> Tensor:
        return mask.int().argmax(1)


class Last(OneToken):
    """The last token that counts (E5-Mistral, Qwen3-Embedding)."""

    name = "last"
    summary = "the last token that counts"
    good_for = "causal LMs trained for it (E5-Mistral, Qwen3-Embedding)"
    weak_at = "anything else: a sentence that ends in a full stop embeds the full stop"

    def _index(self, mask: Tensor) -> Tensor:
        return rank(mask).argmax(1)


class Token(Cls):
    """The state of a special token that a text has once, such as `[MASK]` (PromptBERT; Jiang et al. 2022).

    Which token it is, only its id tells, and a strategy does not see ids: whoever calls narrows the mask to it with
    `masks.only`. Of several tokens that count, the first is taken.

    Args:
        token: as the tokenizer writes it.
    """

    name = "token"
    example = 'token("[MASK]")'
    summary = "the state of a special token that a text has once"
    good_for = "encoders trained for it (PromptBERT's `[MASK]`)"
    weak_at = "encoders that were not; each text needs the token, which stands in a prompt as a rule"

    def __init__(self, dim: int, token: str) -> None:
        super().__init__(dim)
        if not isinstance(token, str) or not 1 <= len(token) <= 100:
            raise PoolingError(f"token={token!r}: must be a special token of the tokenizer, such as '[MASK]'")
        self.token = token

    @property
    def spec(self) -> str:
        """Such as `token('[MASK]')`."""
        return f"{self.name}({self.token!r})"


class Mean(WeightedPooler):
    """The mean of the tokens that count (Reimers & Gurevych 2019)."""

    name = "mean"
    summary = "the mean of the tokens that count"
    good_for = "general sentence embeddings, retrieval"
    weak_at = "long texts, which dilute a strong signal"

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return uniform(mask, tokens)


class MeanSqrtLen(WeightedPooler):
    """The sum divided by the square root of the number of tokens (sentence-transformers' `mean_sqrt_len_tokens`)."""

    name = "mean_sqrt_len"
    summary = "the sum of the tokens that count, over the root of their number"
    good_for = "checkpoints that declare it"
    weak_at = "dot products: length leaks into the norm"

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return mask / mask.sum(1, keepdim=True).to(tokens.dtype).sqrt()


class WeightedMean(WeightedPooler):
    """The mean weighted by position, 1, 2, ... over the tokens that count (SGPT; Muennighoff 2022)."""

    name = "weighted_mean"
    summary = "the mean, weighted 1, 2, ... by position"
    good_for = "causal LMs without training"
    weak_at = "bidirectional encoders: a little worse than the mean"

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        ranks = rank(mask).to(tokens.dtype)
        return ranks / ranks.sum(1, keepdim=True)


class Max(Pooler):
    """The largest value of each dimension over the tokens that count (Reimers & Gurevych 2019)."""

    name = "max"
    summary = "per dimension, the largest value"
    good_for = "whether a feature is there at all"
    weak_at = "outliers, each of which decides alone; training, as the gradient reaches winners only"

    @property
    def linear(self) -> bool:
        """True: the largest value of a dimension has weight one there."""
        return True

    def _pool(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).max(dim=1).values

    def _weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        winners = tokens.masked_fill(~mask.unsqueeze(2), -torch.inf).max(dim=1, keepdim=True).indices
        return torch.zeros_like(tokens).scatter(1, winners, 1.0)
