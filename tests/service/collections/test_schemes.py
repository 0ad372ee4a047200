"""Collections whose fingerprints an earlier release made by other rules."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from service.checkpoint import read_checkpoint
from service.config import Config
from service.deployment import Deployment, open_deployment
from service.embedding.chunkers import BySentence
from service.embedding.chunking import Chunking
from service.encoder.loading import fingerprint
from service.errors import FingerprintMismatch, Place
from service.store import Document
from service.store.document import encoded_spans
from tests.service.encoder.test_special_tokens import pieces
from tests.support.checkpoints import plain_bert, plain_bigbird, plain_roberta, sentence_transformer, unbounded

TEXTS = ["the wheel turns", "grain is ground in the mill", "a bridge over the pond"]


def config(folder: Path, store: Path) -> Config:
    return Config.model_validate(
        {
            "models": {"default": {"encoder": str(folder), "pooling": "mean"}},
            "runtime": {"backend": "torch", "precision": "fp32", "threads": 1},
            "store": {"path": str(store)},
        }
    )


def filled(folder: Path, store: Path, texts: list[str], chunking: Chunking | None = None) -> dict[str, Any]:
    """Fill a collection; its definition as scheme 1 had it: without a scheme, and special tokens were read."""
    with open_deployment(config(folder, store)) as opened:
        asyncio.run(opened.collections.create("docs", None, None, "flat", chunking))
        documents = [Document(str(place), text, {}) for place, text in enumerate(texts)]
        asyncio.run(opened.collections.upsert("docs", documents))
        embedder = opened.models.get()
        parts = dict(embedder.fingerprint_parts)
    del parts["scheme"]
    tokenizer = embedder.encoder.tokenizer.spec.backend
    before = stored(parts | {"tokenizer": hashlib.sha256(tokenizer.encode()).hexdigest()[:16]})
    return before if chunking is None else before | {"chunking": chunking.to_json()}


def stored(parts: dict[str, Any]) -> dict[str, Any]:
    parts = {key: value for key, value in parts.items() if key not in ("model", "asked_pooling", "fingerprint")}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return {"model": "default", "asked_pooling": None, "fingerprint": digest, **parts}


def rewrite(store: Path, definition: dict[str, Any]) -> None:
    connection = sqlite3.connect(store / "millpond.sqlite3")
    connection.execute("UPDATE collections SET definition = ?", (json.dumps(definition),))
    connection.commit()
    connection.close()


def search(opened: Deployment) -> list[str]:
    def where(index: int) -> Place:
        return Place("queries", index)

    (found,) = asyncio.run(opened.collections.by_text("docs", ["the wheel turns"], 1, None, where=where))
    return [hit.id for hit in found.hits]


def bert(folder: Path) -> Path:
    return sentence_transformer(plain_bert(folder / "bert"), folder / "model")


def fnet(folder: Path) -> Path:
    return unbounded("FNet", folder, pad_token_id=1, tpu_short_seq_length=34)


def unigrams(folder: Path) -> Path:
    plain_roberta(folder)
    pieces().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [bert, plain_roberta, unigrams])
def test_unchanged_vectors_are_relabelled(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "made")
    rewrite(tmp_path / "store", filled(folder, tmp_path / "store", TEXTS))
    for _ in range(2):  # and stay so
        with open_deployment(config(folder, tmp_path / "store")) as opened:
            assert search(opened) == ["0"]
            stored = asyncio.run(opened.collections.get("docs")).definition
            assert stored.fingerprint == opened.models.get().fingerprint


def test_a_file_that_is_not_loaded_was_part_of_scheme_1(tmp_path: Path) -> None:
    folder = plain_bert(tmp_path / "model")
    before = filled(folder, tmp_path / "store", TEXTS)
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    both = fingerprint(read_checkpoint(str(folder)), sorted(folder.glob("*.safetensors")))
    assert both != before["encoder"]
    rewrite(tmp_path / "store", stored(before | {"encoder": both}))
    with open_deployment(config(folder, tmp_path / "store")) as opened:
        assert search(opened) == ["0"]


@pytest.mark.parametrize(
    ("make", "texts", "rule"),
    [
        (bert, ["the [SEP] of the mill"], "special tokens that a text spells out"),
        (plain_roberta, ["the mill</s>the pond"], "special tokens that a text spells out"),
        (unigrams, ["the mill</s>the pond"], "special tokens that a text spells out"),
        (unigrams, ["the mill \uff1c/s\uff1e the pond"], "special tokens that a text spells out"),  # by NFKC
        (plain_bigbird, TEXTS, "BigBird attends to all tokens"),
        (fnet, TEXTS, "not padded beside longer ones"),
    ],
)
def test_vectors_that_a_rule_has_changed(
    tmp_path: Path, make: Callable[[Path], Path], texts: list[str], rule: str
) -> None:
    folder = make(tmp_path / "made")
    before = filled(folder, tmp_path / "store", texts)
    rewrite(tmp_path / "store", before)
    with open_deployment(config(folder, tmp_path / "store")) as opened:
        with pytest.raises(FingerprintMismatch, match=f"{rule}.*millpond reindex docs"):
            search(opened)
        assert asyncio.run(opened.collections.get("docs")).definition.to_json() == before

        async def reindex() -> None:
            collection = await opened.collections.get("docs")
            reindexes = opened.collections.reindexes
            await reindexes.begin(collection, None, None, None, truncate=False, force=False)
            while (await reindexes.progress(collection)).state == "running":
                await asyncio.sleep(0.01)

        asyncio.run(reindex())
        assert search(opened) == ["0"]


def test_a_longest_text_that_was_wrong(tmp_path: Path) -> None:
    folder = unbounded("Roberta", tmp_path / "model", pad_token_id=3)
    before = filled(folder, tmp_path / "store", TEXTS)
    assert before["max_tokens"] == 30
    rewrite(tmp_path / "store", stored(before | {"max_tokens": 32}))
    opened = open_deployment(config(folder, tmp_path / "store"))
    with opened, pytest.raises(FingerprintMismatch, match="the longest text has 30 tokens, where 32 were taken"):
        search(opened)


def test_another_model_is_refused_as_ever(tmp_path: Path) -> None:
    folder = plain_bert(tmp_path / "model")
    before = filled(folder, tmp_path / "store", TEXTS)
    rewrite(tmp_path / "store", stored(before | {"normalize": True}))
    opened = open_deployment(config(folder, tmp_path / "store"))
    with opened, pytest.raises(FingerprintMismatch, match="normalize: True, now False"):
        search(opened)


def test_a_sentence_that_is_cut_now(tmp_path: Path) -> None:
    folder = bert(tmp_path / "made")
    long = "the wheel turns and " * 30 + "the mill stands."
    chunking = Chunking(BySentence(), "late")
    for name, texts, refused in (("short", TEXTS, False), ("long", [*TEXTS, long], True)):
        before = filled(folder, tmp_path / name, texts, chunking)
        rewrite(tmp_path / name, before)
        uncut(tmp_path / name, len(texts) - 1, texts[-1])
        with open_deployment(config(folder, tmp_path / name)) as opened:
            if not refused:
                assert search(opened) == ["0"]
                continue
            with pytest.raises(FingerprintMismatch, match="sentences with more tokens than the model reads at once"):
                search(opened)


def uncut(store: Path, document: int, text: str) -> None:
    """Give a document one span, as long as it is."""
    connection = sqlite3.connect(store / "millpond.sqlite3")
    ((key, vector),) = connection.execute(
        "SELECT key, vector FROM documents WHERE id = ?", (str(document),)
    ).fetchall()
    connection.execute("UPDATE documents SET vector = ? WHERE key = ?", (vector[: 4 * 24], key))
    connection.execute("UPDATE chunks SET spans = ? WHERE document = ?", (encoded_spans([(0, len(text))]), key))
    connection.commit()
    connection.close()
