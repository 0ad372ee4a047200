"""Keyword and hybrid search, a threshold, diversity, vectors on request, and recommendations, by collection."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.collections.embedded import EmbeddedEngine
from service.collections.fusion import Part
from service.collections.refinement import Refinement
from service.embedding.chunking import Chunking
from service.errors import InvalidInput, KeywordsUnavailable, NotFound, TooLong
from service.store import Chunked, Document
from service.store import keyword as keyword_module
from service.store.segmentation import segmented, uniform
from service.store.tokenizers import TOKENIZERS
from tests.support.definitions import definition

X, Y = [1, 0], [0, 1]
TEXTS = {
    "harp": "A man is playing a harp by the mill-pond.",
    "mill": "The mill grinds corn, and the mill wheel turns.",
    "naïve": "Naïve reading of the Æneid: école, ECOLE.",
    "ja": "東京大学に行く猫",
    "zh": "他在北京大学学习",
    "th": "ผมกินข้าวที่บ้าน",
    "km": "ខ្ញុំស្រលាញ់ភាសាខ្មែរ",
    "my": "မြန်မာဘာသာစကား",
    "lo": "ພາສາລາວງາມ",
    "hi": "हिन्दी भाषा सुन्दर है",
    "syntax": 'foo:bar AND "quoted" NOT -minus near* (x)',
    "wide": "\uff21\uff22\uff23\uff11\uff12\uff13 \ufb01nal \uff83\uff7d\uff84",
    "decomposed": "cafe\u0301 한글",
    "nul": "before\0after",
    "nothing": "…",
}


def made(collections, tokenizer="unicode61", texts=TEXTS, name=None, metadata=None):
    """A collection of texts, each along its own direction of a quarter circle."""
    collection, _ = collections.create(name or tokenizer, definition(), 2, "flat", tokenizer=TOKENIZERS[tokenizer])
    angles = np.linspace(0, np.pi / 2, len(texts))
    documents = [Document(id_, text, (metadata or {}).get(id_, {})) for id_, text in texts.items()]
    collection.upsert(documents, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    return collection


def found(collection, query, k=20, filter_=None):
    return [hit.id for hit in collection.search_keywords([collection.terms(query)], k, filter_)[0]]


def intact(folder):
    """Every full-text table has exactly what is stored."""
    connection = sqlite3.connect(folder / "millpond.sqlite3")
    for (key,) in connection.execute("SELECT key FROM collections").fetchall():
        table = f"keywords_{key}"
        connection.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema") if "keywords_" in name}
    connection.close()
    return tables


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("harp", ["harp"]),
        ("HARP!", ["harp"]),
        ("mill", ["mill", "harp"]),
        ("mill-wheel harp", ["mill", "harp"]),
        ("naive", ["naïve"]),
        ("ecole École", ["naïve"]),
        ("grind", []),
        ("大学", ["ja", "zh"]),
        ("猫", ["ja"]),
        ("学", ["zh", "ja"]),
        ("北京 猫", ["ja", "zh"]),
        ("ข้าว", ["th"]),
        ("ភាសា", ["km"]),
        ("ဘာသာ", ["my"]),
        ("ລາວ", ["lo"]),
        ("हिन्दी", ["hi"]),
        ("हन्द", []),
        ("foo:bar", ["syntax"]),
        ("NOT", ["syntax"]),
        ("near*", ["syntax"]),
        ("nea*", []),
        ("text:harp", ["harp"]),
        ('"', []),
        ("-harp ^mill NEAR(", ["harp", "mill", "syntax"]),
        ("abc123 final テスト", ["wide"]),
        ("café", ["decomposed"]),
        ("한글".encode().decode(), ["decomposed"]),
        ("after\0 ☃", ["nul"]),
        ("", []),
        (" \n", []),
        ("… ❤️ ☃", []),
        ("nowhere", []),
    ],
)
def test_words_find_what_has_them(collections, query, expected):
    assert found(made(collections), query) == expected


@pytest.mark.parametrize("query", ["Straße Strasse", "STRASSE straße"])
def test_a_sharp_s_is_another_word_than_two(collections, query):
    texts = {"one": "Die Straße ist lang.", "two": "Die Strasse ist lang.", "none": "Der Weg."}
    assert sorted(found(made(collections, texts=texts), query)) == ["one", "two"]


MARKS = [
    ("שָׁלוֹם", "שלום"),
    ("\ufb2a\ufb4bר", "\u05e9\u05d5ר"),  # points that are one character with their letter
    ("\u200fكتب\u200e", "كتب"),
    ("كِتَابٌ", "كتاب"),
    ("ســلام", "سلام"),
    ("أُحِبُّ", "أحب"),
    ("ܫܠܳܡܳܐ", "ܫܠܡܐ"),
    ("наро́дный", "народный"),
    ("co\u00adoperate", "cooperate"),
    ("str\u0336o\u0361ke", "stroke"),
    ("1\ufe0f\u20e32", "12"),
    ("क्\u200dष", "क्ष"),
    ("葛\U000e0100飾区", "葛飾区"),
]


@pytest.mark.parametrize("tokenizer", ["unicode61", "porter"])
def test_marks_that_a_word_may_have_or_not_neither_split_nor_join(collections, tokenizer):
    texts = {f"{n} {kind}": f"before {word} after" for n, pair in enumerate(MARKS) for kind, word in enumerate(pair)}
    collection = made(collections, tokenizer, texts)
    for number, (marked, bare) in enumerate(MARKS):
        expected = [f"{number} 0", f"{number} 1"]
        assert sorted(found(collection, marked)) == sorted(found(collection, bare)) == expected, bare
        if "葛" not in bare:  # which is found by its parts
            assert found(collection, bare[: len(bare) // 2]) == found(collection, f"{bare}{bare}") == []
    assert len(found(collection, "before", k=100)) == len(found(collection, "after", k=100)) == len(texts)


def test_letters_are_not_marks(collections):
    """Vowel signs that a word is another one without, and what is part of a letter."""
    texts = {"hi": "हिन्दी", "ja": "がく", "ru": "й", "he": "בית־ספר", "ar": "آب"}
    collection = made(collections, texts=texts)
    for query in ("हनद", "かく", "и"):
        assert found(collection, query) == []
    for id_, text in texts.items():
        assert found(collection, text) == [id_]
        assert found(collection, unicodedata.normalize("NFD", text)) == [id_]
    assert found(collection, "ספר") == ["he"]


def test_accents_are_left_out_of_latin_letters_alone_in_texts_as_in_queries(collections):
    """Of every accented letter of the three scripts that is one character, in both of its spellings."""
    letters = [chr(code) for code in [*range(0xC0, 0x250), *range(0x370, 0x530), *range(0x1E00, 0x2000)]]
    accented = [each for each in letters if each.islower() and len(unicodedata.normalize("NFD", each)) > 1]
    texts = {each: f"q{each}q" for each in accented if unicodedata.normalize("NFC", each) == each}
    collection = made(collections, texts=texts)
    for each, text in texts.items():
        decomposed = unicodedata.normalize("NFD", text)
        hits = found(collection, text, k=len(texts))
        assert each in hits
        assert hits == found(collection, decomposed, k=len(texts))
        if each in "ǡǣǯǽǿẛ":  # which SQLite's table lacks
            continue
        latin = unicodedata.name(each).startswith("LATIN")
        bare = found(collection, f"q{unicodedata.normalize('NFD', each)[0]}q", k=len(texts))
        assert (each in bare) == latin, each


def test_texts_that_were_indexed_with_their_marks_are_indexed_anew(collections, folder):
    collection = made(collections, texts={"marked": "שָׁלוֹם 大学", "plain": "harp", "kept": "naïve"})
    collections.close()
    connection = sqlite3.connect(folder / "millpond.sqlite3", isolation_level=None)
    (table,) = (f"keywords_{key}" for (key,) in connection.execute("SELECT key FROM collections"))
    (key,) = connection.execute("SELECT key FROM documents WHERE id = 'marked'").fetchone()
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (key,))
    before = segmented(uniform("שָׁלוֹם 大学"))
    connection.execute("UPDATE segmented SET text = ? WHERE document = ?", (before, key))
    connection.execute(f"INSERT INTO {table} (rowid, text) VALUES (?, ?)", (key, before))
    connection.execute("BEGIN")
    keyword_module.renew(connection)
    connection.execute("COMMIT")
    connection.close()
    intact(folder)
    reopened = EmbeddedEngine(folder)
    collection = reopened.get("unicode61")
    for query, expected in (("שלום", "marked"), ("שָׁלוֹם", "marked"), ("大学", "marked"), ("harp", "plain")):
        assert found(collection, query) == [expected]
    assert found(collection, "naive") == ["kept"]
    collection.delete("marked")
    assert found(collection, "שלום") == []
    reopened.close()
    intact(folder)


def test_stems(collections):
    collection = made(collections, "porter")
    assert found(collection, "grinding mills") == ["mill", "harp"]
    assert found(collection, "大学") == ["ja", "zh"]


def test_substrings(collections):
    collection = made(collections, "trigram")
    assert found(collection, "ARP") == ["harp"]
    assert found(collection, "l-p of") == ["harp"]  # what has fewer characters is left out
    assert found(collection, '"quo') == ["syntax"]
    assert found(collection, "京大学") == ["zh", "ja"] or found(collection, "京大学") == ["ja", "zh"]
    assert found(collection, "") == []
    for short in ("ar", "大学", "a b\0c"):
        with pytest.raises(InvalidInput, match="three characters"):
            collection.terms(short)


@given(st.text(), st.sampled_from(["unicode61", "porter"]))
def test_any_query_is_taken_literally(any_collections, query, tokenizer):
    """No text is a mistake, and what was stored is found by its own words."""
    collection = any_collections[tokenizer]
    terms = collection.terms(query)
    collection.upsert([Document("it", query, {})], np.array([X], np.float32))
    hits = [hit.id for hit in collection.search_keywords([terms], 100)[0]]
    assert terms or not hits
    if re.search("[0-9A-Za-z]", query):
        assert "it" in hits


@pytest.fixture(scope="module")
def any_collections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any") / "store"
    opened = EmbeddedEngine(folder)
    yield {name: made(opened, name) for name in TOKENIZERS}
    opened.close()
    intact(folder)


def test_a_long_query(collections):
    collection = made(collections)
    words = [f"w{i}" for i in range(1100)]
    with pytest.raises(TooLong, match=r"1101 different words.*1024"):
        collection.terms(" ".join(["harp", *words]))
    assert found(collection, " ".join(["harp"] * 2000)) == ["harp"]
    (hits,) = collection.search_keywords([collection.terms(" ".join(["harp", *words]), truncate=True)], 5)
    assert [hit.id for hit in hits] == ["harp"]


def test_scores_are_bm25_of_the_collection_alone(collections):
    """As in Robertson and Zaragoza (2009), with SQLite's k1 = 1.2 and b = 0.75, whatever another collection has."""
    texts = {"a": "mill mill pond", "b": "mill harp", "c": "cat", "d": "dog sleeps here", "e": "bird"}
    collection = made(collections, texts=texts)
    made(collections, "porter", {str(i): "mill" for i in range(50)})
    average = sum(len(text.split()) for text in texts.values()) / 5
    (hits,) = collection.search_keywords([collection.terms("mill pond")], 5)

    def score(text):
        words, total = text.split(), 0.0
        for word in ("mill", "pond"):
            having = sum(word in other.split() for other in texts.values())
            times = words.count(word)
            idf = np.log((5 - having + 0.5) / (having + 0.5))
            total += idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(words) / average))
        return total

    assert [(hit.id, hit.score) for hit in hits] == [(i, pytest.approx(score(texts[i]), rel=1e-5)) for i in "ab"]
    assert [hit.parts for hit in hits] == [{"keyword": Part(n, hit.score)} for n, hit in enumerate(hits, 1)]


