"""A whole evaluation: figures that are known otherwise, and the advice that follows from them."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim

from pooling.tasks import Classification, Retrieval, Similarity, read
from service.errors import InvalidInput
from service.evaluation import choose, evaluate
from tests.support.checkpoints import edit, plain_bert, plain_llama, reference, sentence_transformer, served


def run(model, data, specs=(), folders=(), **options):
    strategies = choose(model, specs, [str(folder) for folder in folders], print)
    return evaluate(model, strategies, [("data", data)], **options)


def rows_of(report):
    return {row.strategy: row for row in report.data[0].rows}


def like(strategy, sentences, count=100):
    """Pairs whose scores are the cosines of one pooling, which so is perfect."""
    first, second = sentences(count), sentences(count, seed=1)
    left, right = (asyncio.run(strategy.embedder.embed(texts)).vectors for texts in (first, second))
    return Similarity(tuple(first), tuple(second), tuple(pairwise_cos_sim(left, right).tolist()))


def one(model, spec):
    return choose(model, [spec], [], print)[0]


@pytest.mark.slow
def test_what_is_declared_is_kept_where_it_is_best(model, sentences):
    report = run(model, like(one(model, "mean"), sentences))
    assert (report.declared, report.choice, report.yaml, report.fit) == ("mean", "mean", "pooling: mean", False)
    rows = rows_of(report)
    assert rows["mean"].scores["spearman"].value == pytest.approx(1.0)
    assert rows["mean"].difference is None
    assert rows["cls"].difference.verdict == "worse"
    assert rows["mean_sqrt_len"].difference.verdict == "within noise"


@pytest.mark.slow
def test_another_fixed_one_is_advised_where_it_is_better(model, sentences):
    report = run(model, like(one(model, "last"), sentences))
    assert (report.choice, report.yaml) == ("last", "pooling: last")
    assert "beyond noise" in report.advice


@pytest.mark.slow
def test_a_saved_pooler_is_advised_where_it_is_better(model, fitted, sentences):
    report = run(model, like(choose(model, [], [str(fitted)], print)[-1], sentences), folders=[fitted])
    assert report.choice == str(fitted)
    assert yaml.safe_load(report.yaml) == {"pooling": {"strategy": "attention", "weights": str(fitted)}}
    assert next(each for each in report.strategies if each.name == str(fitted)).weights == str(fitted)


@pytest.mark.slow
def test_where_no_pooling_is_declared_fitting_one_is_advised(tmp_path, sentences):
    with served(plain_llama(tmp_path / "llama"), pooling="mean") as models:
        report = run(models.get(), like(one(models.get(), "weighted_mean"), sentences))
    assert (report.declared, report.choice, report.fit) == (None, "weighted_mean", True)
    assert report.data[0].reference == "weighted_mean"


def test_every_figure_is_there_and_finite(model, sentences):
    texts = sentences(120)
    documents = {str(place): text for place, text in enumerate(texts)}
    queries = {str(place): text.split(" ", 1)[1] for place, text in enumerate(texts[:30])}
    beir = Retrieval(documents, queries, {query: {query: 1} for query in queries})
    labelled = Classification(tuple(texts), tuple("ab"["mill" in text] for text in texts))
    told = []
    report = evaluate(
        model,
        choose(model, ["mean", "cls"], [], print),
        [("search", beir), ("labels", labelled)],
        notes=["a note"],
        progress=lambda *each: told.append(each),
    )
    search, labels = report.data
    assert (search.kind, search.size, search.texts) == ("retrieval", 30, 150)
    assert (labels.kind, labels.size, labels.texts) == ("classification", 120, 120)
    assert search.rows[0].scores["recall@10"].value > 0.5
    for data in report.data:
        assert list(data.seconds) == ["embedding", "scoring", "information", "robustness", "speed"]
        for row in data.rows:
            for score in row.scores.values():
                assert 0 <= score.low <= score.value <= score.high <= 1
            assert {kind: len(found) for kind, found in row.robustness.items()} == {"noise": 3, "filler": 3, "cut": 2}
            assert all(-1 <= each.cosine <= 1 and np.isfinite(each.lost) for each in row.robustness["noise"])
            assert row.information is not None
            assert row.padding < 1e-5
    assert report.notes == ("a note",)
    stages = {stage: (done, total) for stage, done, total in told}
    assert len(stages) == 2 * 5
    assert all(done == total > 0 for done, total in stages.values())


@pytest.mark.slow
def test_texts_that_are_cut_are_counted(model, sentences):
    texts = [*sentences(118), *["The wheel turns. " * 40 + end for end in "ab"]]
    report = run(model, Classification(tuple(texts), tuple("ab"[place % 2] for place in range(120))), ["mean"])
    assert report.notes == ("data: 2 texts are longer than 64 tokens; what is beyond was not read.",)


def test_a_text_without_tokens_is_named_with_its_data_set(tmp_path, sentences):
    folder = plain_bert(tmp_path / "model")
    path = folder / "tokenizer.json"
    cleaning = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    cleaning |= {"strip_accents": None, "lowercase": False}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": cleaning}))
    labelled = Classification((*sentences(30), "\x01\x02"), tuple("ab"[place % 2] for place in range(31)))
    message = r"data: the text '\\x01\\x02' has no token that this model knows"
    with served(folder, pooling="mean") as models, pytest.raises(InvalidInput, match=message):
        run(models.get(), labelled, ["mean"])


@pytest.mark.slow
def test_minilm_on_a_part_of_sts_b(minilm, data):
    pairs = read(data / "stsb-en" / "test.csv")
    some = Similarity(pairs.first[::23], pairs.second[::23], pairs.scores[::23])
    with served(minilm) as models:
        report = run(models.get(), some, ["mean", "cls", "max"])
    reference = SentenceTransformer(str(minilm), device="cpu")
    cosines = pairwise_cos_sim(reference.encode(some.first), reference.encode(some.second))
    rows = rows_of(report)
    assert rows["mean"].scores["spearman"].value == pytest.approx(spearmanr(cosines, some.scores).statistic, abs=1e-4)
    assert (report.declared, report.choice) == ("mean", "mean")
    assert rows["cls"].difference.value < -0.03
    for kind, worst in (("noise", 0.4), ("cut", 0.5)):
        assert next(each for each in rows["mean"].robustness[kind] if each.level == worst).lost > 0.1
    assert rows["mean"].information.words_recovered > 1.4 * rows["mean"].information.chance


@pytest.mark.slow
@pytest.mark.parametrize("declared", ["dot", "euclidean", "manhattan"])
def test_vectors_are_compared_as_the_checkpoint_declares(tmp_path, sentences, declared):
    folder = sentence_transformer(plain_bert(tmp_path / "plain"), tmp_path / "model", "cls")
    edit(folder / "config_sentence_transformers.json", similarity_fn_name=declared)
    theirs = reference(folder)
    followed = "cosine" if declared == "manhattan" else declared
    theirs.similarity_fn_name = followed
    first, second = sentences(60), sentences(60, seed=1)
    scores = theirs.similarity_pairwise(theirs.encode(first), theirs.encode(second)).numpy()
    noisy = scores + np.random.default_rng(0).normal(scale=scores.std(), size=60)
    data = Similarity(tuple(first), tuple(second), tuple(noisy.tolist()))
    with served(folder) as models:
        report = run(models.get(), data, ["cls"])
    found = rows_of(report)["cls"].scores["spearman"].value
    assert found == pytest.approx(spearmanr(scores, noisy).statistic, abs=1e-3)
    (note,) = [note for note in report.notes if declared in note]
    assert followed in note
