"""Texts to token ids; truncation is a step of its own, so that a text's full length is known."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers.decoders import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence
from tokenizers.pre_tokenizers import Split

from service.arrays import Ids
from service.checkpoint import read_json
from service.encoder.words import Words
from service.errors import CheckpointError, InvalidTokenIds, Place, brief

if TYPE_CHECKING:
    from service.checkpoint import Checkpoint

Side = Literal["left", "right"]
_NO_LIMIT: Final = 1_000_000
"""transformers writes a number beyond this for "no limit"."""
_UNIGRAM: Final = re.compile(r'"type":\s*"Unigram",\s*"unk_id":\s*(\d+)')
_FILES: Final = ("tokenizer*", "*vocab*", "*.model")
"""Files of which a folder with a tokenizer has some."""
_REMEDY: Final = "Get tokenizer.json anew, or save it there (`tokenizer.save_pretrained(folder)`)."
FEW: Final = 8
"""Texts up to which encoding one after the other is faster than over all cores."""
MANY_WORDS: Final = 64
"""The same where words are kept with their ids."""
BRIEF: Final = 16_384
"""Characters up to which that takes some milliseconds at most."""


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """One text as the encoder reads it.

    `full_length` is its number of tokens before truncation. `offsets` are pairs of character positions, one
    a token, None for a token that stands for no character; they are there only when asked for.
    """

    ids: Ids
    full_length: int
    offsets: tuple[tuple[int, int] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """All that a `Tokenizer` is made of. Kept as JSON, it saves later starts from importing transformers.

    Args:
        backend: the tokenizer in the format of `tokenizers`, without padding or truncation.
        prefix: ids of the special tokens before a text.
        suffix: ids of those after it.
        special_ids: ids of all special tokens.
        pad_id: the id that fills a batch up.
        declared_limit: most tokens of a text, where the checkpoint's tokenizer says so.
        vocab_size: one more than the highest id.
        split_special_tokens: the checkpoint wants special tokens that a text spells out read as plain characters;
            not part of `backend`.
        keeps_unknown: tokens of what is not in the vocabulary are part of a text; model2vec leaves them out.
        keeps_words: words are kept with their ids, where the tokenizer allows it: worth while where the encoder is so
            fast that tokenizing is most of the work.
        reads_types: the encoder is given token types, which tell the second text of a pair from the first.
    """

    backend: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    special_ids: tuple[int, ...]
    pad_id: int
    declared_limit: int | None
    vocab_size: int
    split_special_tokens: bool = False
    keeps_unknown: bool = True
    keeps_words: bool = False
    reads_types: bool = False

    def to_json(self) -> str:
        """Return the spec as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TokenizerSpec:
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            fields = json.loads(text)
            return cls(**fields | {key: tuple(fields[key]) for key in ("prefix", "suffix", "special_ids")})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this describes no tokenizer: {error}") from None


