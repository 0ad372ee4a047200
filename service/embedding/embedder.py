"""Encoder, pooler and head as one: texts in, vectors out, under a fingerprint."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.arrays import Offsets, Vectors
from service.embedding.chunkers import Chunker
from service.embedding.chunking import Mode
from service.embedding.postprocessing import ToVectors, Unprompted, all_states
from service.embedding.recipe import Recipe
from service.embedding.spans import Span, check_amount, checked, offsets_array, trimmed
from service.embedding.windows import MOST_WINDOWED, windows
from service.encoder import Encoder, PostProcess, Side, TokenizedText
from service.encoder.tokenizer import FEW
from service.errors import InvalidInput, Place, TooLarge, TooLong, did_you_mean, shortened

Inputs = Sequence[str] | Sequence[Sequence[int]]
Role = Literal["query", "document"]
T = TypeVar("T")
_Fit = Callable[[TokenizedText, Place, int], TokenizedText]
"""A text too long for the model, its place, and the tokens at its front that stay -> the text as it is used."""

_INPUTS: Final = partial(Place, "inputs")
_SPANS_OF_INPUTS: Final = partial(Place, "spans")

# The names that sentence-transformers' encode_query and encode_document look for.
_ROLE_PROMPTS: Final[Mapping[Role, tuple[str, ...]]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
# Tokenizing uses all cores by itself. A second thread is for what one huge text would keep waiting.
_TOKENIZING: Final = ThreadPoolExecutor(max_workers=2, thread_name_prefix="tokenizer")
_PART: Final = 16_384
"""Characters, or token ids, of a request that are tokenized without a break: some milliseconds of work."""
# Spans are cut and pooled here, one text at a time, while the encoder is at work on the next.
_SPANS: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spans")
_STATES_AT_ONCE: Final = 16_384
"""Tokens of several texts whose states are in memory at once."""
_SHORT: Final = 2_048
"""Characters, or token ids, that take less time than handing them to another thread and back may."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors (texts, dim), and how many tokens the encoder read for them."""

    vectors: Vectors
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenStates:
    """One text's states (tokens, dim), its tokens, and where in the text each stands (None: nowhere).

    The first `left_out` tokens, those of a prompt, take no part in pooling.
    """

    tokens: list[str]
    offsets: tuple[tuple[int, int] | None, ...]
    states: Vectors
    left_out: int


