"""Rankings scored by hand, and by scikit-learn."""

from math import log2

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from pooling.tasks.retrieval import METRICS, measure


def test_scores_by_hand():
    assert METRICS == ("ndcg@10", "recall@10", "mrr@10", "map@100")
    [found] = measure([["a", "b", "c"]], [{"b": 3, "c": 1, "z": 2}])
    gain, ideal = 3 / log2(3) + 1 / log2(4), 3 + 2 / log2(3) + 1 / log2(4)
    assert found == pytest.approx([gain / ideal, 2 / 3, 1 / 2, (1 / 2 + 2 / 3) / 3])


@given(st.permutations(range(12)), st.dictionaries(st.integers(0, 11), st.integers(1, 5), min_size=1))
def test_ndcg_is_that_of_scikit_learn(ranking, grades):
    scores = [[-ranking.index(document) for document in range(12)]]
    wanted = ndcg_score([[grades.get(document, 0) for document in range(12)]], scores, k=10, ignore_ties=True)
    [found] = measure([[str(document) for document in ranking]], [{str(key): grade for key, grade in grades.items()}])
    assert found[0] == pytest.approx(wanted)


def test_what_is_found_below_the_tenth_place_counts_for_map_alone():
    ranking = [f"d{place}" for place in range(1, 101)]
    tenth, eleventh, none = measure([ranking] * 3, [{"d10": 1}, {"d11": 1}, {"other": 1}])
    assert tenth == pytest.approx([1 / log2(11), 1.0, 0.1, 0.1])
    assert eleventh == pytest.approx([0.0, 0.0, 0.0, 1 / 11])
    assert none.tolist() == [0.0] * 4
