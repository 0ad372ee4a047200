"""Sparse models: the vectors of sentence-transformers' SparseEncoder, in any company, on both runtimes."""

from __future__ import annotations

import asyncio
import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import SparseEncoder
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

from service.checkpoint import read_checkpoint, read_cross_encoder
from service.config import Config, make_config
from service.embedding.sparse import SparseEmbedder, SparseEmbeddings, SparseModels
from service.embedding.sparse.weights import MOST_WEIGHTS, ToWeights
from service.errors import BrokenModel, CheckpointError, ConfigError, InvalidInput, Place, TooLarge, TooLong
from tests.support import datasets
from tests.support.checkpoints import TEXTS, edit, plain_bert, plain_llama, plain_t5, sentence_transformer
from tests.support.classifiers import bert_classifier, cross_encoder
from tests.support.splade import bert_mlm, distilbert_mlm, minilm_mlm, reference, roberta_mlm, rows, sparse_encoder

LONG = "the wheel turns when water flows over it " * 12


def config(
    folder: Path,
    cache: Path,
    *,
    backend: str = "torch",
    precision: str = "auto",
    batching: dict[str, Any] | None = None,
    **settings: Any,
) -> Config:
    values = {
        "models": {"default": {"encoder": "some/model"}},
        "sparse": {"splade": {"encoder": str(folder), **settings}},
        "runtime": {"backend": backend, "precision": precision, "threads": 2, "cache": str(cache)},
        "batching": batching or {"max_batch_tokens": 96},
    }
    return make_config(values, "a test", env={})


@contextmanager
def loaded(folder: Path, tmp_path: Path, **settings: Any) -> Iterator[SparseEmbedder]:
    models = SparseModels(config(folder, tmp_path / "cache", **settings))
    try:
        yield models.get()
    finally:
        models.close()


def embed(model: SparseEmbedder, texts: list[str], **options: Any) -> SparseEmbeddings:
    return asyncio.run(model.embed(texts, **options))


def dense(found: SparseEmbeddings, size: int) -> NDArray[np.float32]:
    """(texts, vocabulary)."""
    table = np.zeros((len(found.vectors), size), np.float32)
    for row, vector in zip(table, found.vectors, strict=True):
        assert (np.diff(vector.indices) > 0).all() and (vector.values > 0).all()
        row[vector.indices] = vector.values
    return table


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "backend", "strategy", "activation"),
    [
        (bert_mlm, "torch", "max", "relu"),
        (bert_mlm, "torch", "sum", "relu"),
        (bert_mlm, "torch", "max", "log1p_relu"),
        (roberta_mlm, "torch", "max", "relu"),
        (distilbert_mlm, "torch", "sum", "log1p_relu"),
        (bert_mlm, "openvino", "max", "relu"),
        pytest.param(bert_mlm, "openvino", "sum", "relu", marks=pytest.mark.slow),
    ],
)
def test_vectors_are_those_of_sentence_transformers(
    tmp_path: Path, model: Any, backend: str, strategy: str, activation: str
) -> None:
    folder = sparse_encoder(model(tmp_path / "plain"), tmp_path / "model", strategy, activation)
    wanted = rows(reference(folder), TEXTS)
    assert 0.05 < (wanted > 0).mean() < 0.95 and wanted.std(0).max() > 0.1
    with loaded(folder, tmp_path, backend=backend) as embedder:
        assert (embedder.encoder.runtime.backend, embedder.encoder.runtime.precision) == (backend, "fp32")
        found = embed(embedder, TEXTS)
        close(dense(found, embedder.dim), wanted)
        assert embedder.encoder.batcher.passes < len(TEXTS)  # texts share passes, padded
        alone = [dense(embed(embedder, [text]), embedder.dim)[0] for text in TEXTS]
        close(alone, wanted)
        assert embedder.made == 2 * len(TEXTS) and embedder.active > 0


@pytest.mark.slow
def test_vectors_of_sentences_over_a_vocabulary_of_usual_size(tmp_path: Path) -> None:
    with (datasets.folder() / "stsb-en" / "test.csv").open(encoding="utf-8") as file:
        texts = list(dict.fromkeys(row["sentence1"] for row in islice(csv.DictReader(file), 60)))[:40]
    folder = sparse_encoder(minilm_mlm(tmp_path / "plain"), tmp_path / "model")
    wanted = rows(reference(folder), texts)
    for backend in ("torch", "openvino"):
        with loaded(folder, tmp_path, backend=backend, batching={"max_batch_tokens": 1024}) as embedder:
            assert embedder.encoder.runtime.backend == backend
            found = dense(embed(embedder, texts), embedder.dim)
            assert np.abs(found - wanted).max() < 1e-4 < wanted.std()


