"""Texts perturbed in every way."""

import re

import pytest

from service.embedding.perturbations import SENTENCES
from service.evaluation.perturbations import CUT, FILLER, NOISE, Perturbation, perturb

TEXTS = [" ".join(f"w{text}x{word}" for word in range(50)) for text in range(40)]


def spans(texts):
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


def perturbed(kind, level, texts=TEXTS, seed=0):
    return perturb(texts, spans(texts), Perturbation(kind, level), seed)


def test_noise_replaces_or_drops_about_that_share_and_more_of_the_same_at_a_higher_level():
    kept = {}
    for share in (0.1, 0.2, 0.4):
        after = perturbed(NOISE, share)
        kept[share] = [set(old.split()) & set(new.split()) for old, new in zip(TEXTS, after, strict=True)]
        left = sum(map(len, kept[share])) / (50 * len(TEXTS))
        assert left == pytest.approx(1 - share, abs=0.03)
        words = sum(len(text.split()) for text in after) / (50 * len(TEXTS))
        assert words == pytest.approx(1 - share / 2, abs=0.03)
    # A word that was dropped may come back as another's replacement, but only few do.
    lost = sum(len(more - less) for less, more in zip(kept[0.1], kept[0.4], strict=True))
    assert lost <= 0.01 * 50 * len(TEXTS)


def test_it_is_drawn_from_the_seed():
    assert perturbed(NOISE, 0.2) == perturbed(NOISE, 0.2) != perturbed(NOISE, 0.2, seed=1)


def test_filler_is_appended():
    for sentences in (1, 4):
        for old, new in zip(TEXTS, perturbed(FILLER, sentences), strict=True):
            assert new.startswith(f"{old} ")
            assert sum(sentence in new for sentence in SENTENCES) == sentences
    one, four = perturbed(FILLER, 1), perturbed(FILLER, 4)
    assert all(more.startswith(less) for less, more in zip(one, four, strict=True))


def test_the_end_is_cut_off():
    assert perturbed(CUT, 0.5, ["a bb c d", "one"]) == ["a bb", "one"]
    assert perturbed(CUT, 0.25, ["a bb c d "]) == ["a bb c"]


def test_a_text_of_which_nothing_would_be_left_stays():
    assert all(text.strip() for text in perturbed(NOISE, 1.0, ["one"] * 50))
    assert perturbed(CUT, 0.5, [" "]) == [" "]
