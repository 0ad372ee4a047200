"""From inputs to token ids: texts are checked, prompted, tokenized and cut to length."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, Protocol

from service.embedding.prompts import OTHER_TASKS, ROLE_NAMES, Purpose, purpose, role_prompts
from service.embedding.windows import MOST_WINDOWED
from service.encoder import TokenizedText, Tokenizer
from service.encoder.reading import (
    BYTES_OF_A_TOKEN,
    MOST_CHARACTERS,
    SHORT,
    TOKENIZING,
    Cut,
    Where,
    beginning,
    check_text,
    parts,
    tokens_of,
    too_large,
)
from service.encoder.tokenizer import FEW, Side
from service.errors import EmptyInput, InvalidInput, Place, TooLarge, TooLong, did_you_mean, shortened
from service.observation import observed, phase

Inputs = Sequence[str | Sequence[int]]
"""Texts, each as it is written or as its token ids."""


class Fit(Protocol):
    """Makes a text fit that is too long for the model."""

    @property
    def cut(self) -> Cut:
        """The side at which it is cut, False where it is not."""

    def __call__(self, text: TokenizedText, where: Place, front: int) -> TokenizedText:
        """Return what of a text is read; `front` is how many tokens at its front must stay.

        Raises:
            TooLong, TooLarge: it does not fit.
        """


class Reading(Protocol):
    """What a recipe says of how texts are read; see its own fields."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest text."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Prompts by name."""

    @property
    def default_prompt(self) -> str | None:
        """The name of the prompt used if none is asked for."""

    @property
    def include_prompt(self) -> bool:
        """Whether the prompt's tokens take part in what is made of a text."""

    @property
    def truncate(self) -> bool:
        """Whether a text that is too long is cut unless a request says otherwise."""


