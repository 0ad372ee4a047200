"""Encoder, pooler and head as one: texts in, vectors out, under a fingerprint."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pooling.masks import exclude_prefix
from service.encoder import Encoder, Finish, Side, TokenizedText
from service.encoder.tokenizer import FEW
from service.errors import InvalidInput, ServiceError, TooLong, did_you_mean, shortened
from service.recipe import Recipe

Vectors = NDArray[np.float32]
Inputs = Sequence[str] | Sequence[Sequence[int]]
Role = Literal["query", "document"]

# The names that sentence-transformers' encode_query and encode_document look for.
_ROLE_PROMPTS: Final[Mapping[Role, tuple[str, ...]]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
# Tokenizing uses all cores by itself. A second thread is for what one huge text would keep waiting.
_TOKENIZING: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenizer")
_PART: Final = 16_384
"""Characters, or token ids, of a request that are tokenized without a break: some milliseconds of work."""
_SHORT: Final = 2_048
"""Characters, or token ids, that take less time than handing them to another thread and back may."""


class BrokenModel(ServiceError):
    """The model gave a vector that is not finite."""

    status = 500
    title = "Broken model"
    code = "broken_model"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors (texts, dim), and how many tokens the encoder read for them."""

    vectors: Vectors
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenStates:
    """One text's states (tokens, dim), its tokens, and where in the text each stands (None: nowhere)."""

    tokens: list[str]
    offsets: tuple[tuple[int, int] | None, ...]
    states: Vectors


