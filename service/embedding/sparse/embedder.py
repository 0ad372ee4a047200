"""A sparse model that is loaded: texts in, weights of its vocabulary's tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from service.embedding.inputs import InputTokenizer, UnknownTokens
from service.embedding.prompts import Purpose
from service.embedding.sparse.recipe import SparseRecipe
from service.embedding.sparse.weights import MOST_WEIGHTS, SparseVector, ToWeights
from service.encoder import Encoder, RowFailed
from service.encoder.reading import Cut, Where
from service.errors import BrokenModel, Place, TooLarge, brief

_INPUTS: Final = partial(Place, "inputs")


@dataclass(frozen=True, slots=True)
class SparseEmbeddings:
    """A vector a text, how many tokens the encoder read for them, and the indices of texts that were cut."""

    vectors: list[SparseVector]
    tokens: int
    truncated: list[int]


class SparseEmbedder:
    """An encoder whose task is weights of tokens, and what is done around it.

    Args:
        encoder: computes a row over the vocabulary a text.
        recipe: what is done before and after.
    """

    def __init__(self, encoder: Encoder, recipe: SparseRecipe) -> None:
        self.encoder = encoder
        self.recipe = recipe
        self.unknown = UnknownTokens()
        self.made = 0
        """Vectors so far."""
        self.active = 0
        """Weights in them."""
        self._inputs = InputTokenizer(encoder.tokenizer, recipe, self.unknown)

    @property
    def name(self) -> str:
        """The model's name in the deployment."""
        return self.recipe.name

    @property
    def dim(self) -> int:
        """The size of the vocabulary."""
        return self.encoder.dim

    def purpose(self, name: str, where: Place) -> tuple[str | None, Purpose | None]:
        """Return the prompt's name or the role that a client means by a purpose, as `InputTokenizer.purpose` does."""
        return self._inputs.purpose(name, where)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        truncate: Cut = None,
        most: int = MOST_WEIGHTS,
        where: Where = _INPUTS,
    ) -> SparseEmbeddings:
        """Embed texts.

        Args:
            texts: the texts.
            prompt_name: name of the prompt to use instead of the default one.
            role: what the texts are for, to choose a prompt if none is named.
            truncate: the side at which a text that is too long is cut; False refuses it, None does as configured.
            most: most weights of all texts together.
            where: gives the place of a text, for errors.

        Raises:
            InvalidInput: a text has no token, or no prompt has this name.
            TooLong: a text is longer than the model takes and is not to be cut.
            TooLarge: there are more weights than `most`.
            BrokenModel: the encoder failed on a text, or gave a weight that is no finite number.
            Unavailable: the queue is full, which is known before anything is tokenized.
            DeadlineExceeded: the request that this is for had no more time.
        """
        prompt = self._inputs.prompt(prompt_name, role)
        to_weights = ToWeights(self.recipe.declared.most_active, most)
        with self.encoder.batcher.room(self._inputs.estimate(texts, prompt)) as room:
            read = await self._inputs.tokenize(texts, prompt, self._inputs.cut_at(truncate), where)
            try:
                vectors = await self.encoder.batcher.run([text.ids for text in read], to_weights, room)
            except RowFailed as failed:
                failure = brief(failed.reason, 200)
                raise BrokenModel(self.name, where=where(failed.index), failure=failure) from failed.reason
        if to_weights.count > most:
            raise TooLarge(
                f"the texts have {to_weights.count} weights above 0 together; {most} are given at once. Send fewer "
                "texts.",
                where=Place(where(0).field),
                limit=most,
            )
        for place, vector in enumerate(vectors):
            if not np.isfinite(vector.values).all():
                raise BrokenModel(self.name, where=where(place), failure="with a weight that is not finite")
        self.made += len(vectors)
        self.active += to_weights.count
        truncated = [place for place, text in enumerate(read) if text.full_length > len(text.ids)]
        return SparseEmbeddings(vectors, sum(len(text.ids) for text in read), truncated)
