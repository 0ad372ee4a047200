"""An encoder and a recipe for its states as one: texts in, vectors out, under a fingerprint."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, Final, Self

import numpy as np
from rich.console import Console
from rich.progress import Progress

from pooling import EmptyTextError, PoolingError
from pooling.layers import LayerStates
from service.arrays import Ids, Vectors
from service.checkpoint import Routes
from service.config import Config, make_config
from service.embedding import bulk, fingerprint, late
from service.embedding.chunking import Mode
from service.embedding.inputs import AsItIs, Fit, Inputs, InputTokenizer, UnknownTokens, Windowed
from service.embedding.late import Spans, WhereSpan
from service.embedding.loading import Branch, load, require_equal_sizes
from service.embedding.postprocessing import ToEachVector, ToStates, ToVectors, WithoutPrompt
from service.embedding.prompts import Purpose, Role, role_of_prompt
from service.embedding.recipe import Recipe, Spec
from service.embedding.spans import Span, offsets_array
from service.encoder import Encoder, Encoders, PostProcess, Room, RowFailed, TokenizedText
from service.encoder.reading import MOST_CHARACTERS, Cut, Where
from service.errors import BrokenModel, InvalidInput, Place, TooLong, brief, shortened
from service.process import prepare_process

_INPUTS: Final = partial(Place, "inputs")
_SPANS_OF_INPUTS: Final = partial(Place, "spans")
_BLOCK: Final = 128
"""Texts that `run` queues at a time: enough to group their lengths, few enough to show progress."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors (texts, dim), how many tokens the encoder read for them, and the indices of texts that were cut."""

    vectors: Vectors
    tokens: int
    truncated: list[int]


@dataclass(frozen=True, slots=True)
class TokenStates:
    """The states (tokens, dim) of one text, its tokens and their ids (tokens,), and the offsets of each in the text.

    A token that stands for no character has the offsets None.

    The first `left_out` tokens, those of a prompt, take no part in pooling. `truncated` says that the text was cut.
    `padding` are the states of padding tokens behind the text, (padding tokens, dim): none, unless asked for.
    """

    tokens: list[str]
    ids: Ids
    offsets: tuple[tuple[int, int] | None, ...]
    states: Vectors
    left_out: int
    truncated: bool
    padding: Vectors


@dataclass(frozen=True, slots=True)
class SpanVectors:
    """The spans of one text, a vector for each, (spans, dim), and the indices of spans that were cut."""

    spans: list[Span]
    vectors: Vectors
    truncated: list[int]


