"""A cross-encoder that is loaded: texts and pairs of texts in, scores out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.encoder import Encoder, RowFailed, TokenizedText
from service.encoder.pairs import Item, PairTokenizer, characters
from service.encoder.reading import SHORT, TOKENIZING, Cut, Where, beginning, check_text, parts, tokens_of, too_large
from service.encoder.tokenizer import FEW
from service.errors import BrokenModel, Place, TooLong, UnsupportedTask, brief
from service.observation import observed, phase
from service.ranking.recipe import Recipe

_TEXTS: Final = partial(Place, "texts")


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits (items, labels), how many tokens the encoder read for them, and the indices of items that were cut."""

    logits: NDArray[np.float32]
    tokens: int
    truncated: list[int]


class Reranker:
    """An encoder whose task is scores, and what they go through.

    Args:
        encoder: computes the logits.
        recipe: what is done before and after.
    """

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        self.encoder = encoder
        self.recipe = recipe
        self.scored = 0
        """Texts and pairs so far."""
        self._tokenizer = PairTokenizer(encoder.tokenizer, recipe.max_tokens)

    @property
    def name(self) -> str:
        """The reranker's name in the deployment."""
        return self.recipe.name

    async def score(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return how well each text answers a query, (texts,), as sentence-transformers' `CrossEncoder.predict` does.

        A text may be empty, and a pair that is too long is cut at the right.

        Raises:
            ServiceError: as `rank`.
        """
        self._require_rank(query)
        found = await self._scored([(query, text) for text in texts], "right", _TEXTS)
        return self.activated(found.logits)[:, 0]

    async def rank(self, query: str, texts: Sequence[str], *, truncate: Cut = None, where: Where = _TEXTS) -> Scored:
        """Return one logit for the pair of a query with each text.

        Args:
            query: the first text of each pair.
            texts: the second ones.
            truncate: the side at which a pair that is too long is cut; False refuses it, None does as configured.
            where: gives the place of a text, for errors.

        Raises:
            UnsupportedTask: there is more than one score a pair.
            ServiceError: as `predict`.
        """
        self._require_rank(query)
        return await self.predict([(query, text) for text in texts], truncate=truncate, where=where)

    async def predict(self, items: Sequence[Item], *, truncate: Cut = None, where: Where) -> Scored:
        """Return the logits of texts and pairs of texts.

        Args:
            items: the texts, and pairs of texts.
            truncate: the side at which one that is too long is cut, of a pair the longer text first; False refuses
                it, None does as configured.
            where: gives the place of an item, for errors.

        Raises:
            InvalidInput: a text is blank or no valid Unicode.
            TooLong: an item is longer than the encoder takes and is not to be cut.
            BrokenModel: the encoder failed on an item.
            Unavailable: the queue is full, which is known before anything is tokenized.
            DeadlineExceeded: the request that this is for had no more time.
        """
        for at, item in enumerate(items):
            for text in [item] if isinstance(item, str) else item:
                check_text(text, where(at), "score")
        cut = ("right" if self.recipe.truncate else False) if truncate is None else truncate
        return await self._scored(items, cut, where)

    async def check(self, queries: Sequence[str], where: Where) -> None:
        """Raise `TooLong` if a query leaves no room for a text beside it, so that `score` would cut it."""
        limit = self.recipe.max_tokens
        short = limit - self.encoder.tokenizer.num_special_of_pair()
        for at, query in enumerate(queries):
            if len(query.encode(errors="replace")) < short:  # a token has a byte or more
                continue
            check_text(query, where(at), "rank by")
            work = partial(self._tokenizer.encode, [(beginning(query, "right", where(at)), "")])
            (alone,) = await asyncio.get_running_loop().run_in_executor(TOKENIZING, work)
            if alone.full_length >= limit:
                raise TooLong(
                    f"{where(at)} has {alone.full_length} tokens with the special ones of a pair, and reranker "
                    f'{self.name!r} takes {limit} of it and a text together. Send "truncate": true to rank by what '
                    "fits, or ask more briefly.",
                    where=where(at),
                    length=alone.full_length,
                    limit=limit,
                )

    def _require_rank(self, query: str) -> None:
        """Raise `UnsupportedTask` if there is more than one score a pair, `InvalidInput` if the query is none."""
        labels = self.recipe.labels
        if len(labels) > 1:
            raise UnsupportedTask(
                f"reranker {self.name!r} gives {len(labels)} scores ({', '.join(labels[:5])}), and texts are "
                "ranked by a single one. '/predict' gives them all."
            )
        check_text(query, Place("query"), "rank by")

    async def _scored(self, items: Sequence[Item], cut: Cut, where: Where) -> Scored:
        with self.encoder.batcher.room(self._estimate(items)) as room:
            texts = await self._tokenize(items, cut, where)
            try:
                rows = await self.encoder.batcher.run([text.ids for text in texts], _logits, room)
            except RowFailed as failed:
                failure = brief(failed.reason, 200)
                raise BrokenModel(self.name, where=where(failed.index), failure=failure) from failed.reason
        logits = np.stack(rows) if rows else np.empty((0, len(self.recipe.labels)), np.float32)
        if not (finite := np.isfinite(logits).all(1)).all():
            place = where(int(np.flatnonzero(~finite)[0]))
            raise BrokenModel(self.name, where=place, failure="with a score that is not finite")
        self.scored += len(items)
        truncated = [at for at, text in enumerate(texts) if text.full_length > len(text.ids)]
        return Scored(logits, sum(len(text.ids) for text in texts), truncated)

    def activated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put logits, (items, labels), through the declared activation."""
        return _through(self.recipe.activation, logits)

    def normalized(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put logits, (items, labels), through the declared activation, unless that leaves them as they are.

        They are brought to within 0..1 then, as text-embeddings-inference does: one by a sigmoid, several by softmax.
        """
        if not isinstance(self.recipe.activation, nn.Identity):
            return self.activated(logits)
        return _through(nn.Sigmoid() if len(self.recipe.labels) == 1 else nn.Softmax(dim=1), logits)

    def _estimate(self, items: Sequence[Item]) -> int:
        """Return about how many tokens items have together, without tokenizing them."""
        texts = (text for item in items for text in ([item] if isinstance(item, str) else item))
        size = sum(map(tokens_of, texts)) + len(items) * self.encoder.tokenizer.num_special
        return min(size, self.recipe.max_tokens * len(items))

    async def _tokenize(self, items: Sequence[Item], cut: Cut, where: Where) -> list[TokenizedText]:
        """Tokenize items without blocking the event loop."""
        texts: list[TokenizedText] = []
        total = 0
        with phase("tokenize"):
            for start, part, size in parts(items, characters):
                work = partial(self._tokenized, start, part, cut, where)
                if size <= SHORT and len(part) <= FEW:
                    texts += work()
                else:
                    texts += await asyncio.get_running_loop().run_in_executor(TOKENIZING, work)
                total += size
        if (request := observed()) is not None:
            request.texts += len(texts)
            request.characters += total
            request.tokens += sum(len(text.ids) for text in texts)
        return texts

    def _tokenized(self, start: int, items: Sequence[Item], cut: Cut, where: Where) -> list[TokenizedText]:
        """Tokenize some items of a request, the first of which is its item number `start`."""
        read = [_beginning(item, cut, where(start + at)) for at, item in enumerate(items)]
        whole = self._tokenizer.encode(read)
        for at, (item, text) in enumerate(zip(items, whole, strict=True)):
            if item != read[at] and len(text.ids) <= self.recipe.max_tokens:
                # It begins with white space, and what follows counts.
                raise too_large(item if isinstance(item, str) else max(item, key=len), where(start + at))
        if cut:
            return self._tokenizer.cut(read, whole, cut)
        for at, text in enumerate(whole):
            if len(text.ids) > self.recipe.max_tokens:
                place = where(start + at)
                pair = "" if isinstance(items[at], str) else " with the text it is paired with"
                raise TooLong(
                    f"{place}{pair} has {text.full_length} tokens and reranker {self.name!r} takes "
                    f'{self.recipe.max_tokens}. Send "truncate": true to score what fits, or split the text.',
                    where=place,
                    length=text.full_length,
                    limit=self.recipe.max_tokens,
                )
        return whole


def _beginning(item: Item, cut: Cut, where: Place) -> Item:
    """Return what is tokenized of an item; raises `TooLarge`."""
    if isinstance(item, str):
        return beginning(item, cut, where)
    return beginning(item[0], cut, where), beginning(item[1], cut, where)


def _logits(scores: Tensor, mask: Tensor, ids: Tensor) -> Sequence[Any]:
    """Scores (rows, 1, labels) -> a row of logits each."""
    return list(scores[:, 0].float().numpy().copy())


def _through(activation: nn.Module, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = activation(torch.from_numpy(logits)).numpy()
    return found