def test_the_text_table_follows_the_documents(collections, folder):
    collection = made(collections)
    vector = np.array([X], np.float32)
    collection.upsert([Document("ja", "a harp instead", {})], vector)
    collection.upsert([Document("harp", "猫がいる", {}), Document("new", "大学", {})], np.array([X, Y], np.float32))
    collection.delete("zh")
    assert found(collection, "harp") == ["ja"]
    assert found(collection, "猫") == ["harp"]
    assert found(collection, "大学") == ["new"]
    intact(folder)
    collections.drop("unicode61")
    assert intact(folder) == set()


def test_k_and_filters(collections):
    texts = {f"d{i}": "mill" + " pond" * i for i in range(30)}
    texts["d7"] += " rare"
    collection = made(collections, texts=texts, metadata={f"d{i}": {"even": i % 2 == 0} for i in range(30)})
    everything = found(collection, "mill", 100)
    assert everything == [f"d{i}" for i in range(30)]  # shorter texts first
    assert found(collection, "mill", 3) == everything[:3]
    assert found(collection, "mill", 3, {"even": False}) == ["d1", "d3", "d5"]
    assert found(collection, "mill", 3, {"even": "no"}) == []
    assert [found(collection, "rare", 3, {"even": even}) for even in (False, True)] == [["d7"], []]
    assert found(collection, "mill", 100, {"even": {"$exists": True}}) == everything
    with pytest.raises(ValueError, match="k must be"):
        found(collection, "mill", 0)