class Embedder:
    """An encoder, which other embedders may share, and a recipe for its states.

    The unknown tokens of its texts are counted in `unknown`, and its vectors by the name of the pooling in `made`,
    which several may share too.

    `load` makes one without a server. `encode` waits for its vectors; the coroutines are for many requests at once.
    """

    def __init__(
        self,
        encoder: Encoder,
        recipe: Recipe,
        unknown: UnknownTokens | None = None,
        made: Counter[str] | None = None,
    ) -> None:
        self.encoder = encoder
        self.recipe = recipe
        self.unknown = unknown or UnknownTokens()
        self.made: Counter[str] = Counter() if made is None else made
        self._inputs = InputTokenizer(encoder.tokenizer, recipe, self.unknown)
        self._uncounted = InputTokenizer(encoder.tokenizer, recipe, UnknownTokens())

    @classmethod
    def load(
        cls,
        encoder: str,
        *,
        pooling: Spec = "declared",
        runtime: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Embedder:
        """Load a model from its name alone; use it in a `with` block, or close it in the end.

        Args:
            encoder: `bundled/NAME`, a folder, or a Hugging Face id.
            pooling: a pooling such as `"cls"` or `"mean + max"`; by default what the checkpoint declares.
            runtime: the section `runtime` of a config file, such as `{"backend": "torch", "precision": "fp32"}`.
            settings: further settings of a model in a config file: `layers`, `normalize`, `max_tokens`, `prompts`,
                `revision`, `trust_remote_code`.

        Raises:
            ConfigError, CheckpointError: naming the setting or file, and the remedy.
        """
        prepare_process()
        model = {"encoder": encoder, "pooling": pooling, **settings}
        config = make_config({"models": {"default": model}, "runtime": runtime or {}}, "Embedder.load", env={})
        encoders = Encoders()
        try:
            return cls.of_config("default", config, encoders)
        except BaseException:
            encoders.close()
            raise

    @staticmethod
    def of_config(name: str, config: Config, encoders: Encoders) -> Embedder:
        """Load the model of this name in a config; arguments and errors as for `loading.load`."""
        found = load(name, config, encoders)
        return RoutedEmbedder.of_branches(found) if isinstance(found, Routes) else Embedder(*found)

    def close(self) -> None:
        """Stop the encoder's queue, for every embedder that shares the encoder."""
        self.encoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The model's name in the deployment."""
        return self.recipe.name

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return self.recipe.dim

    @property
    def routes(self) -> Mapping[str, Embedder]:
        """The embedder of each route by name, where the model has a Router; else none."""
        return {}

    @property
    def declared(self) -> bool:
        """Whether the pooling is the one that the checkpoint declares."""
        return self.recipe.declared

    @property
    def warnings(self) -> list[str]:
        """What an operator should know, in sentences."""
        return list(self.recipe.warnings)

    def of(self, role: Purpose | None = None, prompt_name: str | None = None) -> Embedder:
        """Return the embedder of texts of a role, or of texts of which it is not said: itself, unless it has routes.

        Raises:
            InvalidInput: it has routes, and none for what is said of the texts.
        """
        return self

    def require_one_route(self, what: str) -> None:
        """Raise `InvalidInput` if the model has routes; `what` is what is done with one encoder alone."""

    def changed(self, change: Callable[[Embedder], Recipe]) -> Embedder:
        """Return an embedder with the same encoder and what `change` makes of its recipe."""
        return Embedder(self.encoder, change(self), self.unknown, self.made)

    def prompt(self, name: str | None = None, role: Purpose | None = None) -> str:
        """Return the text of the prompt that a request chooses by name or role, as `InputTokenizer.prompt` does."""
        return self._inputs.prompt(name, role)

    def purpose(self, name: str, where: Place) -> tuple[str | None, Purpose | None]:
        """Return the prompt's name or the role that a client means by a purpose, as `InputTokenizer.purpose` does."""
        return self._inputs.purpose(name, where)

    @cached_property
    def fingerprint_parts(self) -> dict[str, Any]:
        """Everything that changes a vector, by name; the encoder's precision is left out on purpose."""
        return fingerprint.parts(self.encoder, self.recipe)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits over `fingerprint_parts`."""
        return fingerprint.digest(self.fingerprint_parts)

    def changes_since(self, older: str, texts: Callable[[], Iterable[str]]) -> list[str] | None:
        """Say what has changed since a fingerprint of an older scheme; as `fingerprint.changes` does."""
        return fingerprint.changes(self.encoder, self.recipe, older, texts)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        role: Role | None = None,
        batch_size: int = _BLOCK,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Vectors:
        """Embed any number of texts and wait for their vectors, as sentence-transformers' method of this name does.

        Texts that are too long are cut at the right. Several threads may call it at once; in a coroutine, which it
        would block, use `embed`.

        Args:
            texts: one text or several.
            prompt_name: name of the prompt put before each text; by default the model's default prompt.
            prompt: the prompt itself, instead of a name.
            role: what the texts are for, to choose a prompt if none is given.
            batch_size: texts that are queued at a time; batches of the encoder are made of them by their length.
            show_progress_bar: whether progress is shown on standard error.
            normalize_embeddings: normalise the vectors even if the model does not.
            truncate_dim: keep only this many leading dimensions; as the model declares by default.

        Returns:
            (texts, dim), or (dim,) for a single text given as a string.

        Raises:
            InvalidInput: a text is no string or has no token, no prompt has this name, or a number is out of range.
        """
        listed = [texts] if isinstance(texts, str) else list(texts)
        for index, text in enumerate(listed):
            if not isinstance(text, str):
                raise InvalidInput(f"texts[{index}] is {shortened(text)}; give strings.", where=Place("texts", index))
        if batch_size < 1:
            raise InvalidInput(f"batch_size must be 1 or more, not {batch_size}.", where=Place("batch_size"))
        recipe = self.recipe
        if truncate_dim is not None:
            _check_dimensions(recipe, truncate_dim, recipe.head.output_dim, "truncate_dim")
            recipe = replace(recipe, truncate_dim=truncate_dim)
        if prompt is None:
            prompt = self.prompt(prompt_name, role)
        # Like sentence-transformers, normalise what truncation leaves.
        dimensions = recipe.truncate_dim if normalize_embeddings else None
        to_vectors = ToVectors(recipe, normalize_embeddings or recipe.normalize, dimensions)
        vectors = np.empty((len(listed), recipe.dim), np.float32)
        with Progress(console=Console(stderr=True), disable=not show_progress_bar) as bar:
            advance = partial(bar.advance, bar.add_task("texts", total=len(listed)))
            found = self.run(listed, to_vectors, prompt=prompt, batch_size=batch_size, advance=advance)
            for place, vector in enumerate(found):
                vectors[place] = vector
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_query(self, texts: str | Sequence[str], **options: Any) -> Vectors:
        """Embed queries; arguments and errors as for `encode`."""
        return self.encode(texts, role="query", **options)

    def encode_document(self, texts: str | Sequence[str], **options: Any) -> Vectors:
        """Embed documents; arguments and errors as for `encode`."""
        return self.encode(texts, role="document", **options)

    def run(
        self,
        texts: Sequence[str],
        post_process: PostProcess,
        *,
        prompt: str = "",
        layers: LayerStates | None = None,
        poolings: Sequence[Recipe] = (),
        truncate: Cut = "right",
        batch_size: int = _BLOCK,
        advance: Callable[[int], object] = lambda _: None,
    ) -> Iterator[Any]:
        """Run any number of texts through the encoder, and yield what is made of the states of each, in order.

        Args:
            texts: the texts.
            post_process: from states (rows, time, dim) and mask (rows, time), which is false for padding and for a
                prompt that is not pooled, to one result per row. Called in the encoder's threads.
            prompt: put before each text.
            layers: whose states `post_process` is given; by default those that the recipe pools.
            poolings: what `post_process` pools by beside the recipe, for which each text must have what it takes.
            truncate: the side at which a text that is too long is cut; None does as configured, False refuses it.
            batch_size: texts that are queued at a time.
            advance: called with the number of further texts that are done.

        Raises:
            InvalidInput, Unavailable: a text has no token, or the encoder is closed.
            TooLong: a text is longer than the model takes and is not to be cut.
        """

        def tokenize(places: range) -> list[Ids]:
            def where(place: int) -> Place:
                index = places[place]
                return Place("texts", index, name=f"the text {shortened(texts[index])}")

            block = texts[places.start : places.stop]
            found = self._inputs.tokenize_here(block, prompt, self._inputs.cut_at(truncate), where)
            for recipe in (self.recipe, *poolings):
                self._require_pooled(found, prompt, where, recipe)
            return [text.ids for text in found]

        unprompted = WithoutPrompt(post_process, self._inputs.unpooled(prompt))
        return bulk.run(
            self.encoder.batcher,
            len(texts),
            tokenize,
            unprompted,
            layers or self.recipe.layers,
            block=batch_size,
            advance=advance,
        )

    async def embed(
        self,
        inputs: Inputs,
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        truncate: Cut = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        where: Where = _INPUTS,
    ) -> Embeddings:
        """Embed texts, or token ids, which are taken as they are, without a prompt.

        Args:
            inputs: texts, each as it is written or as its token ids in the model's own tokenizer.
            prompt_name: name of the prompt to use instead of the default one.
            role: what the texts are for, to choose a prompt if none is named.
            truncate: the side at which a text that is too long is cut; False refuses it, None does as configured.
            normalize: overrides the model's own setting.
            dimensions: keep only this many leading dimensions, normalised anew.
            where: gives the place of an input, for errors.

        Raises:
            InvalidInput: an input has no token, or an argument is out of range.
            TooLong: a text is longer than the model takes and is not to be cut.
            Unavailable: the queue is full, which is known before anything is tokenized.
            DeadlineExceeded: the request that this is for had no more time.
        """
        prompt = self.prompt(prompt_name, role)
        written = [place for place, item in enumerate(inputs) if isinstance(item, str)]
        if prompt and len(written) < len(inputs):
            if written:
                options: dict[str, Any] = {"prompt_name": prompt_name, "role": role, "truncate": truncate}
                embed = partial(self.embed, normalize=normalize, dimensions=dimensions, **options)
                return await _apart(embed, inputs, written, where)
            prompt = ""
        to_vectors = WithoutPrompt(self._to_vectors(normalize, dimensions), self._inputs.unpooled(prompt))
        with self.encoder.batcher.room(self._inputs.estimate(inputs, prompt)) as room:
            texts = await self._inputs.tokenize(inputs, prompt, self._inputs.cut_at(truncate), where)
            self._require_pooled(texts, prompt, where)
            vectors = await self._run([text.ids for text in texts], to_vectors, where, room)
            self.made[self.recipe.pooler.name] += len(vectors)
        stacked = np.stack(vectors) if vectors else np.empty((0, dimensions or self.dim), np.float32)
        return Embeddings(stacked, sum(len(text.ids) for text in texts), _truncated(texts))

    async def embed_under(
        self,
        texts: Sequence[str],
        others: Sequence[Recipe],
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        truncate: Cut = None,
        where: Where = _INPUTS,
    ) -> list[Vectors]:
        """Embed texts under its own pooling and under others, in one pass of the encoder.

        Args:
            others: recipes of the same encoder, layers and prompts, with other poolings.

        The other arguments and errors are as for `embed`.

        Returns:
            (texts, dim) of its own pooling, then of each other one.
        """
        recipes = (self.recipe, *others)
        prompt = self.prompt(prompt_name, role)
        to_vectors = WithoutPrompt(ToEachVector(tuple(map(ToVectors, recipes))), self._inputs.unpooled(prompt))
        with self.encoder.batcher.room(self._inputs.estimate(texts, prompt)) as room:
            found = await self._inputs.tokenize(texts, prompt, self._inputs.cut_at(truncate), where)
            for recipe in recipes:
                self._require_pooled(found, prompt, where, recipe)
            rows = await self._run([text.ids for text in found], to_vectors, where, room)
        for recipe in recipes:
            self.made[recipe.pooler.name] += len(texts)
        return [np.stack(vectors) for vectors in zip(*rows, strict=True)]

    async def process(
        self, texts: Sequence[str], post_process: PostProcess, *, role: Role, where: Where = _INPUTS
    ) -> list[Any]:
        """Run texts through the encoder, and return what is made of the states of each, as `run` does for one caller.

        Texts that are too long are cut at the right; other errors are as for `embed`.

        Args:
            texts: the texts, which get the prompt of `role`.
            post_process: from states (rows, time, dim), mask and ids (rows, time), the mask false for padding alone,
                to one result per row. Called in the encoder's threads.
            role: what the texts are for.
            where: gives the place of a text, for errors.
        """
        prompt = self.prompt(role=role)
        with self.encoder.batcher.room(self._inputs.estimate(texts, prompt)) as room:
            found = await self._inputs.tokenize(texts, prompt, self._inputs.cut_at("right"), where)
            return await self._run([text.ids for text in found], post_process, where, room)

    @asynccontextmanager
    async def token_states(
        self,
        inputs: Inputs,
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        truncate: Cut = None,
        max_total: int,
        where: Where = _INPUTS,
        padding: Sequence[int] = (),
        where_all: Place | None = None,
    ) -> AsyncIterator[list[TokenStates]]:
        """Give the states of each text, before pooling; arguments and errors as for `embed`.

        They are those of the model's layers. Their memory counts as held within the `async with` block; where there
        is none left, this waits.

        Args:
            max_total: most tokens of all texts together, padding included, since states are large.
            padding: of each text, how many padding tokens are computed behind it, as far as the model's longest text
                has room for them; none by default.
            where_all: the place that an error of too many tokens names.
        """
        prompt = self.prompt(prompt_name, role)
        asked = padding or (0,) * len(inputs)
        with self.encoder.batcher.room(self._inputs.estimate(inputs, prompt) + sum(asked)) as room:
            texts = await self._with_offsets(inputs, prompt, self._inputs.cut_at(truncate), where)
            most = self.recipe.max_tokens
            added = [min(count, most - len(text.ids)) for count, text in zip(asked, texts, strict=True)]
            total = sum(len(text.ids) for text in texts) + sum(added)
            if total > max_total:
                raise TooLong(
                    f"the inputs have {total} tokens together; token states are given for {max_total} at once. "
                    "Send fewer or shorter texts a request.",
                    where=where_all,
                    length=total,
                    limit=max_total,
                )
            async with self.encoder.hold_states(total):
                states = await self._run([text.ids for text in texts], ToStates(self.name), where, room, added)
                words, unpooled = self.encoder.tokenizer.tokens, self._inputs.unpooled(prompt)
                yield [
                    TokenStates(
                        words(text.ids),
                        text.ids,
                        text.offsets or (None,) * len(text.ids),
                        state[: len(text.ids)],
                        unpooled if isinstance(item, str) else 0,
                        text.full_length > len(text.ids),
                        state[len(text.ids) : len(text.ids) + behind],
                    )
                    for item, text, state, behind in zip(inputs, texts, states, added, strict=True)
                ]

    async def _with_offsets(self, inputs: Inputs, prompt: str, fit: Fit, where: Where) -> list[TokenizedText]:
        """Tokenize texts after the prompt, and frame token ids, which have neither a prompt nor offsets."""
        found: dict[int, TokenizedText] = {}
        for kind, before in ((str, prompt), (Sequence, "")):
            group = [place for place, item in enumerate(inputs) if isinstance(item, kind) and place not in found]
            places = list(map(where, group))
            some = [inputs[place] for place in group]
            texts = await self._inputs.tokenize(some, before, fit, places.__getitem__, offsets=True)
            found |= zip(group, texts, strict=True)
        return [found[place] for place in range(len(inputs))]

    async def embed_spans(
        self,
        inputs: Sequence[str],
        spans: Spans,
        *,
        mode: Mode = "late",
        prompt_name: str | None = None,
        role: Purpose | None = None,
        truncate: Cut = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        most: int,
        where: Where = _INPUTS,
        where_span: WhereSpan = _SPANS_OF_INPUTS,
    ) -> list[SpanVectors]:
        """Embed the spans of texts; other arguments and errors as for `embed`.

        Args:
            inputs: texts, under `late` of up to `MOST_WINDOWED` tokens, longer than the model takes.
            spans: a chunker that cuts the texts, or for each text its spans, in any order.
            mode: `late` pools a span from the states of its whole text, with the model's pooling and head; special
                tokens and the prompt are in no span. `early` embeds a span's characters as a text of its own.
            truncate: under `early`, the side at which a span that is too long is cut.
            most: most spans of all texts together.
            where_span: gives the place of a span.

        Raises:
            TooLarge: a text has more than `MOST_WINDOWED` tokens, there are more than `most` spans, or they overlap
                so much that they have more than `MOST_COVERED` characters together.
        """
        if mode == "late":
            self.require_late()
        prompt = self.prompt(prompt_name, role)
        to_vectors = self._to_vectors(normalize, dimensions)
        with self.encoder.batcher.room(self._inputs.estimate(inputs, prompt)) as room:
            texts = await self._inputs.tokenize(inputs, prompt, Windowed(), where, offsets=True)
            offsets = [offsets_array(text.offsets) for text in texts]
            found = await late.cut(inputs, offsets, spans, most, where, where_span, at_once=self._at_once(prompt))
            if mode == "late":
                with self._named(where):
                    run = partial(self.encoder.batcher.run, room=room, layers=self.recipe.layers)
                    vectors = await late.pool_late(
                        self.encoder, run, to_vectors, inputs, texts, offsets, found, prompt
                    )
                self.made[self.recipe.pooler.name] += sum(map(len, found))
                return [SpanVectors(*each, []) for each in zip(found, vectors, strict=True)]
        pieces = await self.embed(
            _pieces(inputs, found),
            prompt_name=prompt_name,
            role=role,
            truncate=truncate,
            normalize=normalize,
            dimensions=dimensions,
            where=_places(found, where_span),
        )
        rows, cut = iter(enumerate(pieces.vectors)), set(pieces.truncated)
        embedded = []
        for of_text in found:
            places, vectors_of_text = zip(*islice(rows, len(of_text)), strict=True)
            truncated = [place - places[0] for place in places if place in cut]
            embedded.append(SpanVectors(of_text, np.stack(vectors_of_text), truncated))
        return embedded

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        where: Where = _INPUTS,
    ) -> list[TokenizedText]:
        """Return the whole texts as the encoder reads them, with offsets; arguments and errors as for `embed`."""
        prompt = self.prompt(prompt_name, role)
        return await self._uncounted.tokenize(texts, prompt, AsItIs(), where, offsets=True)

    async def decode(self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool, where: Where) -> list[str]:
        """Return the texts of token ids; raises `InvalidTokenIds` if one is outside the vocabulary."""
        return await self._uncounted.decode(ids, where, skip_special_tokens=skip_special_tokens)

    async def check(
        self, inputs: Sequence[str], *, role: Role | None = None, truncate: Cut = None, where: Where = _INPUTS
    ) -> None:
        """Raise what `embed` would because of its inputs, and embed nothing."""
        prompt = self.prompt(role=role)
        texts = await self._uncounted.tokenize(inputs, prompt, self._inputs.cut_at(truncate), where)
        self._require_pooled(texts, prompt, where)

    async def check_spans(
        self,
        inputs: Sequence[str],
        spans: Spans,
        *,
        mode: Mode = "late",
        role: Role | None = None,
        truncate: Cut = None,
        most: int,
        where: Where = _INPUTS,
        where_span: WhereSpan = _SPANS_OF_INPUTS,
    ) -> None:
        """Raise what `embed_spans` would because of its inputs and their spans, and embed nothing."""
        if mode == "late":
            self.require_late()
        prompt = self.prompt(role=role)
        texts = await self._uncounted.tokenize(inputs, prompt, Windowed(), where, offsets=True)
        offsets = [offsets_array(text.offsets) for text in texts]
        found = await late.cut(inputs, offsets, spans, most, where, where_span, at_once=self._at_once(prompt))
        if mode == "early":
            places = _places(found, where_span)
            await self.check(_pieces(inputs, found), role=role, truncate=truncate, where=places)

    def reads_at_once(self, span: str) -> bool:
        """Return whether a span of a document is surely no longer than what the encoder reads at once."""
        if len(span) > MOST_CHARACTERS:
            return False
        most = self._at_once(self.prompt(role="document"))
        tokenizer = self.encoder.tokenizer
        return len(span.encode()) < most or len(tokenizer.encode([span])[0].ids) - tokenizer.num_special < most

    def _require_pooled(
        self, texts: Sequence[TokenizedText], prompt: str, where: Where, recipe: Recipe | None = None
    ) -> None:
        """Raise `InvalidInput` unless each text has what a pooling takes, as `Recipe.require_pooled` does."""
        recipe = recipe or self.recipe
        if recipe.token_id is not None:
            left_out = self._inputs.unpooled(prompt)
            for place, text in enumerate(texts):
                recipe.require_pooled(text.ids[left_out:], where(place))

    def require_late(self) -> None:
        """Raise `InvalidInput` where spans of a whole text have nothing that the pooling takes."""
        if self.recipe.token_id is not None:
            raise InvalidInput(
                f"pooling {self.recipe.pooler.spec} of model {self.name!r} takes the state of one special token, and "
                "special tokens are in no span of a whole text. Embed each span as a text of its own (mode 'early').",
                where=Place("mode"),
            )

    def _at_once(self, prompt: str) -> int:
        return self.recipe.max_tokens - sum(self.encoder.tokenizer.frame_lengths(prompt))

    async def _run(
        self, ids: Sequence[Ids], post_process: PostProcess, where: Where, room: Room, padding: Sequence[int] = ()
    ) -> list[Any]:
        with self._named(where):
            return await self.encoder.batcher.run(ids, post_process, room, self.recipe.layers, padding)

    @contextmanager
    def _named(self, where: Where) -> Iterator[None]:
        """Name the input on which the encoder failed."""
        try:
            yield
        except RowFailed as failed:
            reason, place = failed.reason, where(failed.index)
            if isinstance(reason, BrokenModel):
                raise BrokenModel(self.name, where=place) from None
            if isinstance(reason, PoolingError | EmptyTextError):
                raise reason from None
            raise BrokenModel(self.name, where=place, failure=brief(reason, 200)) from reason

    def _to_vectors(self, normalize: bool | None, dimensions: int | None) -> ToVectors:
        if dimensions is not None:
            _check_dimensions(self.recipe, dimensions, self.dim, "dimensions")
        return ToVectors(self.recipe, self.recipe.normalize if normalize is None else normalize, dimensions)


class RoutedEmbedder(Embedder):
    """A model with a Router: an embedder for queries, one for documents, and maybe one for what was not said.

    Where no role is given, texts go the default route, as in sentence-transformers. Its own `encoder` and `recipe`
    are those of that route, or of documents where there is none.

    Args:
        branches: the embedders of the routes; they share `unknown` and `made`.

    Raises:
        CheckpointError: their vectors are not of the same size.
    """

    def __init__(self, branches: Routes[Embedder]) -> None:
        main = branches.default or branches.document
        super().__init__(main.encoder, main.recipe, main.unknown, main.made)
        self._branches = branches
        require_equal_sizes(self.name, {name: each.dim for name, each in branches.named().items()})

    @classmethod
    def of_branches(cls, branches: Routes[Branch]) -> Self:
        """Make one of encoders and recipes; errors as above."""
        unknown, made = UnknownTokens(), Counter[str]()
        return cls(branches.map(lambda branch: Embedder(*branch, unknown, made)))

    @property
    def routes(self) -> Mapping[str, Embedder]:
        """The embedders of `query`, `document` and `default`, each once, by the first of these names."""
        return self._branches.named()

    @property
    def default_route(self) -> str | None:
        """The route of texts of which it is not said what they are for; None where that has to be said."""
        return self._branches.default_name

    @property
    def declared(self) -> bool:
        """Whether every pooling is the one that the checkpoint declares."""
        return all(each.declared for each in self.routes.values())

    @property
    def warnings(self) -> list[str]:
        """What an operator should know of each route, in sentences."""
        return [f"{name}: {warning}" for name, each in self.routes.items() for warning in each.warnings]

    def of(self, role: Purpose | None = None, prompt_name: str | None = None) -> Embedder:
        """Return the embedder of the role's route, or of the default one."""
        if role == "query" or role == "document":
            return self._branches.of(role)
        default = self._branches.default
        if default is None:
            raise InvalidInput(
                f"model {self.name!r} has a route for queries and one for documents, and none by default, so it must "
                "be said what the texts are for: 'input_type' query or document (in Python: role).",
                where=Place("input_type"),
            )
        meant = role_of_prompt(prompt_name)
        if meant is not None and self._branches.of(meant) is not default:
            raise InvalidInput(
                f"prompt {prompt_name!r} is one of a {meant}, and a prompt alone does not choose the route of model "
                f"{self.name!r}: such texts would go the one of texts whose role is not said. Send 'input_type' "
                f"{meant} instead (in Python: role).",
                where=Place("prompt_name"),
            )
        return default

    def require_one_route(self, what: str) -> None:
        """Raise `InvalidInput`, since there are several."""
        routes = {name: each.recipe.checkpoint for name, each in self.routes.items()}
        alone = [
            f"{one.transformer} ({name})"
            for name, one in routes.items()
            if one.transformer != one.folder and one.table is None
        ]
        remedy = f"the encoder of one alone: {' or '.join(alone)}" if alone else "a model without a Router"
        raise InvalidInput(
            f"{what} is of one encoder, and model {self.name!r} has a Router, which sends texts of different roles "
            f"different ways. Name {remedy}."
        )

    def changed(self, change: Callable[[Embedder], Recipe]) -> Embedder:
        """Return one with the same encoders and what `change` makes of the recipe of each route.

        Raises:
            CheckpointError: the vectors are then not of the same size.
        """
        return RoutedEmbedder(self._branches.map(lambda branch: branch.changed(change)))

    def close(self) -> None:
        """Stop the queues of all encoders."""
        for each in self.routes.values():
            each.close()

    @cached_property
    def fingerprint_parts(self) -> dict[str, Any]:
        """The parts of documents, beside those of queries, and which route is the default one."""
        branches = self._branches
        query = {name: part for name, part in branches.query.fingerprint_parts.items() if name != "scheme"}
        third = branches.default_name == "default" and branches.default
        default = third.fingerprint_parts if third else branches.default_name
        return {**branches.document.fingerprint_parts, "query": query, "default_route": default}

    def changes_since(self, older: str, texts: Callable[[], Iterable[str]]) -> list[str] | None:
        """Return None: no earlier scheme had routes."""
        return None

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        role: Role | None = None,
        **options: Any,
    ) -> Vectors:
        """Embed texts by the route of their role."""
        return self.of(role, prompt_name).encode(texts, prompt_name=prompt_name, role=role, **options)

    def run(self, texts: Sequence[str], post_process: PostProcess, **options: Any) -> Iterator[Any]:
        """Refuse to, since it is not said what the texts are for."""
        raise InvalidInput(
            f"model {self.name!r} has a Router, so texts go through an encoder of their role's. Ask `of(role)`."
        )

    async def embed(
        self, inputs: Inputs, *, prompt_name: str | None = None, role: Purpose | None = None, **options: Any
    ) -> Embeddings:
        """Embed texts by the route of their role."""
        return await self.of(role, prompt_name).embed(inputs, prompt_name=prompt_name, role=role, **options)

    async def embed_under(
        self,
        texts: Sequence[str],
        others: Sequence[Recipe],
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        **options: Any,
    ) -> list[Vectors]:
        """Embed texts by the route of their role; `others` are recipes of that route."""
        own = self.of(role, prompt_name)
        return await own.embed_under(texts, others, prompt_name=prompt_name, role=role, **options)

    async def process(
        self, texts: Sequence[str], post_process: PostProcess, *, role: Role, where: Where = _INPUTS
    ) -> list[Any]:
        """Run texts through the encoder of their role."""
        return await self.of(role).process(texts, post_process, role=role, where=where)

    @asynccontextmanager
    async def token_states(
        self, inputs: Inputs, *, prompt_name: str | None = None, role: Purpose | None = None, **options: Any
    ) -> AsyncIterator[list[TokenStates]]:
        """Give the states that the encoder of their role makes of texts."""
        own = self.of(role, prompt_name)
        async with own.token_states(inputs, prompt_name=prompt_name, role=role, **options) as found:
            yield found

    async def embed_spans(
        self,
        inputs: Sequence[str],
        spans: Spans,
        *,
        prompt_name: str | None = None,
        role: Purpose | None = None,
        **options: Any,
    ) -> list[SpanVectors]:
        """Embed spans by the route of their texts' role."""
        own = self.of(role, prompt_name)
        return await own.embed_spans(inputs, spans, prompt_name=prompt_name, role=role, **options)

    async def tokenize(
        self, texts: Sequence[str], *, prompt_name: str | None = None, role: Purpose | None = None, **options: Any
    ) -> list[TokenizedText]:
        """Return texts as the encoder of their role reads them."""
        return await self.of(role, prompt_name).tokenize(texts, prompt_name=prompt_name, role=role, **options)

    async def decode(self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool, where: Where) -> list[str]:
        """Return the texts of token ids of the default route."""
        return await self.of().decode(ids, skip_special_tokens=skip_special_tokens, where=where)

    async def check(self, inputs: Sequence[str], *, role: Role | None = None, **options: Any) -> None:
        """Raise what `embed` would because of its inputs, and embed nothing."""
        await self.of(role).check(inputs, role=role, **options)

    async def check_spans(
        self, inputs: Sequence[str], spans: Spans, *, role: Role | None = None, **options: Any
    ) -> None:
        """Raise what `embed_spans` would because of its inputs and their spans, and embed nothing."""
        await self.of(role).check_spans(inputs, spans, role=role, **options)

    def reads_at_once(self, span: str) -> bool:
        """Return whether a span of a document is surely no longer than what the encoder of such reads at once."""
        return self.of("document").reads_at_once(span)

    def require_late(self) -> None:
        """Raise `InvalidInput` where spans of a whole document have nothing that the pooling takes."""
        self.of("document").require_late()


