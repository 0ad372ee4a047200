"""A server is told by its vectors, which here sentence-transformers or plain transformers make."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from transformers import AutoModel, AutoTokenizer

from service.doctor.folder import opened
from tests.support import checkpoints
from tests.support.checkpoints import DIM, edit

from .conftest import answering, asked, doctor_of_server, finding, findings, openai, tei


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoints.plain_bert(tmp_path_factory.mktemp("plain") / "bert")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return checkpoints.plain_llama(tmp_path_factory.mktemp("plain") / "llama")


@pytest.fixture(scope="module")
def mean(bert, tmp_path_factory):
    """A folder that declares the mean, and normalised vectors."""
    return checkpoints.sentence_transformer(bert, tmp_path_factory.mktemp("mean") / "model", "mean", Normalize())


def serving(folder, **options):
    """How sentence-transformers serves a folder."""
    model = checkpoints.reference(folder)
    return lambda texts: model.encode(list(texts), **options)


def told(folder, vectors):
    """What is found of a server that makes vectors so and is said to serve the folder."""
    with answering(openai(vectors)) as url:
        return doctor_of_server(folder, url)


@pytest.mark.parametrize(
    ("mode", "pooling"),
    [("cls", "cls"), ("max", "max"), ("lasttoken", "last"), ("weightedmean", "weighted_mean")],
)
def test_another_pooling_than_the_declared(mode, pooling, bert, mean, tmp_path):
    report = told(mean, serving(checkpoints.sentence_transformer(bert, tmp_path / "model", mode, Normalize())))
    assert report.served["pooling"] == pooling and report.faults == ["pooling"]
    found = finding(report, "pooling")
    assert found.seen.startswith(f"{pooling} is applied; the checkpoint declares mean, which is at ")
    assert found.remedy == "set the server's pooling to mean"
    assert report.verdict.startswith(f"This server applies {pooling}, not mean (the declared): cosine 1.0000 to")
    assert report.strategies[0].pooling == pooling and report.strategies[0].least_cosine > 0.9999


@pytest.mark.parametrize("mode", ["mean", "mean_sqrt_len_tokens"])  # which differ in length alone
def test_the_declared_one(mode, bert, mean, tmp_path):
    report = told(mean, serving(checkpoints.sentence_transformer(bert, tmp_path / "model", mode, Normalize())))
    assert report.faults == report.warnings == []
    assert report.verdict == "This server applies mean, as it should: cosine 1.0000."


def test_a_causal_model_padded_at_the_left(llama, tmp_path):
    folder = checkpoints.sentence_transformer(llama, tmp_path / "model", "lasttoken", Normalize())
    report = told(folder, serving(folder))
    assert report.faults == [] and report.served["pooling"] == "last"


@pytest.mark.parametrize(
    ("side", "mistake"),
    [("left", "counted from the left, where the padding is"), ("right", "over the padding too")],
)
def test_the_last_token_taken_at_the_wrong_place(side, mistake, llama, tmp_path):
    """Padded at the left, and the mask counted as if at the right; padded at the right, and the last position."""
    tokenizer, model = AutoTokenizer.from_pretrained(llama, padding_side=side), AutoModel.from_pretrained(llama)

    @torch.inference_mode()
    def vectors(texts):
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        last = batch["attention_mask"].sum(1) - 1 if side == "left" else torch.full((len(states),), -1)
        return torch.nn.functional.normalize(states[torch.arange(len(states)), last]).numpy()

    report = told(checkpoints.sentence_transformer(llama, tmp_path / "model", "lasttoken", Normalize()), vectors)
    assert report.served["pooling"] == "last" and report.faults == ["padding"]
    assert f"last {mistake}" in finding(report, "padding").seen
    assert f"but texts sent together are pooled with last {mistake}" in report.verdict


@pytest.mark.slow
def test_a_mean_over_padding(bert, mean):
    tokenizer, model = AutoTokenizer.from_pretrained(bert), AutoModel.from_pretrained(bert)

    @torch.inference_mode()
    def vectors(texts):
        batch = tokenizer(list(texts), padding=True, return_tensors="pt")
        states = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return torch.nn.functional.normalize(states.mean(1)).numpy()

    report = told(mean, vectors)
    assert report.served["pooling"] == "mean" and report.served["pools_padding"]
    assert report.faults == ["padding"] and "over the padding too" in finding(report, "padding").seen


@pytest.mark.slow
def test_layers_that_are_skipped(bert, tmp_path):
    torch.manual_seed(7)
    dense = Dense(DIM, DIM, activation_function=torch.nn.Tanh())
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "mean", dense, Normalize())
    assert told(folder, serving(folder)).faults == []
    without = checkpoints.sentence_transformer(bert, tmp_path / "without", "mean", Normalize())
    report = told(folder, serving(without))
    assert report.faults == ["skipped layers"] and report.served["skips_layers"]
    assert "Dense is declared and not applied" in finding(report, "skipped layers").seen
    assert report.verdict.startswith("This server applies mean without the layers after it, not mean")


@pytest.mark.slow
def test_a_prompt_that_is_missing(bert, tmp_path):
    prompts = {"query": "query: ", "document": "passage: "}
    folder = checkpoints.sentence_transformer(bert, tmp_path / "model", "cls", Normalize(), prompts=prompts)
    edit(folder / "config_sentence_transformers.json", default_prompt_name="query")
    assert told(folder, serving(folder)).faults == []
    report = told(folder, serving(folder, prompt=""))
    assert report.faults == ["prompt"] and report.served["prompt"] is None
    assert "is none, and the declared one 'query'" in finding(report, "prompt").seen
    report = told(folder, serving(folder, prompt_name="document"))
    assert report.faults == ["prompt"] and report.served["prompt"] == "document"


def test_vectors_that_are_not_normalised(bert, mean, tmp_path):
    report = told(mean, serving(checkpoints.sentence_transformer(bert, tmp_path / "model", "mean")))
    assert report.faults == ["normalisation"] and report.served["pooling"] == "mean"
    assert "ranks by length too" in finding(report, "normalisation").seen


@pytest.mark.parametrize(("noise", "severity"), [(0.1, "ok"), (0.3, "warning")])
def test_a_coarser_precision(noise, severity, bert, mean, tmp_path):
    exact = serving(checkpoints.sentence_transformer(bert, tmp_path / "model", "cls", Normalize()))
    rng = np.random.default_rng(1)

    def vectors(texts):
        noisy = exact(texts) + rng.normal(size=(len(texts), DIM)) * noise / DIM**0.5
        return noisy / np.linalg.norm(noisy, axis=1, keepdims=True)

    report = told(mean, vectors)
    assert report.served["pooling"] == "cls" and finding(report, "precision").severity == severity
    assert report.verdict.endswith("; its precision lets it come no nearer.")


@pytest.mark.slow
def test_another_model_of_the_same_size(llama, mean, tmp_path):
    report = told(mean, serving(checkpoints.sentence_transformer(llama, tmp_path / "model", "mean", Normalize())))
    assert report.faults == ["pooling"] and report.served["pooling"] is None
    assert report.verdict.startswith("No pooling of the-model gives this server's vectors")


def test_nothing_declared(bert, mean):
    report = told(bert, serving(mean))
    assert report.served["pooling"] == "mean" and report.warnings == ["pooling"]
    assert report.verdict.startswith("This server applies mean, where nothing is declared")


@pytest.mark.slow
def test_a_server_that_says_another_pooling_than_it_applies(bert, mean, tmp_path):
    vectors = serving(checkpoints.sentence_transformer(bert, tmp_path / "model", "cls", Normalize()))
    info = {"default_model": "m", "models": {"m": {"pooling": "mean"}}, "poolings": ["mean"]}

    def respond(method, path, headers, body):
        return (200, info) if path == "/info" else (200, vectors(body["inputs"]).tolist())

    with answering(respond) as url:
        report = doctor_of_server(mean, url)
    assert report.faults == ["pooling", "told"]
    assert finding(report, "told").seen == "its /info says mean for model 'm', and its vectors are cls"


def test_a_server_that_says_a_pooling_of_its_own(bert, mean):
    rng = np.random.default_rng(1)
    info = {"default_model": "m", "models": {"m": {"pooling": "attention"}}, "poolings": ["mean"]}

    def respond(method, path, headers, body):
        return (200, info) if path == "/info" else (200, rng.normal(size=(len(body["inputs"]), DIM)).tolist())

    with answering(respond) as url:
        report = doctor_of_server(mean, url)
        found = finding(report, "told")
        assert report.faults == ["pooling", "normalisation"] and found.severity == "warning"
        assert "attention" in found.seen and found.remedy.endswith(f"GET {url}/doctor")


def test_a_server_of_teis_shape(bert, mean, tmp_path):
    vectors = serving(checkpoints.sentence_transformer(bert, tmp_path / "model", "cls", Normalize()))
    with answering(tei(vectors)) as url:
        for at in (url, f"{url}/embed"):
            report = doctor_of_server(mean, at)
            assert (report.served["kind"], report.served["url"]) == ("TEI", f"{url}/embed")
            assert report.served["pooling"] == "cls"


@pytest.fixture(scope="module")
def opened_minilm(minilm):
    with opened(minilm) as (embedder, _):
        yield embedder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "kind"), [("", "Millpond"), ("/v1", "OpenAI"), ("/v1/embeddings", "OpenAI"), ("/embed", "TEI")]
)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_millpond_itself(path, kind, pooling, side_by_side, opened_minilm):
    report = asked(opened_minilm, side_by_side.url + path, model_name=pooling)
    assert (report.served["kind"], report.served["pooling"]) == (kind, pooling)
    assert report.faults == ([] if pooling == "mean" else ["pooling"])
    assert findings(report).get("told") == ("ok" if kind == "Millpond" else None)
    sentence = "mean, as it should" if pooling == "mean" else "cls, not mean (the declared)"
    assert report.verdict.startswith(f"This server applies {sentence}: cosine 1.0000")