class UnknownTokens:
    """Counts tokens of texts that stand for what a tokenizer does not know, and have no meaning to its model.

    Such are characters that it has no token for, and in WordPiece whole words with more than (as a rule) 100
    characters, as a long run of a script without spaces is one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, texts: Sequence[TokenizedText], unknown_id: int) -> None:
        """Count those of some texts; several threads may do so at once."""
        # Over texts of usual lengths, lists are counted faster than arrays are compared.
        if found := sum(text.ids.tolist().count(unknown_id) for text in texts):
            with self._lock:
                self.count += found


class InputTokenizer:
    """Tokenizes inputs as a recipe says: up to its longest text, and leaving a prompt out of pooling or not."""

    def __init__(self, tokenizer: Tokenizer, recipe: Reading, unknown: UnknownTokens) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._of_role = role_prompts(recipe.prompts)
        self._unknown = unknown

    async def tokenize(
        self, inputs: Inputs, prompt: str, fit: Fit, where: Where, *, offsets: bool = False
    ) -> list[TokenizedText]:
        """Tokenize inputs without blocking the event loop; `prompt` is put before texts, and empty beside token ids.

        Raises:
            InvalidInput: an input is not valid or has no token, its token ids are no text's, or the prompt leaves no
                room for one.
            TooLong, TooLarge: as `fit` does.
        """
        self._check(inputs, prompt, where)
        texts: list[TokenizedText] = []
        characters = 0
        with phase("tokenize"):
            for start, part, size in parts(inputs):
                work = partial(self._tokenized, start, part, prompt, fit, where, offsets)
                few = self._tokenizer.few
                if size + len(part) * len(prompt) <= SHORT * few // FEW and len(part) <= few:
                    texts += work()
                else:
                    texts += await asyncio.get_running_loop().run_in_executor(TOKENIZING, work)
                characters += size
        if (request := observed()) is not None:
            request.texts += len(texts)
            request.characters += characters
            request.tokens += sum(len(text.ids) for text in texts)
        return texts

    def estimate(self, inputs: Inputs, prompt: str) -> int:
        """Return about how many tokens inputs have together, without tokenizing them."""
        special = self._tokenizer.num_special + len(prompt) // BYTES_OF_A_TOKEN
        size = sum(tokens_of(item) if isinstance(item, str) else len(item) for item in inputs)
        return min(size + special * len(inputs), self._recipe.max_tokens * len(inputs))

    def tokenize_here(self, inputs: Inputs, prompt: str, fit: Fit, where: Where) -> list[TokenizedText]:
        """Tokenize inputs in the calling thread; arguments and errors as for `tokenize`."""
        self._check(inputs, prompt, where)
        return self._tokenized(0, inputs, prompt, fit, where, False)

    async def decode(
        self, ids: Sequence[Sequence[int]], where: Where, *, skip_special_tokens: bool = True
    ) -> list[str]:
        """Return the texts of token ids; raises `InvalidTokenIds` if one is outside the vocabulary."""

        def work(start: int, part: Inputs) -> list[str]:
            decode = partial(self._tokenizer.decode, skip_special_tokens=skip_special_tokens)
            return [decode(ids[place], where(place)) for place in range(start, start + len(part))]

        texts: list[str] = []
        for start, part, _ in parts(ids):
            texts += await asyncio.get_running_loop().run_in_executor(TOKENIZING, work, start, part)
        return texts

    def purpose(self, name: str, where: Place) -> tuple[str | None, Purpose | None]:
        """Return what is meant by a text's purpose as clients name it: the prompt of this name, or a role.

        Raises:
            InvalidInput: it is not known.
        """
        found = purpose(name, self._recipe.prompts)
        if found is None:
            known = [
                *OTHER_TASKS,
                *self._recipe.prompts,
                *(other for names in ROLE_NAMES.values() for other in names),
            ]
            raise InvalidInput(
                f"{where} {shortened(name)} is neither a role (query, document), a known task "
                f"({', '.join(OTHER_TASKS)}) nor a prompt of model {self._recipe.name!r}.{did_you_mean(name, known)}",
                where=where,
            )
        return found

    def prompt(self, name: str | None = None, role: Purpose | None = None) -> str:
        """Return the text of a prompt: the one named, else the one of a role, else, without a role, the default one.

        A role that has no prompt gets none: the default prompt may be that of the other role.

        Raises:
            InvalidInput: no prompt has this name.
        """
        prompts = self._recipe.prompts
        if name is not None:
            if name not in prompts:
                raise InvalidInput(
                    f"model {self._recipe.name!r} has no prompt {shortened(name)}; it has "
                    f"{', '.join(map(repr, prompts)) or 'none'}.{did_you_mean(name, prompts)}",
                    where=Place("prompt_name"),
                )
            return prompts[name]
        if role == "other":
            return ""
        return self._of_role.get(role, "") if role else prompts.get(self._recipe.default_prompt or "", "")

    def unpooled(self, prompt: str) -> int:
        """Return how many tokens at the front of a text with this prompt are left out of pooling."""
        return self._tokenizer.prompt_length(prompt) if prompt and not self._recipe.include_prompt else 0

    def cut_at(self, cut: Cut) -> Fit:
        """Return what cuts a text, or refuses it with `TooLong`."""
        side: Side | Literal[False] = "right" if self._recipe.truncate else False
        return _CutAt(side if cut is None else cut, self._tokenizer, self._recipe)

    def _check(self, inputs: Inputs, prompt: str, where: Where) -> None:
        for place, text in enumerate(inputs):
            if isinstance(text, str):
                check_text(text, where(place), "embed")
        if prompt and (length := self._tokenizer.framed_length(prompt)) >= self._recipe.max_tokens:
            raise InvalidInput(
                f"the prompt {prompt!r} has {length} tokens and model {self._recipe.name!r} takes "
                f"{self._recipe.max_tokens}, which leaves none for the text. Use a shorter prompt.",
                where=Place("prompt_name"),
            )

    def _tokenized(
        self, start: int, inputs: Inputs, prompt: str, fit: Fit, where: Where, offsets: bool
    ) -> list[TokenizedText]:
        """Tokenize some inputs of a request, the first of which is its input number `start`."""
        tokenizer = self._tokenizer
        written = {place: item for place, item in enumerate(inputs) if isinstance(item, str)}
        read = [beginning(item, fit.cut, where(start + place)) for place, item in written.items()]
        encoded = tokenizer.encode(read, prompt=prompt, offsets=offsets)
        for (place, item), few in zip(written.items(), encoded, strict=True):
            if len(item) > MOST_CHARACTERS and few.full_length <= self._recipe.max_tokens:
                raise too_large(item, where(start + place))  # it begins with white space, and what follows counts
        if tokenizer.unknown_id is not None:
            self._unknown.add(encoded, tokenizer.unknown_id)
        next_encoded = iter(encoded)
        texts = [
            next(next_encoded) if isinstance(item, str) else tokenizer.frame(item, where(place))
            for place, item in enumerate(inputs, start)
        ]
        front = tokenizer.prompt_length(prompt) if prompt else 0
        framed_prompt = tokenizer.framed_length(prompt) if prompt else tokenizer.num_special

        def is_empty(place: int, text: TokenizedText) -> bool:
            # A text may merge into the prompt's last token, so only tokenizing it alone tells whether it has any.
            if len(text.ids) <= front and not self._recipe.include_prompt:
                return True
            item = inputs[place]
            return len(text.ids) <= framed_prompt and (
                not prompt or not isinstance(item, str) or tokenizer.is_blank(item)
            )

        if empty := [where(start + place) for place, text in enumerate(texts) if is_empty(place, text)]:
            raise EmptyInput(
                f"{empty[0]} has no token that this model knows, so there is nothing to embed. Send a text with "
                "words in it, or leave this one out.",
                where=empty[0],
                without_tokens=[place.index for place in empty],
            )
        for place, text in enumerate(texts):
            if len(text.ids) > self._recipe.max_tokens:
                texts[place] = fit(text, where(start + place), front)
        return texts


@dataclass(frozen=True, slots=True)
class _CutAt:
    """Cuts a text at a side, or refuses it."""

    cut: Side | Literal[False]
    tokenizer: Tokenizer
    recipe: Reading

    def __call__(self, text: TokenizedText, where: Place, front: int) -> TokenizedText:
        limit = self.recipe.max_tokens
        if self.cut is False:
            raise TooLong(
                f"{where} has {text.full_length} tokens and model {self.recipe.name!r} takes {limit}. Send "
                '"truncate": true to embed the beginning alone, or split the text. For clients that cannot send '
                "it, truncate: true of the model in the config does the same.",
                where=where,
                length=text.full_length,
                limit=limit,
            )
        return self.tokenizer.truncate(text, limit, self.cut, front=front)


class AsItIs:
    """Leaves a text as it is, however long."""

    cut: Final = False

    def __call__(self, text: TokenizedText, where: Place, front: int) -> TokenizedText:
        """Return the text."""
        return text


class Windowed:
    """Leaves a text as it is, to be read in windows; raises `TooLarge` if it has too many tokens even for that."""

    cut: Final = False

    def __call__(self, text: TokenizedText, where: Place, front: int) -> TokenizedText:
        """Return the text."""
        if text.full_length > MOST_WINDOWED:
            raise TooLarge(
                f"{where} has {text.full_length} tokens, and spans are embedded of texts with up to {MOST_WINDOWED}. "
                "Split the text, between chapters for example.",
                where=where,
                limit=MOST_WINDOWED,
            )
        return text