# Both


def test_hybrid_sums_reciprocal_ranks(collections):
    collection = made(collections)
    terms = collection.terms("mill")
    (hits,) = collection.search_hybrid(np.array([X], np.float32), [terms], 3)
    nearest = collection.search(np.array([X], np.float32), 3)[0]
    by_words = collection.search_keywords([terms], 3)[0]
    assert [hit.id for hit in hits] == ["harp", "mill", "naïve"]  # of equal sums, the one that comes first
    assert hits[1].parts == {"dense": Part(2, nearest[1].score), "keyword": Part(1, by_words[0].score)}
    assert [hit.score for hit in hits] == [1 / 61 + 1 / 62, 1 / 62 + 1 / 61, 1 / 63]
    assert hits[2].parts == {"dense": Part(3, nearest[2].score)}
    queries = np.array([X, Y], np.float32)
    two = collection.search_hybrid(queries, [terms, collection.terms("harp")], 3)
    assert two[0] == hits and two[1][0].id == "harp"


def test_hybrid_with_weights_is_either_side(collections):
    collection = made(collections)
    query, terms = np.array([Y], np.float32), collection.terms("mill harp")
    dense, by_words = collection.search(query, 4)[0], collection.search_keywords([terms], 4)[0]
    for weights, alone in (({"keyword": 0}, dense), ({"dense": 0}, by_words)):
        (hits,) = collection.search_hybrid(query, [terms], 4, weights=weights)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
    no_words = collection.search_hybrid(query, [[]], 4)[0]
    assert [hit.id for hit in no_words] == [hit.id for hit in dense]


