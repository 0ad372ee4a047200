"""The prompt of a role is found under the usual names, and what is missed is said at the start."""

from __future__ import annotations

import pytest

from service.embedding.prompts import role_prompts
from tests.support.checkpoints import TEXTS, close, edit, embed, plain_bert, reference, sentence_transformer, served
from tests.support.tiers import first_fast

Q, D = "search this: ", "read this: "


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("plain") / "bert")


NAMES = [
    ("query", "document"),
    ("query", "passage"),
    ("query", "corpus"),
    ("search_query", "search_document"),
    ("search_query", "search_passage"),
    ("Retrieval-query", "Retrieval-document"),
    ("retrieval.query", "retrieval.passage"),
    ("Query", "Passage"),
    ("web_search_query", None),
    ("s2p_query", None),
    (None, "passage"),
]


@pytest.mark.parametrize(("query", "document"), NAMES)
@pytest.mark.parametrize("saved", [True, False])
def test_the_usual_names(query, document, saved):
    """sentence-transformers saves an empty prompt for each role beside the declared ones."""
    prompts = {"clustering": "group: ", "sts": ""} | ({"query": "", "document": ""} if saved else {})
    prompts |= ({query: Q} if query else {}) | ({document: D} if document else {})
    wanted = {"query": Q if query else "", "document": D if document else ""}
    assert role_prompts(prompts) == {role: text for role, text in wanted.items() if text}


@pytest.mark.parametrize(
    "prompts",
    [
        {},
        {"query": "", "document": ""},
        {"clustering": "a", "sts": "b"},
        {"s2s_query": "a", "question": "b"},
        {"my query": "a", "queries": "b"},
    ],
)
def test_names_that_are_not_those_of_a_role(prompts):
    assert role_prompts(prompts) == {}


def test_the_names_of_sentence_transformers_come_first():
    prompts = {"s2p_query": "1", "search_query": "2", "query": "3", "search_document": "4", "corpus": "5"}
    assert role_prompts(prompts) == {"query": "3", "document": "5"}
    assert role_prompts(prompts | {"passage": "6"})["document"] == "6"
    assert role_prompts(prompts | {"document": "7", "passage": "6"})["document"] == "7"
    assert role_prompts({"query": "1", "Query": "2"}) == role_prompts({"Query": "2", "query": "1"}) == {"query": "1"}


@pytest.mark.parametrize(("query", "document"), NAMES[:7])
def test_texts_of_a_role_have_its_prompt(bert, tmp_path, query, document):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", prompts={query: Q, document: D})
    with served(folder) as models:
        theirs = reference(folder)
        assert close(embed(models, TEXTS, role="query"), theirs.encode(TEXTS, prompt=Q))
        assert close(embed(models, TEXTS, role="document"), theirs.encode(TEXTS, prompt=D))
        assert not close(embed(models, TEXTS, role="document"), theirs.encode(TEXTS), 1e-2)
        assert models.get().recipe.warnings == ()


@pytest.mark.parametrize(
    "prompts",
    [
        {"clustering": "group: ", "sts": "compare: "},
        {"s2s_query": "alike: "},
        {"ask": "search: ", "answer": "read: "},
    ],
)
def test_prompts_of_no_role_are_told_of(bert, tmp_path, prompts, caplog):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    with served(folder) as models:
        (warning,) = models.get().recipe.warnings
    assert ", ".join(sorted(prompts)) in warning and "collections and searches use none" in warning
    assert warning in caplog.text
    with served(folder, prompts={**prompts, "query": Q, "document": D}) as models:
        assert models.get().recipe.warnings == ()


@pytest.mark.parametrize(
    ("prompts", "role", "names"),
    [
        ({"query": Q, "doc": D}, "document", "doc"),
        ({"query": Q, "answer": D, "posts": D, "clustering": "group: "}, "document", "answer, posts"),
        ({"query": Q, "document": "", "text": D}, "document", "text"),
        ({"passage": D, "question": Q}, "query", "question"),
    ],
)
def test_a_prompt_that_may_be_that_of_a_role_is_told_of(bert, tmp_path, prompts, role, names, caplog):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    with served(folder) as models:
        (warning,) = models.get().recipe.warnings
    assert f"no prompt is called {role}, " in warning and f"no role uses {names};" in warning
    assert warning in caplog.text
    for text in ("x: ", ""):
        with served(folder, prompts={"query": Q, "document": D, **prompts, role: text}) as models:
            assert models.get().recipe.warnings == ()


