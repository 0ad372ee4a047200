"""What each kind of task embeds, and how it scores vectors."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from pooling.tasks import Classification, DataError, PositivePairs, Retrieval, Similarity

COUNT = 24


def vectors(texts, dim=6):
    """Each text's own, whatever it stands among."""
    return np.stack([np.random.default_rng(list(text.encode())).normal(size=dim) for text in texts]).astype(
        np.float32
    )


def parts_of(task):
    return [vectors(part.texts) for part in task.parts]


def everything(task):
    return np.arange(task.size)


@pytest.fixture
def pairs():
    return Similarity(
        tuple(f"first {place % 7}" for place in range(COUNT)),
        tuple(f"second {place}" for place in range(COUNT)),
        tuple(float(place % 5) for place in range(COUNT)),
    )


@pytest.fixture
def labelled():
    return Classification(
        tuple(f"text {place}" for place in range(COUNT)), tuple("ab"[place % 2] for place in range(COUNT))
    )


@pytest.fixture
def beir():
    documents = {f"d{place}": f"document {place}" for place in range(40)}
    queries = {f"q{place}": f"question {place}" for place in range(COUNT + 1)}
    return Retrieval(documents, queries, {f"q{place}": {f"d{place}": 1} for place in range(COUNT)})


def test_pairs_embed_each_text_once_and_score_cosines(pairs):
    [part] = pairs.parts
    assert len(part.texts) == len(set(part.texts)) == 7 + COUNT
    outcomes = pairs.outcomes(parts_of(pairs))
    left, right = vectors(pairs.first), vectors(pairs.second)
    cosines = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    assert outcomes == pytest.approx(cosines, abs=1e-6)
    [scores] = pairs.score(outcomes[None], everything(pairs))
    assert scores == pytest.approx(
        [spearmanr(cosines, pairs.scores).statistic, pearsonr(cosines, pairs.scores).statistic], abs=1e-5
    )


def test_only_queries_with_judgements_are_asked(beir):
    documents, queries = beir.parts
    assert (len(documents.texts), documents.role) == (40, "document")
    assert (len(queries.texts), queries.role) == (COUNT, "query")
    perfect = np.eye(40, dtype=np.float32)
    outcomes = beir.outcomes([perfect, perfect[:COUNT]])
    assert beir.score(np.stack([outcomes, 0 * outcomes]), everything(beir)).tolist() == [[1.0] * 4, [0.0] * 4]


def test_positive_pairs_are_a_search_among_all_positives():
    anchors = [f"anchor {place % 20}" for place in range(40)]
    positives = [f"positive {place}" for place in range(38)] + ["positive 0", "positive 0"]
    found = PositivePairs(anchors, positives)
    documents, queries = found.parts
    assert (len(documents.texts), len(queries.texts), found.size) == (38, 20, 20)
    best = np.zeros((20, 38), np.float32)
    for anchor, positive in zip(anchors, positives, strict=True):
        best[queries.texts.index(anchor), documents.texts.index(positive)] = 1.0
    assert found.outcomes([np.eye(38, dtype=np.float32), best])[:, :2].tolist() == [[1.0, 1.0]] * 20


@pytest.mark.parametrize("kind", ["pairs", "labelled", "beir"])
def test_unchanged_texts_score_what_they_scored(kind, request):
    task = request.getfixturevalue(kind)
    parts = parts_of(task)
    chosen = np.array([1, 4, 5, 9, 17])
    same = vectors(task.perturbable(chosen).texts)
    outcomes = task.perturbed_outcomes(chosen, [same, same[::-1]], parts)
    assert outcomes[0] == pytest.approx(task.outcomes(parts)[chosen])
    assert not np.allclose(outcomes[0], outcomes[1])


def test_a_limit_keeps_the_first(pairs, labelled, beir):
    assert pairs.limited(20).rows == pairs.rows[:20]
    assert labelled.limited(20).rows == labelled.rows[:20]
    assert PositivePairs(["a", "a", "b"], ["c", "d", "e"]).limited(2).size == 1
    found = beir.limited(15)
    assert found.rows == beir.rows[:15]
    assert found.parts[0].texts == [f"document {place}" for place in range(30)]  # 15 relevant ones, and 15 others
    assert beir.limited(1000).size == COUNT and pairs.limited(1000).size == COUNT


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Similarity(("a",) * 3, ("b",) * 3, (1.0, 2.0, 3.0)), "has 3 pairs, and differences .* below 20"),
        (Similarity(("a",) * 30, ("b",) * 30, (2.5,) * 30), "every pair has the score 2.5, so there is no order"),
        (Classification(tuple(map(str, range(30))), ("x",) * 30), "every text has the label 'x'"),
        (Classification(tuple(map(str, range(30))), ("x",) * 28 + ("y",) * 2), r"too few have 'y' \(2\)"),
        (Classification(("a",), ("x",)), "has 1 texts"),
        (Retrieval({"d": "d"}, {"q": "q"}, {"q": {"d": 1}}), "has 1 queries"),
        (PositivePairs(("a",) * 30, ("b",) * 30), "has 1 queries"),
    ],
)
def test_data_that_tells_nothing_apart(task, message):
    with pytest.raises(DataError, match=message):
        task.check()


@pytest.mark.parametrize("kind", ["pairs", "labelled", "beir"])
def test_some_rows_are_a_task_of_their_own(kind, request):
    task = request.getfixturevalue(kind)
    some = task.select([3, 5, 8])
    assert some.size == 3 and some.rows == [task.rows[row] for row in (3, 5, 8)]
    outcomes = some.outcomes(parts_of(some)) if kind != "labelled" else np.array([1, 0, 1])
    assert some.score(outcomes[None], everything(some)).shape == (1, len(task.metrics))