def test_hybrid_keeps_to_the_filter(collections):
    collection = made(collections, metadata={"mill": {"n": 1}, "zh": {"n": 1}})
    (hits,) = collection.search_hybrid(np.array([X], np.float32), [collection.terms("harp mill")], 9, {"n": 1})
    assert [hit.id for hit in hits] == ["mill", "zh"]


def test_chunked_documents_are_ranked_whole_and_shown_by_their_nearest_span(collections, chunked):
    terms = chunked.terms("pond")
    (by_words,) = chunked.search_keywords([terms], 5)
    assert [(hit.id, hit.span) for hit in by_words] == [("b", None), ("a", None)]
    (hits,) = chunked.search_hybrid(np.array([X], np.float32), [terms], 5)
    assert [(hit.id, hit.span, set(hit.parts)) for hit in hits] == [
        ("b", (0, 4), {"dense", "keyword"}),
        ("a", (5, 9), {"dense", "keyword"}),
        ("c", (0, 3), {"dense"}),
    ]


def test_what_words_alone_find_has_its_nearest_span_too(chunked, monkeypatch):
    monkeypatch.setattr("service.collections.embedded.searching._LEAST_FUSED", 1)
    monkeypatch.setattr("service.collections.embedded.searching._FUSED", 1)
    (hits,) = chunked.search_hybrid(np.array([Y], np.float32), [chunked.terms("harp")], 1, weights={"keyword": 2})
    assert [(hit.id, hit.span, set(hit.parts)) for hit in hits] == [("c", (0, 3), {"keyword"})]


