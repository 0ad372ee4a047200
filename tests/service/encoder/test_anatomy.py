"""Sizes that an encoder's code makes of its config: the longest text, and the ids that have a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from service.checkpoint import read_checkpoint
from service.encoder.anatomy import examine
from service.errors import CheckpointError, TooLong
from tests.support.checkpoints import edit, embed, plain_bert, plain_gpt2, plain_t5, served, unbounded

OFFSET = [
    ("Roberta", 1, 32),
    ("Roberta", 3, 30),
    ("XLMRoberta", 3, 30),
    ("Camembert", 1, 32),
    ("Esm", 1, 32),
    ("Esm", 3, 30),
    ("MPNet", 1, 32),
    ("Data2VecText", 3, 30),
    ("RobertaPreLayerNorm", 3, 30),
]


@pytest.mark.parametrize("backend", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "pad", "limit"), OFFSET)
def test_positions_that_start_behind_the_padding(
    tmp_path: Path, kind: str, pad: int, limit: int, backend: str
) -> None:
    extra = {"position_embedding_type": "absolute"} if kind == "Esm" else {}
    folder = unbounded(kind, tmp_path / "model", pad_token_id=pad, **extra)
    with served(folder, pooling="mean", runtime={"backend": backend}) as models:
        assert models.get().recipe.max_tokens == limit
        tokens = [10 + place % 300 for place in range(limit - 1)]
        assert embed(models, [tokens[:-1]]).shape == (1, 24)  # framed by two more
        with pytest.raises(TooLong):
            embed(models, [tokens])


@pytest.mark.parametrize(
    ("kind", "limit"), [("Bert", 34), ("Nystromformer", 34), ("Yoso", 34), ("Electra", 34), ("BigBird", 34)]
)
def test_positions_from_the_first(tmp_path: Path, kind: str, limit: int) -> None:
    folder = unbounded(kind, tmp_path / "model", pad_token_id=1)
    assert examine(read_checkpoint(str(folder))).positions == limit


def test_names_for_positions_and_none(tmp_path: Path) -> None:
    gpt2 = read_checkpoint(str(plain_gpt2(tmp_path / "gpt2")))
    assert examine(gpt2).positions == gpt2.config["n_positions"]
    assert examine(read_checkpoint(str(plain_t5(tmp_path / "t5")))).positions is None
    bert = plain_bert(tmp_path / "bert", max_position_embeddings=512)
    edit(bert / "config.json", max_position_embeddings=None)  # the default of its class
    assert examine(read_checkpoint(str(bert))).positions == 512


def with_token(folder: Path, special: bool) -> Path:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"[NEW{number}]" for number in range(400)])
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(["[LAST]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("make", [plain_bert, plain_gpt2, plain_t5])
def test_a_vocabulary_beyond_the_embedding_table(tmp_path: Path, make: Any, special: bool) -> None:
    folder = with_token(make(tmp_path / "model"), special)
    words = r"ids up to \d+ \('\[LAST\]'\).* has 4\d\d rows.*resize_token_embeddings"
    with pytest.raises(CheckpointError, match=words), served(folder, pooling="mean"):
        pass


def test_a_vocabulary_of_another_model(tmp_path: Path) -> None:
    folder = plain_bert(tmp_path / "model", vocab_size=50)
    with pytest.raises(CheckpointError, match="has 50 rows"), served(folder, pooling="mean"):
        pass