class Embedder:
    """One way to turn a text into a vector: an encoder, which others may share, and a recipe for its states."""

    def __init__(self, encoder: Encoder, recipe: Recipe) -> None:
        self.encoder = encoder
        self.recipe = recipe
        self.name = recipe.name
        self.pooler = recipe.pooler.eval()
        self.head = recipe.head
        self.normalize = recipe.normalize
        self.max_tokens = recipe.max_tokens
        self.prompts = recipe.prompts
        self.include_prompt = recipe.include_prompt
        self.default_prompt = recipe.default_prompt
        self.truncate_dim = recipe.truncate_dim

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return min(self.head.output_dim, self.truncate_dim or self.head.output_dim)

    @cached_property
    def fingerprint_parts(self) -> dict[str, Any]:
        """Everything that changes a vector, by name. Precision is none of it."""
        return {
            "encoder": self.encoder.fingerprint,
            "tokenizer": self.encoder.tokenizer.fingerprint(),
            "max_tokens": self.max_tokens,
            "pooling": self.pooler.spec,
            "pooling_parameters": self.pooler.fingerprint(),
            "head": self.head.fingerprint(),
            "normalize": self.normalize,
            "truncate_dim": self.truncate_dim,
            "prompts": dict(self.prompts),
            "default_prompt": self.default_prompt,
            "include_prompt": self.include_prompt,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over `fingerprint_parts`."""
        parts = json.dumps(self.fingerprint_parts, sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def prompt(self, name: str | None, role: Role | None = None) -> str:
        """The text of a prompt: the one named, else the one for a role, else, where no role is given, the default.

        A role without a prompt of its own has none: the default one may be that of the other role.

        Raises:
            InvalidInput: no prompt has this name.

        """
        if name is not None:
            if name not in self.prompts:
                known = ", ".join(map(repr, self.prompts)) or "none"
                raise InvalidInput(
                    f"model {self.name!r} has no prompt {shortened(name)}; it has {known}."
                    f"{did_you_mean(name, self.prompts)}",
                    where="prompt_name",
                )
            return self.prompts[name]
        candidates = _ROLE_PROMPTS[role] if role else (self.default_prompt or "",)
        return next((self.prompts[candidate] for candidate in candidates if candidate in self.prompts), "")

    async def embed(
        self,
        inputs: Inputs,
        *,
        prompt_name: str | None = None,
        role: Role | None = None,
        truncate: Side | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        where: Callable[[int], str] = "inputs[{}]".format,
    ) -> Embeddings:
        """Embed texts, or token ids, which are taken as they are, without a prompt.

        Args:
            inputs: texts, or for each text its token ids.
            prompt_name: the prompt to use instead of the default one.
            role: what the texts are for, to choose a prompt where none is named.
            truncate: the side at which a text that is too long is cut; refused where None.
            normalize: overrides the model's own setting.
            dimensions: keep only this many leading dimensions, normalised anew.
            where: names an input by its place, for errors.

        Raises:
            InvalidInput: an input has no token, or an argument is out of range.
            TooLong: a text is longer than the model takes and `truncate` is None.
            Unavailable: the queue is full.

        """
        if dimensions is not None and not 1 <= dimensions <= self.dim:
            raise InvalidInput(
                f"dimensions must be from 1 to {self.dim} for model {self.name!r}, not {dimensions}.",
                where="dimensions",
            )
        prompt = self.prompt(prompt_name, role)
        texts = await self._tokenize(inputs, prompt, truncate, where)
        finish = _Finish(
            self,
            skip=self._skip(prompt, inputs),
            normalize=self.normalize if normalize is None else normalize,
            dimensions=dimensions,
        )
        vectors = await self._run(texts, finish)
        stacked = np.stack(vectors) if vectors else np.empty((0, dimensions or self.dim), np.float32)
        return Embeddings(stacked, sum(len(text.ids) for text in texts))

    async def token_states(
        self,
        inputs: Sequence[str],
        *,
        prompt_name: str | None = None,
        truncate: Side | None = None,
        max_total: int,
        where: Callable[[int], str] = "inputs[{}]".format,
    ) -> list[TokenStates]:
        """The encoder's states of each text, before pooling; arguments and errors as for `embed`.

        Args:
            max_total: most tokens of all texts together, since states are large.

        """
        texts = await self._tokenize(inputs, self.prompt(prompt_name), truncate, where, offsets=True)
        total = sum(len(text.ids) for text in texts)
        if total > max_total:
            raise TooLong(
                f"the inputs have {total} tokens together; token states are given for {max_total} at once. "
                "Send fewer texts a request.",
                length=total,
                limit=max_total,
            )
        states = await self._run(texts, _all_states)
        words = self.encoder.tokenizer.tokens
        return [
            TokenStates(words(text.ids), text.offsets, state[: len(text.ids)])
            for text, state in zip(texts, states, strict=True)
        ]

    def finish(self) -> Finish:
        """From states and mask to vectors, as `embed` gives them: what `pass_over` takes."""
        return _Finish(self, skip=0, normalize=self.normalize, dimensions=None)

    async def pass_over(
        self,
        inputs: Sequence[str],
        finish: Finish,
        *,
        role: Role | None = None,
        where: Callable[[int], str] = "inputs[{}]".format,
    ) -> list[Any]:
        """What `finish` makes of the encoder's states, one result a text; one that is too long is cut at the right.

        Args:
            inputs: texts.
            finish: from states (rows, time, dim) and mask (rows, time), false for padding and where a prompt is
                left out of pooling, to one result a row. Called in a stream's thread, several rows at once.
            role: what the texts are for, to choose a prompt.
            where: names an input by its place, for errors.

        Raises:
            InvalidInput: a text has no token.
            Unavailable: the queue is full.

        """
        prompt = self.prompt(None, role)
        texts = await self._tokenize(inputs, prompt, "right", where)
        return await self._run(texts, _Unprompted(finish, self._skip(prompt, inputs)))

    async def _run(self, texts: Sequence[TokenizedText], finish: Finish) -> list[Any]:
        return await asyncio.wrap_future(self.encoder.batcher.submit([text.ids for text in texts], finish))

    def _skip(self, prompt: str, inputs: Inputs) -> int:
        """How many tokens at the front of each text are left out of pooling."""
        if self.include_prompt or not prompt or not inputs or not isinstance(inputs[0], str):
            return 0
        return self.encoder.tokenizer.prompt_length(prompt)

    async def _tokenize(
        self,
        inputs: Inputs,
        prompt: str,
        truncate: Side | None,
        where: Callable[[int], str],
        *,
        offsets: bool = False,
    ) -> list[TokenizedText]:
        texts: list[TokenizedText] = []
        for place, text in enumerate(inputs):
            if isinstance(text, str):
                _check_text(text, place, where)
            else:
                prompt = ""
        for start, part, size in _parts(inputs):
            work = partial(self._tokenize_part, start, part, prompt, truncate, where, offsets)
            if size + len(part) * len(prompt) <= _SHORT and len(part) <= FEW:
                texts += work()
            else:
                texts += await asyncio.get_running_loop().run_in_executor(_TOKENIZING, work)
        if prompt and (length := self.encoder.tokenizer.framed_length(prompt)) >= self.max_tokens:
            raise InvalidInput(
                f"the prompt {prompt!r} has {length} tokens and model {self.name!r} takes "
                f"{self.max_tokens}, which leaves none for the text. Use a shorter prompt.",
                where="prompt_name",
            )
        return texts

    def _tokenize_part(
        self,
        start: int,
        inputs: Inputs,
        prompt: str,
        truncate: Side | None,
        where: Callable[[int], str],
        offsets: bool,
    ) -> list[TokenizedText]:
        """Tokenize some inputs, of which the first is at `start` in the request."""
        tokenizer = self.encoder.tokenizer
        strings = [text for text in inputs if isinstance(text, str)]
        if strings:
            texts = tokenizer.encode(strings, prompt=prompt, offsets=offsets)
        else:
            texts = [
                tokenizer.frame([token for token in ids if isinstance(token, int)], where(place))
                for place, ids in enumerate(inputs, start)
            ]
        front = tokenizer.prompt_length(prompt) if prompt else 0
        framed_prompt = tokenizer.framed_length(prompt) if prompt else tokenizer.num_special
        for place, text in enumerate(texts):
            # A text may merge into the prompt's last token, so that only asking it alone tells whether it has any.
            swallowed = len(text.ids) <= front and not self.include_prompt
            if swallowed or (len(text.ids) <= framed_prompt and (not prompt or tokenizer.is_blank(strings[place]))):
                raise InvalidInput(
                    f"{where(start + place)} has no token that this model knows, so there is nothing to embed. "
                    "Send a text with words in it, or leave this one out.",
                    where=where(start + place),
                )
            if len(text.ids) > self.max_tokens:
                texts[place] = self._shorten(text, truncate, where(start + place), front)
        return texts

    def _shorten(self, text: TokenizedText, side: Side | None, where: str, front: int) -> TokenizedText:
        if side is None:
            raise TooLong(
                f"{where} has {text.full_length} tokens and model {self.name!r} takes {self.max_tokens}. Send "
                '"truncate": true to embed the beginning alone, or split the text.',
                where=where,
                length=text.full_length,
                limit=self.max_tokens,
            )
        return self.encoder.tokenizer.truncate(text, self.max_tokens, side, front=front)


@dataclass(frozen=True)
class _Finish:
    """From states to vectors. Equal ones share a call, so it compares by value, its embedder by identity."""

    embedder: Embedder
    skip: int
    normalize: bool
    dimensions: int | None

    def __call__(self, states: Tensor, mask: Tensor) -> Sequence[Vectors]:
        """States (rows, time, dim) and mask (rows, time) -> vectors (rows, dimensions)."""
        if self.skip:
            mask = exclude_prefix(mask, self.skip)
        head = self.embedder.head
        vectors = head(self.embedder.pooler(states, mask))
        if self.dimensions is not None:
            vectors = vectors[:, : self.dimensions]
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        if self.dimensions is None and self.embedder.truncate_dim is not None:
            vectors = vectors[:, : self.embedder.truncate_dim]
        if not torch.isfinite(vectors).all():
            raise BrokenModel(
                f"model {self.embedder.name!r} gave a vector that is not finite. Its weights are damaged or it does "
                "not bear this precision; try runtime.precision: fp32."
            )
        found: Vectors = vectors.numpy()
        return list(found)


@dataclass(frozen=True)
class _Unprompted:
    """Leaves the prompt out of what a finish is told to count."""

    finish: Finish
    skip: int

    def __call__(self, states: Tensor, mask: Tensor) -> Sequence[Any]:
        return self.finish(states, exclude_prefix(mask, self.skip) if self.skip else mask)


def _all_states(states: Tensor, mask: Tensor) -> Sequence[Vectors]:
    found: Vectors = states.float().numpy()
    return list(found)


def _parts(inputs: Inputs) -> Iterator[tuple[int, Inputs, int]]:
    """Cut a request where `_PART` is passed: the place of each part, the part, and its size.

    Parts of different requests take turns, so that a large one does not keep a small one waiting.
    """
    start = size = 0
    for place, item in enumerate(inputs):
        size += len(item)
        if size >= _PART or place == len(inputs) - 1:
            yield start, inputs[start : place + 1], size
            start, size = place + 1, 0


def _check_text(text: str, place: int, where: Callable[[int], str]) -> None:
    if not text or text.isspace():
        what = "is empty" if not text else "has nothing but white space"
        raise InvalidInput(
            f"{where(place)} {what}, so there is nothing to embed. Leave it out or send a text.", where=where(place)
        )
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where(place)} is not valid Unicode: {error.reason} at character {error.start}.", where=where(place)
        ) from None