@pytest.fixture
def chunked(collections):
    """Three documents: `b` is nearest to X and has the word twice."""
    collection, _ = collections.create("chunked", replace(definition(), chunking=Chunking(None, "late")), 2)
    spans = [((0, 4), (5, 9)), ((0, 4), (5, 9)), ((0, 3),)]
    vectors = np.array([Y, [1, 0.5], X, Y, [1, 1]], np.float32)
    documents = [Document("a", "mill pond", {}), Document("b", "pond pond", {}), Document("c", "harp", {})]
    collection.upsert(documents, Chunked(vectors, spans))
    return collection


# Refinement


def test_a_threshold(collections):
    collection = made(collections)
    query = np.array([X], np.float32)
    hits = collection.search(query, 20)[0]
    for refinement, expected in (
        (Refinement(hits[4].score), hits[:5]),
        (Refinement(1.1), []),
        (Refinement(-2.0), hits),
    ):
        assert collection.search(query, 20, refinement=refinement) == [expected]
    terms = [collection.terms("mill")]
    best, _ = collection.search_keywords(terms, 2)[0]
    assert collection.search_keywords(terms, 2, refinement=Refinement(best.score)) == [[best]]
    fused = collection.search_hybrid(query, terms, 20)[0]
    assert collection.search_hybrid(query, terms, 20, refinement=Refinement(fused[2].score)) == [fused[:3]]


def test_diversity(collections):
    collection, _ = collections.create("notes", definition(), 2)
    vectors = {"a": [1, 0.02], "copy": [1, 0.021], "other": [1, -1], "far": [0, 1]}
    documents = [Document(id_, "mill", {}) for id_ in vectors]
    collection.upsert(documents, np.array(list(vectors.values()), np.float32))

    def chosen(diversity, k=2):
        hits = collection.search(np.array([X], np.float32), k, refinement=Refinement(diversity=diversity))[0]
        return [hit.id for hit in hits]

    assert chosen(0.0, 4) == ["a", "copy", "other", "far"]
    assert chosen(0.5) == ["a", "other"]
    assert chosen(1.0) == ["a", "far"]
    (hits,) = collection.search_hybrid(
        np.array([X], np.float32), [collection.terms("mill")], 2, refinement=Refinement(diversity=0.9)
    )
    assert [hit.id for hit in hits] == ["a", "far"]
    assert hits[0].score > hits[1].score > 0  # the score is the one that it was ranked by


def test_vectors_of_hits(collections, chunked):
    (hits,) = chunked.search(np.array([X], np.float32), 5, refinement=Refinement(vectors=True))
    assert [hit.vector.tolist() for hit in hits] == [[1, 0], [1, 0.5], [1, 1], [0, 1], [0, 1]]
    assert [(hit.id, hit.span) for hit in hits][:2] == [("b", (0, 4)), ("a", (5, 9))]
    (whole,) = chunked.search_keywords([chunked.terms("pond")], 1, refinement=Refinement(vectors=True))
    np.testing.assert_allclose(whole[0].vector, [0.5, 0.5])


# Recommendations


