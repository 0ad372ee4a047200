"""Whose token ids requests may send, and what is embedded for them.

The ids of one tokenizer are in the range of most others, so that a model makes a vector of ids that are not its own:
a wrong one, which nothing tells from a right one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from service.embedding.inputs import Inputs
from service.encoder import Tokenizer
from service.encoder.reading import Where, parts
from service.errors import ConfigError, InvalidTokenIds, Place, brief, did_you_mean

Read = Callable[[Sequence[int], Tokenizer, Place], str | Sequence[int]]
"""Gives what is embedded for the token ids of a text: a text, or ids of the model; raises `InvalidTokenIds`.

It is also given the model's tokenizer, and the place of the ids.
"""

_SHORT: Final = 2_048
"""Token ids that are read in less time than a switch of threads may take."""
_CLIENTS: Final = (
    "Send text: LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False. Or set server.token_ids to "
    "the encoding that your client uses, such as cl100k_base, or to model if it uses the model's own tokenizer."
)


def reader(setting: str) -> Read:
    """Return what reads token ids under `server.token_ids`.

    Raises:
        ConfigError: tiktoken is not installed, has no such encoding, or not its vocabulary.
    """
    match setting:
        case "refuse":
            return _refuse
        case "model":
            return _take
        case _:
            return _Encoding(setting)


async def read_ids(inputs: Inputs, read: Read, tokenizer: Tokenizer, where: Where) -> Inputs:
    """Return inputs in which token ids are replaced by what is embedded for them.

    Raises:
        InvalidTokenIds: ids cannot be read.
    """
    if all(isinstance(item, str) for item in inputs):
        return inputs

    def work(start: int, part: Inputs) -> list[str | Sequence[int]]:
        return [
            item if isinstance(item, str) else read(item, tokenizer, where(at)) for at, item in enumerate(part, start)
        ]

    found: list[str | Sequence[int]] = []
    for start, part, size in parts(inputs):
        found += work(start, part) if size <= _SHORT else await asyncio.to_thread(work, start, part)
    return found


def _refuse(ids: Sequence[int], tokenizer: Tokenizer, where: Place) -> NoReturn:
    raise InvalidTokenIds(
        f"{where} has token ids, which this deployment does not take (server.token_ids): those of another tokenizer "
        f"than the model's would make a wrong vector. {_CLIENTS}",
        where=where,
    )


def _take(ids: Sequence[int], tokenizer: Tokenizer, where: Place) -> Sequence[int]:
    tokenizer.require_text(ids, where)
    return ids


class _Encoding:
    """Reads ids of an encoding of tiktoken to the text that they stand for."""

    def __init__(self, name: str) -> None:
        at = f"server.token_ids: {name!r}"
        try:
            import tiktoken
        except ImportError:
            raise ConfigError(
                f"{at} is read by tiktoken, which is not installed (pip install 'millpond[tiktoken]'); without it, "
                "there are refuse and model."
            ) from None
        known = ["refuse", "model", *tiktoken.list_encoding_names()]
        if name not in known:
            raise ConfigError(f"{at} is not known; there are {', '.join(known)}.{did_you_mean(name, known)}")
        try:
            self._encoding = tiktoken.get_encoding(name)
        except Exception as error:  # of requests, of files, or a wrong hash
            raise ConfigError(
                f"{at} needs its vocabulary, which could not be had ({brief(error, 200)}). Set TIKTOKEN_CACHE_DIR to "
                "a folder in which tiktoken has kept it."
            ) from None
        self._name = name

    def __call__(self, ids: Sequence[int], tokenizer: Tokenizer, where: Place) -> str:
        try:
            text: str = self._encoding.decode_bytes(ids).decode()
        except (KeyError, OverflowError, ValueError):
            raise InvalidTokenIds(
                f"{where} has token ids that are no text in {self._name} (server.token_ids). {_CLIENTS}", where=where
            ) from None
        return text
