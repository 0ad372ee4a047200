"""What a static model is loaded from: its table with a row for each token, and its tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tokenizers
from safetensors import SafetensorError, safe_open

from service.arrays import Floats
from service.config import read_file
from service.encoder.anatomy import Anatomy
from service.encoder.tokenizer import TokenizerSpec
from service.errors import CheckpointError, brief

if TYPE_CHECKING:
    from service.checkpoint import Checkpoint
    from service.checkpoint.static import Table

LONGEST: Final = 8_192
"""Most tokens of a text where the model sets no limit: the mean over more of them tells little of any."""
_FILE: Final = "tokenizer.json"
_MOST_BYTES: Final = 500_000_000
_PADDING: Final = ("[PAD]", "<pad>")


def read_tokenizer(checkpoint: Checkpoint, table: Table) -> TokenizerSpec:
    """Read the tokenizer of a static model, which puts no special tokens around a text.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    path = checkpoint.transformer / _FILE
    try:
        backend: Any = tokenizers.Tokenizer.from_str(read_file(path, _MOST_BYTES).decode())
    except Exception as error:  # the library raises nothing more particular
        raise CheckpointError(
            f"{path}: cannot be read as a tokenizer ({brief(error, 300)}). Get it anew; a static model has no other."
        ) from None
    limit = (backend.truncation or {}).get("max_length")
    backend.no_padding()
    backend.no_truncation()
    backend.post_processor = None
    added = backend.get_added_tokens_decoder()
    return TokenizerSpec(
        backend=backend.to_str(),
        prefix=(),
        suffix=(),
        special_ids=tuple(sorted(number for number, token in added.items() if token.special)),
        pad_id=next((number for number in map(backend.token_to_id, _PADDING) if number is not None), 0),
        declared_limit=limit or LONGEST,
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        split_special_tokens=bool(backend.encode_special_tokens),
        keeps_unknown=not table.of_model2vec,
        keeps_words=True,
    )


def sizes(table: Table) -> Anatomy:
    """Return the sizes of a static model."""
    return Anatomy(dim=table.dim, vocabulary=table.rows, positions=None)


def load_table(checkpoint: Checkpoint, table: Table) -> Floats:
    """Return the vector of each token, (rows, dim), in float32.

    Raises:
        CheckpointError: the file is damaged, or holds vectors that mean nothing.
    """
    path = table.path
    try:
        with safe_open(path, framework="pt") as file:
            vectors: Floats = file.get_tensor(table.key).float().numpy()
            mapping = file.get_tensor("mapping").long().numpy() if table.mapped else None
            weights = file.get_tensor("weights").float().numpy() if table.weighted else None
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({brief(error, 200)}). Get it anew.") from None
    if mapping is not None:
        wrong = np.flatnonzero((mapping < 0) | (mapping >= len(vectors)))
        if len(wrong):
            raise CheckpointError(
                f"{path}: 'mapping' gives token {wrong[0]} the vector {mapping[wrong[0]]}, and there are "
                f"{len(vectors)} ({len(wrong)} tokens have none). Get the file anew."
            )
        vectors = vectors[mapping]
    if weights is not None:
        vectors = vectors * weights[:, None]
    finite = np.isfinite(vectors).all(1)
    if not finite.all() or not vectors.any():
        rows = np.flatnonzero(~finite)
        held = f"NaN or infinity for {len(rows)} tokens, such as {rows[0]}" if len(rows) else "nothing but zeros"
        raise CheckpointError(
            f"{path}: holds {held}, so texts would have no vector that means anything. Get it anew."
        )
    return np.ascontiguousarray(vectors)