@pytest.mark.slow
def test_a_folder_of_an_older_release(tmp_path: Path) -> None:
    plain = bert_mlm(tmp_path / "plain")
    folder = sparse_encoder(plain, tmp_path / "model", legacy=True)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16, "do_lower_case": true}')
    with loaded(folder, tmp_path) as embedder:
        assert embedder.recipe.max_tokens == 16
        found = embed(embedder, TEXTS, truncate="right")
        close(dense(found, embedder.dim), rows(reference(folder), TEXTS))


@pytest.mark.slow
def test_prompts(tmp_path: Path) -> None:
    prompts = {"query": "the wheel ", "document": "represent ", "other": "sentence "}
    folder = sparse_encoder(
        bert_mlm(tmp_path / "plain"), tmp_path / "model", prompts=prompts, default_prompt_name="other"
    )
    theirs = reference(folder)
    with loaded(folder, tmp_path) as embedder:

        def table(**options: Any) -> NDArray[np.float32]:
            return dense(embed(embedder, TEXTS, **options), embedder.dim)

        close(table(), rows(theirs, TEXTS))
        close(table(prompt_name="query"), rows(theirs, TEXTS, prompt_name="query"))
        close(table(role="document"), theirs.encode_document(TEXTS, convert_to_sparse_tensor=False))
        assert np.abs(table(role="query") - table()).max() > 0.1
    with loaded(folder, tmp_path, prompts={"query": "sentence "}) as embedder:
        close(table(role="query"), rows(theirs, TEXTS))
        close(table(), rows(theirs, TEXTS, prompt=""))
        with pytest.raises(InvalidInput, match="model 'splade' has no prompt 'document'; it has 'query'"):
            table(prompt_name="document")