@dataclass(frozen=True, slots=True)
class SpanVectors:
    """The spans of one text, and a vector for each, (spans, dim)."""

    spans: list[Span]
    vectors: Vectors


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
                    where=Place("prompt_name"),
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
        where: Callable[[int], Place] = _INPUTS,
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
        prompt = self.prompt(prompt_name, role)
        post_process = self._to_vectors(self._skip(prompt, inputs), normalize, dimensions)
        texts = await self._tokenize(inputs, prompt, partial(self._shorten, side=truncate), where)
        vectors = await self._run([text.ids for text in texts], post_process)
        stacked = np.stack(vectors) if vectors else np.empty((0, dimensions or self.dim), np.float32)
        return Embeddings(stacked, sum(len(text.ids) for text in texts))

    async def token_states(
        self,
        inputs: Sequence[str],
        *,
        prompt_name: str | None = None,
        truncate: Side | None = None,
        max_total: int,
        where: Callable[[int], Place] = _INPUTS,
    ) -> list[TokenStates]:
        """The encoder's states of each text, before pooling; arguments and errors as for `embed`.

        Args:
            max_total: most tokens of all texts together, since states are large.

        """
        prompt = self.prompt(prompt_name)
        fit = partial(self._shorten, side=truncate)
        texts = await self._tokenize(inputs, prompt, fit, where, offsets=True)
        total = sum(len(text.ids) for text in texts)
        if total > max_total:
            raise TooLong(
                f"the inputs have {total} tokens together; token states are given for {max_total} at once. "
                "Send fewer or shorter texts a request.",
                length=total,
                limit=max_total,
            )
        states = await self._run([text.ids for text in texts], all_states)
        words = self.encoder.tokenizer.tokens
        left_out = self._skip(prompt, inputs)
        return [
            TokenStates(words(text.ids), text.offsets, state[: len(text.ids)], left_out)
            for text, state in zip(texts, states, strict=True)
        ]

    def post_process(self) -> PostProcess:
        """From states and mask to vectors, as `embed` gives them: what `pass_over` takes."""
        return self._to_vectors(0, None, None)

    async def pass_over(
        self,
        inputs: Sequence[str],
        post_process: PostProcess,
        *,
        role: Role | None = None,
        where: Callable[[int], Place] = _INPUTS,
    ) -> list[Any]:
        """Apply `post_process` to the encoder's states, one result a text; one that is too long is cut at the right.

        Args:
            inputs: texts.
            post_process: from states (rows, time, dim) and mask (rows, time), false for padding and where a prompt is
                left out of pooling, to one result a row. Called in a stream's thread, several rows at once.
            role: what the texts are for, to choose a prompt.
            where: names an input by its place, for errors.

        Raises:
            InvalidInput: a text has no token.
            Unavailable: the queue is full.

        """
        prompt = self.prompt(None, role)
        texts = await self._tokenize(inputs, prompt, partial(self._shorten, side="right"), where)
        return await self._run([text.ids for text in texts], Unprompted(post_process, self._skip(prompt, inputs)))

    async def embed_spans(
        self,
        inputs: Sequence[str],
        spans: Chunker | Sequence[Sequence[Sequence[int]]],
        *,
        mode: Mode = "late",
        prompt_name: str | None = None,
        role: Role | None = None,
        truncate: Side | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        most: int,
        where: Callable[[int], Place] = _INPUTS,
        where_span: Callable[[int, int], Place] = _SPANS_OF_INPUTS,
    ) -> list[SpanVectors]:
        """A vector for each span of each text; other arguments and errors as for `embed`.

        Args:
            inputs: texts; for a late chunk of any length up to `MOST_WINDOWED` tokens.
            spans: what cuts the texts, or for each text its spans, in any order.
            mode: `late` pools a span from the states of its whole text, under the strategy and with the head as ever;
                special tokens and the prompt are in no span. `early` embeds a span's characters as a text by itself.
            truncate: the side at which a span is cut that is too long by itself, under `early`.
            most: most spans of all texts together.
            where_span: names a span by its text's place and its own.

        Raises:
            TooLarge: a text has more than `MOST_WINDOWED` tokens, there are more than `most` spans, or they overlap
                so much that they come to more than `MOST_COVERED` characters.

        """
        prompt = self.prompt(prompt_name, role)
        post_process = self._to_vectors(0, normalize, dimensions)
        texts = await self._tokenize(inputs, prompt, self._leave_whole, where, offsets=True)
        offsets = [offsets_array(text.offsets) for text in texts]
        cut = partial(_cut, inputs, offsets, spans, where, where_span)
        found: list[list[Span]] = []
        for start, part, _ in _parts(inputs):
            found += await _with_spans(cut, range(start, start + len(part)))
            check_amount(found, most)
        if mode == "late":
            inner = [trimmed(text, of_text) for text, of_text in zip(inputs, found, strict=True)]
            late = await self._late(texts, offsets, inner, prompt, post_process)
            return [SpanVectors(of_text, vectors) for of_text, vectors in zip(found, late, strict=True)]
        names = [where_span(place, span) for place, of_text in enumerate(found) for span in range(len(of_text))]
        pieces = await self.embed(
            [text[start:end] for text, of_text in zip(inputs, found, strict=True) for start, end in of_text],
            prompt_name=prompt_name,
            role=role,
            truncate=truncate,
            normalize=normalize,
            dimensions=dimensions,
            where=names.__getitem__,
        )
        rows = iter(pieces.vectors)
        return [SpanVectors(of_text, np.stack(list(islice(rows, len(of_text))))) for of_text in found]

    async def _late(
        self,
        texts: Sequence[TokenizedText],
        offsets: Sequence[Offsets],
        spans: Sequence[Offsets],
        prompt: str,
        post_process: ToVectors,
    ) -> list[Vectors]:
        """For each text a vector for each of its spans, (spans, 2), from the states of the whole text."""
        front, back = self.encoder.tokenizer.frame_lengths(prompt)
        vectors: list[Vectors] = []
        for part in _groups([len(text.ids) for text in texts], _STATES_AT_ONCE):
            plans = [windows(len(text.ids), self.max_tokens, front=front, back=back) for text in texts[part]]
            passes = [ids for plan, text in zip(plans, texts[part], strict=True) for ids in plan.cut(text.ids)]
            states = iter(await self._run(passes, all_states))
            for plan, found, characters in zip(plans, offsets[part], spans[part], strict=True):
                of_passes = list(islice(states, len(plan.starts)))
                vectors.append(await _with_spans(post_process.spans, plan, of_passes, found, characters))
        return vectors

    async def _run(self, ids: Sequence[NDArray[np.int64]], post_process: PostProcess) -> list[Any]:
        return await asyncio.wrap_future(self.encoder.batcher.submit(ids, post_process))

    def _to_vectors(self, skip: int, normalize: bool | None, dimensions: int | None) -> ToVectors:
        if dimensions is not None and not 1 <= dimensions <= self.dim:
            raise InvalidInput(
                f"dimensions must be from 1 to {self.dim} for model {self.name!r}, not {dimensions}.",
                where=Place("dimensions"),
            )
        return ToVectors(self, skip, self.normalize if normalize is None else normalize, dimensions)

    def _skip(self, prompt: str, inputs: Inputs) -> int:
        """How many tokens at the front of each text are left out of pooling."""
        if self.include_prompt or not prompt or not inputs or not isinstance(inputs[0], str):
            return 0
        return self.encoder.tokenizer.prompt_length(prompt)

    async def _tokenize(
        self,
        inputs: Inputs,
        prompt: str,
        fit: _Fit,
        where: Callable[[int], Place],
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
            work = partial(self._tokenize_part, start, part, prompt, fit, where, offsets)
            if size + len(part) * len(prompt) <= _SHORT and len(part) <= FEW:
                texts += work()
            else:
                texts += await asyncio.get_running_loop().run_in_executor(_TOKENIZING, work)
        if prompt and (length := self.encoder.tokenizer.framed_length(prompt)) >= self.max_tokens:
            raise InvalidInput(
                f"the prompt {prompt!r} has {length} tokens and model {self.name!r} takes "
                f"{self.max_tokens}, which leaves none for the text. Use a shorter prompt.",
                where=Place("prompt_name"),
            )
        return texts

    def _tokenize_part(
        self,
        start: int,
        inputs: Inputs,
        prompt: str,
        fit: _Fit,
        where: Callable[[int], Place],
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
                texts[place] = fit(text, where(start + place), front)
        return texts

    def _shorten(self, text: TokenizedText, where: Place, front: int, *, side: Side | None) -> TokenizedText:
        if side is None:
            raise TooLong(
                f"{where} has {text.full_length} tokens and model {self.name!r} takes {self.max_tokens}. Send "
                '"truncate": true to embed the beginning alone, or split the text.',
                where=where,
                length=text.full_length,
                limit=self.max_tokens,
            )
        return self.encoder.tokenizer.truncate(text, self.max_tokens, side, front=front)

    def _leave_whole(self, text: TokenizedText, where: Place, _: int) -> TokenizedText:
        if text.full_length > MOST_WINDOWED:
            raise TooLarge(
                f"{where} has {text.full_length} tokens, and spans are embedded of texts with up to {MOST_WINDOWED}. "
                "Split the text, between chapters for example.",
                where=where,
                limit=MOST_WINDOWED,
            )
        return text


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


def _groups(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Neighbours that together have at most `most`, or one that has more alone."""
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and held + size > most:
            yield slice(start, place)
            start, held = place, 0
        held += size
    yield slice(start, len(sizes))


def _cut(
    inputs: Sequence[str],
    offsets: Sequence[Offsets],
    spans: Chunker | Sequence[Sequence[Sequence[int]]],
    where: Callable[[int], Place],
    where_span: Callable[[int, int], Place],
    places: range,
) -> list[list[Span]]:
    """Cut the inputs at some places."""
    found = []
    for place in places:
        text, of_text = inputs[place], offsets[place]
        if isinstance(spans, Chunker):
            found.append(spans(text, of_text))
        else:
            found.append(checked(text, of_text, spans[place], partial(where_span, place)))
        if not found[-1]:
            raise InvalidInput(
                f"{where(place)} has no span to embed; give one that holds a token, or leave the text out.",
                where=where(place),
            )
    return found


async def _with_spans(work: Callable[..., T], *arguments: Any) -> T:
    """Do what takes too long for the event loop on the thread that spans have."""
    return await asyncio.get_running_loop().run_in_executor(_SPANS, partial(work, *arguments))


def _check_text(text: str, place: int, where: Callable[[int], Place]) -> None:
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