def load_tokenizer(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> TokenizerSpec:
    """Read a checkpoint's tokenizer with transformers, which is slow to import.

    Raises:
        CheckpointError: the folder has no usable tokenizer.
    """
    from transformers import AutoTokenizer

    if checkpoint.adapter is not None and not any(any(checkpoint.transformer.glob(each)) for each in _FILES):
        raise CheckpointError(
            f"{checkpoint.transformer}: an adapter is read with the tokenizer beside it, and there is none. Copy the "
            f"base model's tokenizer files there, from {checkpoint.encoder}, or save it there "
            "(`tokenizer.save_pretrained(folder)`)."
        )
    try:
        loaded: Any = AutoTokenizer.from_pretrained(checkpoint.transformer, trust_remote_code=trust_remote_code)
        backend = loaded.backend_tokenizer
    except Exception as error:  # transformers raises many kinds for a damaged folder
        raise CheckpointError(
            f"{checkpoint.transformer}: its tokenizer cannot be loaded ({brief(error, 300)}). {_REMEDY}"
        ) from None
    # Without its files transformers silently makes a tokenizer with an empty vocabulary.
    files = sorted({"tokenizer.json", *loaded.vocab_files_names.values()})
    if not any((checkpoint.transformer / name).exists() for name in files):
        raise CheckpointError(
            f"{checkpoint.transformer}: has no tokenizer; there is none of {', '.join(files)}. {_REMEDY}"
        )
    # Some checkpoints store padding or truncation in tokenizer.json; both are decided elsewhere.
    backend.no_padding()
    backend.no_truncation()
    if checkpoint.lower_case:
        before = [backend.normalizer] if backend.normalizer is not None else []
        backend.normalizer = NormalizerSequence([Lowercase(), *before])
    prefix, suffix = _frame(backend, checkpoint)
    _check_frame(checkpoint, loaded, prefix, suffix)
    if "token_type_ids" in loaded.model_input_names and any(backend.encode("a").type_ids):
        raise CheckpointError(
            f"{checkpoint.transformer}: its tokenizer gives a single text token types other than 0, which are "
            "not passed to the encoder here."
        )
    limit = loaded.model_max_length
    return TokenizerSpec(
        backend=backend.to_str(),
        prefix=tuple(prefix),
        suffix=tuple(suffix),
        special_ids=tuple(sorted(set(loaded.all_special_ids))),
        pad_id=loaded.pad_token_id if loaded.pad_token_id is not None else checkpoint.config.get("pad_token_id") or 0,
        declared_limit=limit if limit and limit < _NO_LIMIT else None,
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        split_special_tokens=bool(backend.encode_special_tokens),
        reads_types="token_type_ids" in loaded.model_input_names,
    )


class Tokenizer:
    """A tokenizer made from its spec, without transformers. Safe to call from several threads.

    Special tokens are assumed to frame a text, some before and some after, as in every encoder's template. One that
    is spelled out in a text, such as `[SEP]`, is read as plain characters, so that nobody's text can end another's.
    After a prompt that spells one itself, both are read as sentence-transformers does.

    Args:
        spec: what it is made from.
        parse_special_tokens: read special tokens in every text as sentence-transformers does.
    """

    def __init__(self, spec: TokenizerSpec, *, parse_special_tokens: bool = False) -> None:
        self.spec = spec
        self.parses_special_tokens = parse_special_tokens and not spec.split_special_tokens
        self._backend = tokenizers.Tokenizer.from_str(spec.backend)
        added = self._backend.get_added_tokens_decoder()
        self.special_ids = {token.content: place for place, token in sorted(added.items()) if token.special}
        """The special tokens and their ids."""
        self.special_tokens = tuple(sorted(self.special_ids))
        self._pieces = _pieces(self._backend, self.special_tokens)
        if not self.parses_special_tokens:
            _read_plainly(self._backend, self._pieces)
        self._words = Words(self._backend) if spec.keeps_words and Words.suits(spec.backend) else None
        self.few = MANY_WORDS if self._words is not None else FEW
        """Texts up to which encoding takes less time than handing them to a thread, if they are of usual length."""
        self._prefix, self._suffix = list(spec.prefix), list(spec.suffix)
        self._special = frozenset(spec.special_ids)
        self.pad_id = spec.pad_id
        self.declared_limit = spec.declared_limit
        self.vocab_size = spec.vocab_size
        self.unknown_id = _unknown_id(self._backend, spec)
        """The id of what is no entry of the vocabulary: of a character, or of a word beyond the longest one taken."""
        self._left_out = None if spec.keeps_unknown else self.unknown_id
        self.prompt_length = lru_cache(maxsize=256)(self._prompt_length)
        self.framed_length = lru_cache(maxsize=256)(self._framed_length)

    @property
    def num_special(self) -> int:
        """How many special tokens frame a text."""
        return len(self._prefix) + len(self._suffix)

    def encode(self, texts: Sequence[str], *, prompt: str = "", offsets: bool = False) -> list[TokenizedText]:
        """Tokenize whole texts, each after `prompt`; offsets count from the start of the text, not of the prompt."""
        prompted = [prompt + text for text in texts] if prompt else list(texts)
        backend = self._backend_after(prompt)
        if self._words is not None and not offsets and backend is self._backend:
            return [self._tokenized(np.array(ids, dtype=np.int64)) for ids in self._words.encode(prompted)]
        # `encode` holds the interpreter's lock, so a long text would stop every other thread meanwhile.
        if len(prompted) <= FEW and sum(map(len, prompted)) <= BRIEF:
            encodings = [backend.encode(text) for text in prompted]
        elif offsets:
            encodings = backend.encode_batch(prompted)
        else:
            encodings = backend.encode_batch_fast(prompted)
        texts_ids = [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]
        if not offsets:
            return list(map(self._tokenized, texts_ids))
        return [
            self._tokenized(ids, _offsets(encoding, len(prompt)))
            for ids, encoding in zip(texts_ids, encodings, strict=True)
        ]

    def _tokenized(self, ids: Ids, offsets: tuple[tuple[int, int] | None, ...] = ()) -> TokenizedText:
        """Return what the encoder reads of ids, without unknown tokens where they are no part of a text."""
        if self._left_out is not None and self._left_out in ids:
            kept = ids != self._left_out
            ids, offsets = ids[kept], tuple(compress(offsets, kept))
        return TokenizedText(ids, len(ids), offsets)

    def frame(self, ids: Sequence[int], where: Place) -> TokenizedText:
        """Frame the token ids of a text by the special tokens, unless they are already there.

        Raises:
            InvalidTokenIds: an id is outside the vocabulary.
        """
        framed = [*self._prefix, *self._bare(ids, where), *self._suffix]
        return self._tokenized(np.array(framed, dtype=np.int64))

    def require_text(self, ids: Sequence[int], where: Place) -> None:
        """Check that the token ids, with special tokens or without, are those of some text.

        Raises:
            InvalidTokenIds: an id is outside the vocabulary, or no text has these ids: decoded and encoded again they
                are others, as another tokenizer's are.
        """
        if not self._are_of_a_text(self._bare(ids, where)):
            raise InvalidTokenIds(
                f"{where} has token ids that no text has in this model's tokenizer: decoded and encoded again, they "
                "are others. They may be those of another tokenizer, such as tiktoken. Send the text itself.",
                where=where,
            )

    def decode(self, ids: Sequence[int], where: Place, *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids as the checkpoint's tokenizer writes it.

        Raises:
            InvalidTokenIds: an id is outside the vocabulary.
        """
        self._check_ids(ids, where)
        return self._backend.decode(ids, skip_special_tokens=skip_special_tokens)

    def is_blank(self, text: str) -> bool:
        """Return whether a text has no tokens except special ones."""
        return len(self._tokenized(np.array(self._backend.encode(text).ids, np.int64)).ids) <= self.num_special

    def truncate(self, text: TokenizedText, limit: int, side: Side = "right", *, front: int = 0) -> TokenizedText:
        """Cut a text to `limit` tokens at one side; special tokens and the first `front` tokens, the prompt, stay."""
        if len(text.ids) <= limit:
            return text
        first, last = max(front, len(self._prefix)), len(text.ids) - len(self._suffix)
        room = limit - first - len(self._suffix)
        kept = slice(first, first + room) if side == "right" else slice(last - room, last)
        ids = np.concatenate([text.ids[:first], text.ids[kept], text.ids[last:]])
        offsets = text.offsets[:first] + text.offsets[kept] + text.offsets[last:]
        return TokenizedText(ids, text.full_length, offsets)

    def frame_lengths(self, prompt: str) -> tuple[int, int]:
        """Return how many tokens stand before a text, a prompt included, and how many after it."""
        return max(self.prompt_length(prompt) if prompt else 0, len(self._prefix)), len(self._suffix)

    def _framed_length(self, prompt: str) -> int:
        """Return how many tokens a prompt alone has, special tokens included."""
        return len(self._backend_after(prompt).encode(prompt).ids)

    def _prompt_length(self, prompt: str) -> int:
        """Return how many tokens a prompt takes at the front, by sentence-transformers' rule."""
        ids = self._backend_after(prompt).encode(prompt).ids
        return len(ids) - 1 if ids and ids[-1] in self.spec.special_ids else len(ids)

    def tokens(self, ids: Ids) -> list[str]:
        """Return the vocabulary's entries for ids."""
        return [self._backend.id_to_token(int(token)) or "" for token in ids]

    def spells_special(self, text: str) -> bool:
        """Return whether a text spells a special token, also one that only the normalised text does."""
        normalizer = self._backend.normalizer
        normal = normalizer.normalize_str(text) if self._pieces and normalizer is not None else text
        return any(token in text for token in self.special_tokens) or any(piece in normal for piece in self._pieces)

    def reader(self) -> tokenizers.Tokenizer:
        """Return another one of `tokenizers` that reads texts as this one does."""
        backend = tokenizers.Tokenizer.from_str(self.spec.backend)
        if not self.parses_special_tokens:
            _read_plainly(backend, self._pieces)
        return backend

    def num_special_of_pair(self) -> int:
        """Return how many special tokens frame a pair of texts."""
        return int(self._backend.num_special_tokens_to_add(True))

    def first_of_pair_ends(self) -> int | None:
        """Return the id of the token that ends the first text of a pair, behind which all have the token type 1.

        None where no pair has another type than 0, or none is given to the encoder.

        Raises:
            CheckpointError: the template of pairs gives types in another way.
        """
        pair = self._backend.encode("a", "a")
        first = pair.type_ids.index(1) if 1 in pair.type_ids else len(pair.ids)
        if not self.spec.reads_types or not any(pair.type_ids):
            return None
        ends = pair.ids[first - 1]
        behind = pair.ids.index(ends) + 1
        if pair.type_ids != [int(at >= behind) for at in range(len(pair.ids))] or ends not in self._special:
            raise CheckpointError(
                f"the tokenizer's template of pairs gives {self.tokens(np.array(pair.ids))} the types "
                f"{pair.type_ids}; followed are those that are 1 from behind the first separator on. Choose another "
                "model."
            )
        return ends

    def fingerprint(self) -> str:
        """Return sixteen hex digits over vocabulary, normalisation and template, and how special tokens are read."""
        plain = "" if self.parses_special_tokens else "split special tokens"
        known = "" if self.spec.keeps_unknown else "known tokens only"
        return hashlib.sha256((self.spec.backend + plain + known).encode()).hexdigest()[:16]

    def _backend_after(self, prompt: str) -> tokenizers.Tokenizer:
        """Return what reads texts with a prompt: one that spells a special token means that token."""
        if not prompt or self.spec.split_special_tokens or not any(token in prompt for token in self.special_tokens):
            return self._backend
        return self._parsing

    def _bare(self, ids: Sequence[int], where: Place) -> list[int]:
        """Return token ids without the special tokens around them; raises `InvalidTokenIds`."""
        self._check_ids(ids, where)
        bare, first, last = list(ids), len(self._prefix), len(ids) - len(self._suffix)
        framed = first <= last and bare[:first] == self._prefix and bare[last:] == self._suffix
        return bare[first:last] if framed else bare

    def _check_ids(self, ids: Sequence[int], where: Place) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self.vocab_size):
            bad = next(token for token in ids if not 0 <= token < self.vocab_size)
            raise InvalidTokenIds(
                f"token id {bad} is not in this model's vocabulary of {self.vocab_size}; ids come from the model's "
                "own tokenizer, not from another one such as tiktoken.",
                where=where,
            )

    def _are_of_a_text(self, ids: Sequence[int]) -> bool:
        """Return whether ids without a frame are those of some text, in which no special token is spelled."""
        if not (self._special - {self.unknown_id}).isdisjoint(ids):
            return False
        # An unknown token is decoded to its name, which is read as that token again only where names are parsed.
        reading = self._parsing if self.unknown_id in ids else self._backend
        text = self._exact.decode(ids, skip_special_tokens=False)
        return reading.encode(text, add_special_tokens=False).ids == ids

    @cached_property
    def _exact(self) -> tokenizers.Tokenizer:
        """What decodes every token: WordPiece's own decoder takes out spaces that stood between tokens."""
        exact = tokenizers.Tokenizer.from_str(self.spec.backend)
        if isinstance(exact.decoder, WordPiece):
            exact.decoder = WordPiece(exact.decoder.prefix, cleanup=False)
        return exact

    @cached_property
    def _parsing(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self.spec.backend)


def pad(rows: Sequence[Ids], pad_id: int, width: int = 0) -> tuple[Ids, NDArray[np.bool_]]:
    """Lay out rows of token ids as one batch: ids and mask, both (rows, longest or `width`), padded at the right."""
    ids = np.full((len(rows), max(width, *map(len, rows))), pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.bool_)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, True
    return ids, mask


def _frame(backend: Any, checkpoint: Checkpoint) -> tuple[list[int], list[int]]:
    """Return the special tokens before and after a text."""
    for sample in ("a", "0", ".", "\u7684"):  # any text that the vocabulary knows will do
        probe = backend.encode(sample)
        special = probe.special_tokens_mask
        if 0 in special:
            first, after = special.index(0), len(special) - special[::-1].index(0)
            return probe.ids[:first], probe.ids[after:]
    raise CheckpointError(f"{checkpoint.transformer}: its tokenizer finds no token in plain text.")


def _check_frame(checkpoint: Checkpoint, loaded: Any, prefix: Sequence[int], suffix: Sequence[int]) -> None:
    """Refuse a template that contradicts what tokenizer_config.json says of the first or the last token.

    transformers before release 5 followed the latter, and follows the template since: `last` and `cls` pool exactly
    those tokens, so that nobody may guess which of the two a model was trained with.
    """
    declared = read_json(checkpoint.transformer / "tokenizer_config.json") or {}
    for flag, token, frame, place in (
        ("add_bos_token", loaded.bos_token_id, prefix, "before"),
        ("add_eos_token", loaded.eos_token_id, suffix, "after"),
    ):
        wanted = declared.get(flag)
        if isinstance(wanted, bool) and token is not None and wanted != (token in frame):
            spelled = loaded.convert_ids_to_tokens(token)
            raise CheckpointError(
                f"{checkpoint.transformer}: tokenizer_config.json has {flag}: {json.dumps(wanted)}, and the template "
                f"in tokenizer.json puts {'no' if wanted else 'a'} {spelled!r} {place} a text. Make the two agree on "
                f"what the model was trained with: correct {flag}, or the post_processor in tokenizer.json."
            )


def _pieces(backend: tokenizers.Tokenizer, special: Sequence[str]) -> tuple[str, ...]:
    """Return the special tokens that are found in a text like any other piece, as SentencePiece has them."""
    backend.encode_special_tokens = True
    found = tuple(
        token
        for token in special
        if len(token) > 1 and backend.token_to_id(token) in backend.encode(token, add_special_tokens=False).ids
    )
    backend.encode_special_tokens = False
    return found


def _read_plainly(backend: tokenizers.Tokenizer, pieces: Sequence[str]) -> None:
    """Make a tokenizer read special tokens that a text spells out as plain characters, also those that are pieces."""
    backend.encode_special_tokens = True
    if pieces:  # each is split behind its first character
        firsts = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in pieces)
        split = Split(tokenizers.Regex(firsts), "isolated")
        before = [backend.pre_tokenizer] if backend.pre_tokenizer is not None else []
        backend.pre_tokenizer = PreTokenizerSequence([split, *before])


def _unknown_id(backend: Any, spec: TokenizerSpec) -> int | None:
    if (token := getattr(backend.model, "unk_token", None)) is not None:
        found: int | None = backend.token_to_id(token)
        return found
    unigram = _UNIGRAM.search(spec.backend)  # which does not tell otherwise
    return int(unigram[1]) if unigram else None


def _offsets(encoding: tokenizers.Encoding, prompt: int) -> tuple[tuple[int, int] | None, ...]:
    return tuple(
        (max(start - prompt, 0), end - prompt) if end > max(start, prompt) else None
        for start, end in encoding.offsets
    )