def test_recommend_by_examples(collections):
    collection = made(collections)
    hits, vector = collection.recommend(["harp"], [], 3)
    assert [hit.id for hit in hits] == ["mill", "naïve", "ja"]  # the next directions
    np.testing.assert_allclose(vector, X, atol=1e-6)
    hits, vector = collection.recommend(["harp", "nothing"], ["ja"], 30)
    assert {hit.id for hit in hits} == TEXTS.keys() - {"harp", "nothing", "ja"}
    angle = 3 * np.pi / 2 / (len(TEXTS) - 1)
    np.testing.assert_allclose(vector, [1 - np.cos(angle), 1 - np.sin(angle)], atol=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_recommend_takes_documents_whole(chunked):
    hits, vector = chunked.recommend(["b"], [], 9)
    np.testing.assert_allclose(vector, [0.5, 0.5])
    assert [(hit.id, hit.span) for hit in hits] == [("c", (0, 3)), ("a", (5, 9)), ("a", (0, 4))]
    assert [hit.id for hit in chunked.recommend(["b"], [], 9, grouped=True)[0]] == ["c", "a"]
    assert [hit.id for hit in chunked.recommend(["b"], [], 1)[0]] == ["c"]


def test_recommend_without_a_document_or_a_direction(collections):
    collection, _ = collections.create("notes", definition(), 2)
    collection.upsert([Document(i, i, {}) for i in "ab"], np.array([[1, 0], [2, 0]], np.float32))
    with pytest.raises(NotFound, match="'missing'"):
        collection.recommend(["a", "missing"], [], 1)
    with pytest.raises(InvalidInput, match="no direction"):
        collection.recommend(["a"], ["b"], 1)


# With and without


def test_a_collection_without_keywords(collections, folder):
    collection, _ = collections.create("notes", definition(), 2, "flat", tokenizer=None)
    collection.upsert([Document("a", "mill", {})], np.array([X], np.float32))
    with pytest.raises(KeywordsUnavailable, match=r'created without a keyword index.*"keyword"'):
        collection.terms("mill")
    collections.close()
    opened = EmbeddedEngine(folder)
    assert opened.get("notes").tokenizer is None
    opened.get("notes").delete("a")
    opened.drop("notes")
    opened.close()


def test_an_sqlite_without_fts5(collections, folder, monkeypatch, caplog):
    made(collections)
    made(collections, "porter")
    collections.close()
    with monkeypatch.context() as patched:
        patched.setattr(keyword_module, "is_built_in", lambda _: False)
        for _ in range(2):
            caplog.clear()
            opened = EmbeddedEngine(folder)
            assert "built without FTS5" in caplog.text
            for collection in (opened.get("unicode61"), made(opened, "trigram")):
                with pytest.raises(KeywordsUnavailable, match=r"built without FTS5.*Use a Python"):
                    collection.terms("mill")
                collection.upsert([Document("new", "a 猫 at the mill", {})], np.array([X], np.float32))
                collection.delete("new")
                collection.upsert([Document("new", "another 猫 at the mill", {})], np.array([X], np.float32))
            opened.close()
        opened = EmbeddedEngine(folder)
        opened.drop("porter")
        opened.close()
    opened = EmbeddedEngine(folder)
    assert set(found(opened.get("unicode61"), "mill")) == {"mill", "new", "harp"}
    assert found(opened.get("unicode61"), "猫") == ["new", "ja"]
    assert set(found(opened.get("trigram"), "mill")) == {"mill", "new", "harp"}
    opened.close()
    assert {name for name in intact(folder) if name.startswith("keywords_2")} == set()


def test_what_is_left_unscored_would_not_be_found(collections):
    """Rare words among common ones give the same hits as a plain sum over all documents."""
    rng = np.random.default_rng(7)
    words = [f"w{place}" for place in range(300)]
    shares = 1 / np.arange(1, 301)
    drawn = rng.choice(words, size=(800, 6), p=shares / shares.sum())
    collection = made(collections, texts={str(place): " ".join(row) for place, row in enumerate(drawn)})
    having = {word: int((drawn == word).any(axis=1).sum()) for word in words}

    def expected(query, k):
        scores = np.zeros(len(drawn))
        for word in query:
            times = (drawn == word).sum(axis=1)
            weight = max(np.log((800 - having[word] + 0.5) / (having[word] + 0.5)), 0)
            scores += weight * times * 2.2 / (times + 1.2)  # all texts have one length
        order = np.lexsort((np.arange(800), -scores.round(5)))
        return [round(float(scores[place]), 3) for place in order[:k] if scores[place] > 0]

    for query in (
        ["w0", "w1", "w40"],
        ["w1", "w20", "w30", "w2"],
        ["w200"],
        ["w3", "w2", "w1"],
        ["w0", "w150", "w5"],
    ):
        for k in (1, 5, 50, 1000):
            (hits,) = collection.search_keywords([collection.terms(" ".join(query))], k)
            assert [round(hit.score, 3) for hit in hits] == pytest.approx(expected(query, k), abs=0.0015)


def test_a_word_that_most_documents_have_is_left_out_beside_others(collections):
    texts = {str(place): f"the word{place}" for place in range(25)}
    few, many = dict(list(texts.items())[:3]), made(collections, texts=texts)
    assert found(many, "the word2") == ["2"]
    assert found(many, "the") == found(many, "the sea") == list(texts)[:20]
    assert found(made(collections, texts=few, name="few"), "the word2") == ["2", "0", "1"]
