"""Which data is fitted to, chosen by, judged by."""

import re

import pytest

from pooling.tasks import DataError
from pooling.training import read_splits


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
    assert (splits.train.size, splits.dev.size, splits.test.size, splits.notes) == (100, 30, 40, ())
    other = pairs(tmp_path / "other", "mine", 200, 225)
    assert read_splits(tmp_path, dev=other).dev.size == 25


def test_what_is_missing_is_held_out_and_said_to_be(tmp_path):
    path = pairs(tmp_path, "a", 0, 300)
    splits = read_splits(path)
    assert (splits.train.size, splits.dev.size, splits.test.size) == (240, 30, 30)
    assert splits.notes == tuple(
        f"There is no {split} split: 30 of the 300 pairs or queries of {path} are held out for it."
        for split in ("dev", "test")
    )
    texts = [set(split.parts[0].texts) for split in (splits.train, splits.dev, splits.test)]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 600
    again = read_splits(path)
    assert [again.dev.rows, again.test.rows] == [splits.dev.rows, splits.test.rows]
    given = read_splits(path, test=pairs(tmp_path, "b", 300, 340))
    assert (given.train.size, given.dev.size, given.test.size, len(given.notes)) == (270, 30, 40, 1)


def test_beir_holds_out_queries_and_keeps_the_corpus_for_judging(tmp_path):
    splits = read_splits(beir(tmp_path / "a", train=80, test=25))
    assert (splits.train.size, splits.dev.size, splits.test.size) == (60, 20, 25)
    assert len(splits.train.parts[0].texts) == 60
    assert len(splits.dev.parts[0].texts) == 105
    splits = read_splits(beir(tmp_path / "b", train=60, dev=20, test=30))
    assert (splits.train.size, splits.dev.size, splits.test.size, splits.notes) == (60, 20, 30, ())


def test_an_overlap_is_counted_in_either_order(tmp_path):
    train, dev = pairs(tmp_path, "train", 0, 100), pairs(tmp_path, "dev", 93, 120)
    dev.write_text(dev.read_text().replace("left 95,right 95", "right 95,left 95"))
    assert read_splits(train, dev, pairs(tmp_path, "test", 110, 150)).notes == (
        "7 of the 27 pairs or queries of the dev split are in train too, which flatters what is fitted.",
        "10 of the 40 pairs or queries of the test split are in dev too, which flatters what is fitted.",
    )


@pytest.mark.parametrize(
    ("train", "others", "message"),
    [
        (
            3,
            (),
            r"train\.csv: has 3 pairs to fit to, and at least 90 are needed where dev and test are held out from",
        ),
        (3, (30, 30), r"train\.csv: has 3 pairs to fit to, and at least 50 are needed\."),
        (
            60,
            (30,),
            r"train\.csv: has 60 pairs to fit to, and at least 70 are needed where test is held out from them",
        ),
        (60, (3, 30), r"dev\.csv: has 3 pairs or queries to judge by, and at least 20 are needed"),
    ],
)
def test_too_few(tmp_path, train, others, message):
    pairs(tmp_path, "train", 0, train)
    for split, count in zip(("dev", "test"), others, strict=False):
        pairs(tmp_path, split, 100, 100 + count)
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path)


def test_beir_with_too_few_queries_to_hold_out(tmp_path):
    folder = beir(tmp_path / "a", train=95)
    qrels = folder / "qrels" / "train.tsv"
    qrels.write_text(re.sub(r"q\d+", lambda found: f"q{int(found[0][1:]) % 10}", qrels.read_text()))
    with pytest.raises(DataError, match=r"a: has 0 pairs to fit to, and at least 50 are needed where dev and test"):
        read_splits(folder)


def test_dev_and_test_are_of_one_kind(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv is judged by Spearman, .*b by nDCG@10; dev and test must be"):
        read_splits(pairs(tmp_path, "a", 0, 100), test=beir(tmp_path / "b", test=30))


def test_scores_that_are_all_equal_name_the_file(tmp_path):
    with pytest.raises(DataError, match=r"dev\.csv: every pair has the score 1"):
        read_splits(pairs(tmp_path, "train", 0, 100), pairs(tmp_path, "dev", 100, 130, score=lambda _: 1))
    with pytest.raises(DataError, match=r"a\.csv: every pair has the score 1"):
        read_splits(pairs(tmp_path, "a", 0, 100, score=lambda _: 1))
