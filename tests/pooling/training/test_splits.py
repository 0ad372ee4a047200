"""Which data is fitted to, chosen by, judged by."""

import pytest

from pooling.data import DataError, ScoredPairs
from pooling.training import read_splits
from pooling.training.splits import hold_out, shared


def pairs(folder, split, start, stop, score=lambda number: number % 5):
    lines = [f"left {number},right {number},{score(number)}" for number in range(start, stop)]
    folder.mkdir(exist_ok=True)
    path = folder / f"{split}.csv"
    path.write_text("\n".join(["sentence1,sentence2,score", *lines]) + "\n")
    return path


def beir(folder, **queries):
    """A folder in BEIR's layout: for each split its number of queries."""
    (folder / "qrels").mkdir(parents=True)
    total = sum(queries.values())
    (folder / "corpus.jsonl").write_text("".join(f'{{"_id": "d{n}", "text": "text {n}"}}\n' for n in range(total)))
    (folder / "queries.jsonl").write_text("".join(f'{{"_id": "q{n}", "text": "query {n}"}}\n' for n in range(total)))
    start = 0
    for split, count in queries.items():
        lines = [f"q{number}\td{number}\t1\n" for number in range(start, start + count)]
        (folder / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
        start += count
    return folder


def test_a_folder_has_its_splits(tmp_path):
    for split, start, stop in (("train", 0, 100), ("dev", 100, 130), ("test", 130, 170)):
        pairs(tmp_path, split, start, stop)
    splits = read_splits(tmp_path)
    assert (splits.train.items, splits.dev.items, splits.test.items, splits.notes) == (100, 30, 40, ())
    other = pairs(tmp_path / "other", "mine", 200, 225)
    assert read_splits(tmp_path, dev=other).dev.items == 25


def test_without_dev_a_tenth_is_held_out_and_said_to_be(tmp_path):
    splits = read_splits(pairs(tmp_path, "a", 0, 300))
    assert (splits.train.items, splits.dev.items, splits.test) == (270, 30, None)
    assert splits.notes == (
        f"There is no dev split: 30 of the 300 pairs or queries of {tmp_path / 'a.csv'} are held out for it.",
    )
    assert not set(splits.train.texts) & set(splits.dev.texts)
    again = read_splits(tmp_path / "a.csv")
    assert list(again.dev.texts) == list(splits.dev.texts)


def test_beir_holds_out_queries_and_keeps_the_corpus_for_judging(tmp_path):
    splits = read_splits(beir(tmp_path / "a", train=80, test=25))
    assert (splits.train.items, splits.dev.items, splits.test.items) == (60, 20, 25)
    assert len([text for text in splits.train.texts if text.role == "document"]) == 60
    assert len([text for text in splits.dev.texts if text.role == "document"]) == 105
    splits = read_splits(beir(tmp_path / "b", train=60, dev=20))
    assert (splits.train.items, splits.dev.items, splits.test, splits.notes) == (60, 20, None, ())


def test_an_overlap_is_counted_in_either_order(tmp_path):
    train, dev = pairs(tmp_path, "train", 0, 100), pairs(tmp_path, "dev", 93, 120)
    text = dev.read_text().replace("left 95,right 95", "right 95,left 95")
    dev.write_text(text)
    assert shared(*hold_out(ScoredPairs(("a", "a") * 30, ("b", "c") * 30, (1.0,) * 60))) == 20
    [note] = read_splits(train, dev).notes
    assert note == "7 of the 27 pairs or queries of the dev split are in train too, which flatters what is fitted."


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        (3, 0, r"train\.csv: has 3 pairs to fit to and hold out from, and at least 70 are needed"),
        (3, 30, r"train\.csv: has 3 pairs to fit to, and at least 50 are needed"),
        (60, 3, r"dev\.csv: has 3 pairs or queries to choose by, and at least 20 are needed"),
    ],
)
def test_too_few(tmp_path, train, dev, message):
    path = pairs(tmp_path, "train", 0, train)
    with pytest.raises(DataError, match=message):
        read_splits(path, pairs(tmp_path, "dev", 100, 100 + dev) if dev else None)


def test_scores_that_are_all_equal_name_the_file(tmp_path):
    with pytest.raises(DataError, match=r"dev\.csv: every score is 1"):
        read_splits(pairs(tmp_path, "train", 0, 100), pairs(tmp_path, "dev", 100, 130, score=lambda _: 1))
    with pytest.raises(DataError, match=r"a\.csv: every score is 1"):
        read_splits(pairs(tmp_path, "a", 0, 100, score=lambda _: 1))
