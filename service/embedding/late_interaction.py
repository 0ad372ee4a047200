"""Late interaction by any encoder: texts scored for queries by the states of their tokens, without pooling."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from pooling import masks
from pooling.late_interaction import LOWEST
from service.arrays import Floats
from service.embedding.embedder import Embedder
from service.embedding.postprocessing import ToMaxSim, framed
from service.embedding.prompts import Role
from service.errors import EmptyInput, InvalidInput, Place

_OF_TEXTS: Final = partial(Place, "hits")
_QUERY: Final = Place("query")


class MaxSim:
    """Scores texts by MaxSim over the token states of an embedder's encoder; see `pooling.maxsim`.

    The tokens that count are those of the texts: special tokens and those of prompts do not. A query has the prompt
    for queries and a text the one for documents, and what is too long is cut at the right. The states of queries
    count as held while they are compared; those of the texts never leave their passes.

    Args:
        embedder: whose encoder, prompts and longest text are used; its pooling has no part.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def score(self, query: str, texts: Sequence[str]) -> Floats:
        """Return the score of each text, (texts,), from -1 to 1; -1 where it has no token.

        Raises:
            InvalidInput: the query has no token.
            BrokenModel, Unavailable, DeadlineExceeded: as for `Embedder.embed`.
        """
        async with self.asked([query]) as to_scores:
            return (await self.scored(to_scores, texts))[:, 0]

    @asynccontextmanager
    async def asked(self, queries: Sequence[str]) -> AsyncIterator[ToMaxSim]:
        """Give what compares texts with queries, whose states are held within the `async with` block.

        Raises:
            InvalidInput: the states of queries are not of the size of those of documents; and as `score` does.
        """
        embedder = self._embedder
        sizes = embedder.of("query").encoder.dim, embedder.of("document").encoder.dim
        if sizes[0] != sizes[1]:
            raise InvalidInput(
                f"the token states of model {embedder.name!r} have {sizes[0]} numbers for queries and {sizes[1]} for "
                "documents, since it has a Router, so late interaction cannot compare them. Leave 'rerank' out, or "
                "name a reranker as rerank.model.",
                where=Place("rerank"),
            )
        front, back = self._frame("query")
        most = len(queries) * embedder.of("query").recipe.max_tokens
        held = embedder.token_states(queries, role="query", truncate="right", max_total=most, where=lambda _: _QUERY)
        async with held as found:
            states = pad_sequence([torch.from_numpy(each.states) for each in found], batch_first=True)
            counts = framed(masks.from_lengths([len(each.tokens) for each in found]), front, back)
            yield ToMaxSim(embedder.name, states, counts, *self._frame("document"))

    async def scored(self, to_scores: ToMaxSim, texts: Sequence[str]) -> Floats:
        """Return the score of each text for each query, (texts, queries)."""
        scores = np.full((len(texts), len(to_scores.queries)), LOWEST, np.float32)
        left = [place for place, text in enumerate(texts) if text.strip()]
        while left:
            process = partial(self._embedder.process, role="document", where=_OF_TEXTS)
            try:
                scores[left] = await process([texts[place] for place in left], to_scores)
            except EmptyInput as error:  # of characters for which the tokenizer has nothing
                empty = error.extra["without_tokens"]
                left = [place for at, place in enumerate(left) if at not in empty]
            else:
                break
        return scores

    def _frame(self, role: Role) -> tuple[int, int]:
        """Return how many tokens stand before a text of this role, and how many after it."""
        return self._embedder.of(role).encoder.tokenizer.frame_lengths(self._embedder.prompt(role=role))