@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        ({"query": Q}, None),
        ({"query": Q, "document": ""}, "query"),
        ({"query": Q, "plain": "x: "}, "plain"),
        ({"query": Q, "again": Q}, None),
        ({"query": Q, "clustering": "a", "Classification": "b", "STSBenchmark": "c", "s2s_query": "d"}, None),
        ({"web_search_query": Q, "sts_query": "a", "summarization_query": "b", "bitext_query": "c"}, None),
        ({"passage": D, "docs": "a"}, None),
    ],
)
def test_prompts_that_no_role_lacks(bert, tmp_path, prompts, default):
    folder = sentence_transformer(bert, tmp_path / "model", "mean", prompts=prompts)
    edit(folder / "config_sentence_transformers.json", default_prompt_name=default)
    with served(folder) as models:
        assert models.get().recipe.warnings == ()


READMES = {
    "double quotes": ('Each text should start with "query: " or "passage: ".', ["passage: ", "query: "]),
    "single quotes": ("texts = ['query: how much', 'passage: that much']", ["passage: ", "query: "]),
    "a formatted string": ('model.encode(f"search_query: {text}")', ["search_query: "]),
    "code": ("Put `search_document: ` before documents.", ["search_document: "]),
    "HTML": ("Put <code>query: </code> before queries.", ["query: "]),
    "a fence": ("Embed\n```\nquery: how much\npassage: that much\n```\nof these", ["passage: ", "query: "]),
    "a fence of text": ("```text\nsearch_query: how much\n```", ["search_query: "]),
    "an instruction": (
        "`Represent this sentence for searching relevant passages:`",
        ["Represent this sentence for searching relevant passages:"],
    ),
    "code without a space": ("Put `query:` or `passage:` before each text.", ["passage: ", "query: "]),
    "HTML without a space": ("Put <code>query:</code> before queries.", ["query: "]),
    "bold": ("Put **query:** before queries.", ["query: "]),
    "curly quotes": ("Put \u201cquery:\u201d before queries.", ["query: "]),
    "a capital": ('prompts = {"q": "Query: "}', ["Query: "]),
    "a prefix in prose": ("For queries, add the prefix query: to the text.", ["query: "]),
    "prefixed in prose": ("Documents must be prefixed with passage: as in training.", ["passage: "]),
    "an instruction in prose": (
        "Use Represent this sentence for searching relevant passages: for queries.",
        ["Represent this sentence for searching relevant passages:"],
    ),
    "a task": ("return f'Instruct: {task_description}\\nQuery: {query}'", ["Instruct: "]),
    "a task in words": ('"task: search result | query: {content}"', ["task: search result | query: "]),
}


@pytest.mark.parametrize("told", first_fast(READMES))
def test_a_prompt_that_only_the_readme_tells(bert, tmp_path, told, caplog):
    text, wanted = READMES[told]
    folder = sentence_transformer(bert, tmp_path / "model", "mean")
    (folder / "README.md").write_text(f"# A model\n\n{text}\n")
    with served(folder) as models:
        (warning,) = models.get().recipe.warnings
    assert f"the README speaks of {', '.join(map(repr, wanted))};" in warning and warning in caplog.text
    for prompts in ({}, {"query": Q}):
        with served(folder, prompts=prompts) as models:
            assert models.get().recipe.warnings == ()
    edit(folder / "config_sentence_transformers.json", prompts={"query": Q, "document": ""})
    with served(folder) as models:
        assert models.get().recipe.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "Ask a query: the answer comes. A passage: short.",
        "```yaml\nquery: select\n```",
        'print("Query:", query, "Passage: ", passage)',
        "A query is a question.",
        "The SQL query: select. Prefix the SQL query: select. It starts with an SQL query: select.",
        "**Query:** Who was it?\n\n- **query:** the text to search for\n- **document:** another",
        'question = input("Query: ")\nlogger.info("Document: ", document)',
        '{"query": "who was it?", "passage": "this one"}',
        "Represent the text as a vector: that is what it does.",
        "",
    ],
)
def test_a_readme_that_tells_of_none(bert, tmp_path, text):
    folder = sentence_transformer(bert, tmp_path / "model", "mean")
    (folder / "README.md").write_text(text)
    with served(folder) as models:
        assert models.get().recipe.warnings == ()
