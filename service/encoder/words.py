"""Token ids of texts word by word, from a cache, where a tokenizer reads each word by itself."""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import tokenizers

_MOST: Final = 65_536
"""Words that are kept: some 15 MB, and nearly all of any text."""
_LONGEST: Final = 48
"""Characters of the longest one."""
_FEW: Final = 4
_LOCAL: Final = {"BertNormalizer", "Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD"}
"""Normalisation that takes each character with the marks on it alone, none of which a space can carry over."""


class Words:
    """Remembers the ids of words, which are what stands between spaces. Safe to call from several threads.

    Args:
        backend: the tokenizer, one that `suits` says yes to.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._known: dict[str, list[int]] = {}

    @staticmethod
    def suits(backend: str) -> bool:
        """Whether the ids of any text are those of its words in turn, as with BERT's WordPiece; told by its JSON."""
        spec: dict[str, Any] = json.loads(backend)
        normalizer = spec["normalizer"] or {"type": "Sequence", "normalizers": []}
        steps = normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
        return (
            spec["model"]["type"] == "WordPiece"
            and (spec["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
            and all(step["type"] in _LOCAL for step in steps)
            and spec["post_processor"] is None
            and spec["truncation"] is None
            and all(token["special"] and " " not in token["content"] for token in spec["added_tokens"])
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of texts."""
        known = self._known  # which another thread may replace meanwhile, and never takes from
        split = [text.split(" ") for text in texts]
        try:
            return [list(chain.from_iterable(map(known.__getitem__, words))) for words in split]
        except KeyError:
            fresh = self._read(list({word for words in split for word in words if word not in known}))
        short = {word: ids for word, ids in fresh.items() if len(word) <= _LONGEST}
        if len(known) + len(short) > _MOST:
            self._known = dict(list(short.items())[:_MOST])
        else:
            known.update(short)
        # Words that are too long are not kept, nor any of these where what is kept has begun anew.
        ids_of = known.__getitem__ if all(word in known for word in fresh) else ChainMap(fresh, known).__getitem__
        return [list(chain.from_iterable(map(ids_of, words))) for words in split]

    def _read(self, words: Sequence[str]) -> dict[str, list[int]]:
        encodings: Iterable[tokenizers.Encoding] = (
            map(self._backend.encode, words) if len(words) <= _FEW else self._backend.encode_batch_fast(words)
        )
        return {word: encoding.ids for word, encoding in zip(words, encodings, strict=True)}