def test_the_most_active_weights(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model", max_active_dims=7)
    with loaded(folder, tmp_path) as embedder:
        found = embed(embedder, TEXTS)
        close(dense(found, embedder.dim), rows(reference(folder), TEXTS))
        assert {len(vector.indices) for vector in found.vectors} == {7}


@pytest.mark.slow
def test_what_is_too_long_is_refused_or_cut_as_sentence_transformers_does(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model")
    texts = ["Grain", LONG]
    with loaded(folder, tmp_path) as embedder:
        with pytest.raises(TooLong, match=r"inputs\[1\] has \d+ tokens and model 'splade' takes 64") as caught:
            embed(embedder, texts)
        assert caught.value.where == Place("inputs", 1)
        found = embed(embedder, texts, truncate="right")
        assert found.truncated == [1]
        close(dense(found, embedder.dim), rows(reference(folder), texts))
        left = dense(embed(embedder, texts, truncate="left"), embedder.dim)
        assert np.abs(left - dense(found, embedder.dim)).max() > 1e-4
    with loaded(folder, tmp_path, max_tokens=24, truncate=True) as embedder:
        theirs = reference(folder)
        theirs.max_seq_length = 24
        close(dense(embed(embedder, texts), embedder.dim), rows(theirs, texts))


def test_a_plain_masked_language_model_is_pooled_by_default_and_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bert_mlm(tmp_path / "model")
    with loaded(folder, tmp_path) as embedder:
        close(dense(embed(embedder, TEXTS), embedder.dim), rows(reference(folder), TEXTS))
        [warning] = embedder.recipe.warnings
        assert "declares no sparse vectors" in warning and warning in caplog.text


def test_models_of_one_encoder_share_it(tmp_path: Path) -> None:
    plain = bert_mlm(tmp_path / "plain")
    folders = {
        "max": sparse_encoder(plain, tmp_path / "max"),
        "sum": sparse_encoder(plain, tmp_path / "sum", "sum"),
    }
    values = {
        "models": {"default": {"encoder": "some/model"}},
        "sparse": {
            "max": {"encoder": str(folders["max"])},
            "sum": {"encoder": str(folders["sum"])},
            "short": {"encoder": str(folders["max"]), "max_tokens": 16},
        },
        "runtime": {"backend": "torch", "threads": 1, "cache": str(tmp_path / "cache")},
    }
    models = SparseModels(make_config(values, "a test", env={}))
    try:
        assert models.default == "max" and len(models.encoders) == 2
        assert models.get("short").encoder is models.get("max").encoder
        for name, folder in folders.items():
            found = dense(embed(models.get(name), TEXTS), models.get(name).dim)
            close(found, rows(reference(folder), TEXTS))
    finally:
        models.close()
    assert not models.encoders.alive


def test_many_requests_at_once(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model")
    wanted = rows(reference(folder), TEXTS)

    async def every(embedder: SparseEmbedder) -> list[SparseEmbeddings]:
        return await asyncio.gather(*(embedder.embed(TEXTS[at:]) for at in range(len(TEXTS))))

    with loaded(folder, tmp_path) as embedder:
        for at, found in enumerate(asyncio.run(every(embedder))):
            close(dense(found, embedder.dim), wanted[at:])


@pytest.mark.slow
def test_more_weights_than_are_given_at_once(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model")
    active = int((rows(reference(folder), TEXTS) > 0).sum())
    with loaded(folder, tmp_path) as embedder:
        assert sum(len(vector.indices) for vector in embed(embedder, TEXTS, most=active).vectors) == active
        with pytest.raises(TooLarge, match=f"{active} weights above 0 together; {active - 1} are given") as caught:
            embed(embedder, TEXTS, most=active - 1)
        assert caught.value.where == Place("inputs")


@pytest.mark.slow
def test_passes_are_small_enough_for_their_logits(tmp_path: Path) -> None:
    """The logits of a large vocabulary take more memory than all layers, so passes have fewer tokens than asked."""
    vocabulary = 40_000
    folder = sparse_encoder(bert_mlm(tmp_path / "plain", vocab_size=vocabulary), tmp_path / "model")
    with loaded(folder, tmp_path, batching={"max_batch_tokens": 8192}) as embedder:
        batcher = embedder.encoder.batcher
        assert embedder.encoder.runtime.footprint.of_pass(1, 1) > 2 * 4 * vocabulary
        embed(embedder, ["the wheel turns when water flows over it"] * 60)  # ten tokens each
        assert batcher.figures.tokens.sum / batcher.passes <= 2**27 / (2 * 4 * vocabulary)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"inputs\[1\] is empty"),
        (" \n", r"inputs\[1\] has nothing but white space"),
        ("b\ud800", "not valid Unicode"),
    ],
)
def test_texts_that_cannot_be_embedded(tmp_path: Path, text: str, said: str) -> None:
    with loaded(bert_mlm(tmp_path / "model"), tmp_path) as embedder:
        with pytest.raises(InvalidInput, match=said) as caught:
            embed(embedder, ["Grain", text])
        assert caught.value.where == Place("inputs", 1)


def test_a_weight_that_is_no_number(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain", tie_word_embeddings=False), tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path)
    grain = reference(folder).tokenizer.convert_tokens_to_ids("Grain")
    weights["bert.embeddings.word_embeddings.weight"][grain] = torch.nan
    save_file(weights, path, {"format": "pt"})
    with loaded(folder, tmp_path) as embedder:
        assert len(embed(embedder, ["the wheel turns"]).vectors) == 1
        with pytest.raises(BrokenModel, match=r"weight that is not finite.*") as caught:
            embed(embedder, ["the wheel turns", "Grain"])
        assert caught.value.where == Place("inputs", 1)


def test_a_head_that_is_no_number_is_named(tmp_path: Path) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model")
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["cls.predictions.bias"][7] = torch.inf
    save_file(weights, path, {"format": "pt"})
    said = r"weights of tokens .* model.safetensors holds NaN or infinity in cls.predictions.bias"
    with pytest.raises(CheckpointError, match=said), loaded(folder, tmp_path):
        pass


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("most_active", [None, 1, 3])
def test_a_weight_that_is_no_number_is_among_the_most_active(broken: float, most_active: int | None) -> None:
    row = torch.tensor([0.5, 3.0, 0.0, broken, 2.0, 1.0])
    [vector] = ToWeights(most_active, MOST_WEIGHTS)(row[None, None], torch.ones(1, 1), torch.zeros(1, 1))
    assert not np.isfinite(vector.values[vector.indices == 3]).any() and 3 in vector.indices
    assert len(vector.indices) == (most_active or 5)


def of_embeddings(folder: Path) -> Path:
    return sentence_transformer(plain_bert(folder / "plain"), folder / "model")


def of_scores(folder: Path) -> Path:
    return cross_encoder(bert_classifier(folder / "plain"), folder / "model")


def of_a_decoder(folder: Path) -> Path:
    edit(plain_llama(folder) / "config.json", architectures=["LlamaForCausalLM"])
    return folder


def of_an_encoder_decoder(folder: Path) -> Path:
    edit(plain_t5(folder) / "config.json", architectures=["T5ForMaskedLM"])
    return folder


def without_a_head(folder: Path) -> Path:
    edit(plain_bert(folder) / "config.json", architectures=["BertForMaskedLM"])
    return folder


def splade(folder: Path) -> Path:
    return sparse_encoder(bert_mlm(folder / "plain"), folder / "model")


def of_an_auto_encoder(folder: Path) -> Path:
    modules = [Transformer(str(plain_bert(folder / "plain"))), Pooling(24), SparseAutoEncoder(24, 96, 8)]
    SparseEncoder(modules=modules, device="cpu").save(str(folder / "model"))
    return folder / "model"


def with_a_router(folder: Path) -> Path:
    kind = "sentence_transformers.base.modules.router.Router"
    path = splade(folder) / "modules.json"
    path.write_text(f'[{{"idx": 0, "name": "0", "path": "", "type": "{kind}"}}]')
    return path.parent


def with_two_poolings(folder: Path) -> Path:
    path = splade(folder) / "modules.json"
    text = path.read_text().rstrip().removesuffix("]")
    kind = "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling"
    path.write_text(f'{text}, {{"idx": 2, "name": "2", "path": "1_SpladePooling", "type": "{kind}"}}]')
    return path.parent


def with_another_strategy(folder: Path) -> Path:
    edit(splade(folder) / "1_SpladePooling" / "config.json", pooling_strategy="mean")
    return folder / "model"


def without_its_pooling(folder: Path) -> Path:
    shutil.rmtree(splade(folder) / "1_SpladePooling")
    return folder / "model"


def without_its_task(folder: Path) -> Path:
    edit(splade(folder) / "sentence_bert_config.json", transformer_task=None)
    return folder / "model"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (of_embeddings, "but Transformer, Pooling. Known are .*list it under `models`"),
        (plain_bert, "no sparse encoder: it is BertModel.*list it under `models`"),
        (of_scores, "list it under `rerankers`"),
        (of_a_decoder, "it is LlamaForCausalLM"),
        (of_an_encoder_decoder, "an encoder with a decoder"),
        (without_a_head, "weights are missing"),
        (of_an_auto_encoder, "but Transformer, Pooling, SparseAutoEncoder. Known are a Transformer"),
        (with_a_router, "begins with a Router, which chooses .*under `models`, and nowhere else"),
        (with_two_poolings, "module .*SpladePooling.* is not one that can be followed here after what stands"),
        (with_another_strategy, "pooling_strategy: input should be 'max' or 'sum', not 'mean'"),
        (without_its_pooling, "is missing, so the declared pooling is not known"),
        (without_its_task, "does not say that the task is fill-mask"),
    ],
)
def test_what_cannot_be_followed_is_refused(tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        SparseModels(config(make(tmp_path / "folder"), tmp_path / "cache"))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_sparse_encoder_elsewhere_is_refused(tmp_path: Path, legacy: bool) -> None:
    folder = sparse_encoder(bert_mlm(tmp_path / "plain"), tmp_path / "model", legacy=legacy)
    with pytest.raises(CheckpointError, match="List it under `sparse` in the config, not under `models`"):
        read_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="list it under `sparse` in the config, not under `rerankers`"):
        read_cross_encoder(str(folder))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_tokens": 1000}, "sparse.splade.max_tokens: 1000 is more than the 64 positions"),
        ({"max_tokens": 2}, "leaves no room beside the 2 special tokens"),
        ({"precision": "int8"}, "int8 is measured by vectors"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SparseModels(config(bert_mlm(tmp_path / "model"), tmp_path / "cache", **settings))