async def _apart(
    embed: Callable[..., Awaitable[Embeddings]], inputs: Inputs, written: Sequence[int], where: Where
) -> Embeddings:
    """Embed written texts and token ids apart from each other, since only the former have a prompt."""
    others = [place for place, item in enumerate(inputs) if not isinstance(item, str)]
    groups = [written, others]

    def of_group(group: Sequence[int]) -> Awaitable[Embeddings]:
        return embed([inputs[place] for place in group], where=lambda at: where(group[at]))

    found = await asyncio.gather(*map(of_group, groups))
    vectors = np.empty((len(inputs), found[0].vectors.shape[1]), np.float32)
    for group, embedded in zip(groups, found, strict=True):
        vectors[group] = embedded.vectors
    truncated = [group[at] for group, embedded in zip(groups, found, strict=True) for at in embedded.truncated]
    return Embeddings(vectors, sum(embedded.tokens for embedded in found), sorted(truncated))


def _truncated(texts: Sequence[TokenizedText]) -> list[int]:
    return [place for place, text in enumerate(texts) if text.full_length > len(text.ids)]


def _pieces(inputs: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[str]:
    return [text[start:end] for text, of_text in zip(inputs, spans, strict=True) for start, end in of_text]


def _places(spans: Sequence[Sequence[Span]], where_span: WhereSpan) -> Where:
    places = [where_span(text, span) for text, of_text in enumerate(spans) for span in range(len(of_text))]
    return places.__getitem__


def _check_dimensions(recipe: Recipe, asked: int, most: int, name: str) -> None:
    if not 1 <= asked <= most:
        raise InvalidInput(
            f"{name} must be from 1 to {most} for model {recipe.name!r}, not {asked}.", where=Place(name)
        )
