"""Models with a Router: each text goes the route of its role, as in sentence-transformers."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    StaticEmbedding,
    Transformer,
)

from service.embedding.embedder import Embedder
from service.embedding.late_interaction import MaxSim
from service.errors import CheckpointError, InvalidInput
from tests.support.checkpoints import DIM, TEXTS, close, edit, plain_bert, reference, wordpiece

PROMPTS = {"query": "query: ", "document": "passage: "}
TORCH = {"backend": "torch", "precision": "fp32", "threads": 1}

Make = Callable[[Path], list[torch.nn.Module]]


def transformer(folder: Path, **config: Any) -> Transformer:
    return Transformer(str(plain_bert(folder / f"plain-{len(list(folder.glob('plain-*')))}", **config)))


def small(folder: Path) -> Transformer:
    return transformer(folder, num_hidden_layers=1)


def dense(size: int = 16) -> Dense:
    return Dense(DIM, size)


def static_queries(folder: Path) -> list[torch.nn.Module]:
    queries = [StaticEmbedding(wordpiece(), embedding_dim=DIM)]
    return [Router.for_query_document(queries, [transformer(folder), Pooling(DIM, "cls")]), Normalize()]


def two_encoders(folder: Path) -> list[torch.nn.Module]:
    queries, documents = [small(folder), Pooling(DIM)], [transformer(folder), Pooling(DIM, "cls"), Normalize()]
    return [Router.for_query_document(queries, documents)]


def shared_pooling(folder: Path) -> list[torch.nn.Module]:
    router = Router.for_query_document([small(folder)], [transformer(folder)])
    return [router, Pooling(DIM, include_prompt=False), dense(), Normalize()]


def shared_encoder(folder: Path) -> list[torch.nn.Module]:
    router = Router.for_query_document([dense()], [dense(), Normalize()], default_route="query")
    return [transformer(folder), Pooling(DIM), router]


def one_way_for_nothing(folder: Path) -> list[torch.nn.Module]:
    return [transformer(folder), Pooling(DIM), Router({"query": [dense(DIM)], "document": []}), Normalize()]


def mapped_names(folder: Path) -> list[torch.nn.Module]:
    routes = {"small": [small(folder), Pooling(DIM)], "large": [transformer(folder), Pooling(DIM, "max")]}
    mappings = {("query", "text"): "small", ("document", None): "large", (None, None): "large"}
    return [Router(routes, route_mappings=mappings)]


def a_third_by_default(folder: Path) -> list[torch.nn.Module]:
    routes = {name: [dense()] for name in ("query", "document", "clustering")}
    return [transformer(folder), Pooling(DIM), Router(routes, default_route="clustering")]


def nested(folder: Path) -> list[torch.nn.Module]:
    inside = Router.for_query_document([dense()], [dense()])
    router = Router.for_query_document(
        [small(folder), Pooling(DIM), inside], [transformer(folder), Pooling(DIM), dense()]
    )
    return [router]


def two_in_a_row(folder: Path) -> list[torch.nn.Module]:
    routers = [Router.for_query_document([dense(size)], [dense(size)]) for size in (DIM, 16)]
    return [transformer(folder), Pooling(DIM), *routers]


def an_encoder_named_twice(folder: Path) -> list[torch.nn.Module]:
    encoder = transformer(folder)
    return [Router.for_query_document([encoder, Pooling(DIM)], [encoder, Pooling(DIM, "cls")])]


def layers_of_tokens(folder: Path) -> list[torch.nn.Module]:
    queries, documents = (Dense(DIM, 16, module_input_name="token_embeddings") for _ in range(2))
    return [transformer(folder), Router.for_query_document([queries], [documents]), Pooling(16)]


KINDS: list[Make] = [
    *(static_queries, two_encoders, shared_pooling, shared_encoder, one_way_for_nothing, mapped_names),
    *(a_third_by_default, nested, two_in_a_row, an_encoder_named_twice, layers_of_tokens),
]


def save(make: Make, folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20)
    SentenceTransformer(modules=make(folder), device="cpu", **settings).save(str(folder / "model"))
    return folder / "model"


def load(folder: Path, **settings: Any) -> Embedder:
    return Embedder.load(str(folder), runtime=TORCH, **settings)


@pytest.fixture(scope="module", params=KINDS, ids=lambda make: make.__name__)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("routes"), prompts=PROMPTS)


def test_each_role_goes_its_route(model: Path) -> None:
    theirs = reference(model)
    with load(model) as ours:
        query, document, default = ours.encode_query(TEXTS), ours.encode_document(TEXTS), ours.encode(TEXTS)
        assert close(query, theirs.encode_query(TEXTS))
        assert close(document, theirs.encode_document(TEXTS))
        assert close(default, theirs.encode(TEXTS))
        bare = ours.encode(TEXTS, role="query", prompt="")
        assert close(bare, theirs.encode(TEXTS, task="query"))
        assert not close(bare, ours.encode(TEXTS, role="document", prompt=""), 1e-2)


def test_a_default_prompt_goes_the_default_route(tmp_path: Path) -> None:
    folder = save(shared_pooling, tmp_path, prompts=PROMPTS, default_prompt_name="query")
    with load(folder) as ours:
        assert close(ours.encode(TEXTS), reference(folder).encode(TEXTS))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(two_encoders, tmp_path_factory.mktemp("two"), prompts=PROMPTS)


@pytest.fixture
def copy(two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two, tmp_path / "copy"))


def parameters(folder: Path, **changes: Any) -> None:
    config = folder / "router_config.json"
    edit(config, parameters=json.loads(config.read_text())["parameters"] | changes)


def test_without_a_default_route_the_role_has_to_be_said(copy: Path) -> None:
    parameters(copy, default_route=None, allow_empty_key=False)
    with load(copy) as ours:
        assert close(ours.encode_query(TEXTS), reference(copy).encode_query(TEXTS))
        with pytest.raises(InvalidInput, match=r"none by default.* 'input_type' query or document"):
            ours.encode(TEXTS)


def test_the_first_route_is_the_default_one_where_none_is_named(copy: Path) -> None:
    parameters(copy, default_route=None)
    with load(copy) as ours:
        assert close(ours.encode(TEXTS), reference(copy).encode(TEXTS))
        assert close(ours.encode(TEXTS), ours.encode(TEXTS, role="query", prompt=""))


def test_a_prompt_of_the_other_role_is_no_route(two: Path) -> None:
    with load(two) as ours:
        with pytest.raises(InvalidInput, match=r"'query' is one of a query.*'input_type' query instead"):
            ours.encode(TEXTS, prompt_name="query")
        found = ours.encode(TEXTS, prompt_name="document")
        assert close(found, reference(two).encode(TEXTS, prompt_name="document"))


@pytest.mark.parametrize("make", [shared_encoder, two_in_a_row, an_encoder_named_twice])
def test_an_encoder_that_routes_share_is_loaded_once(tmp_path: Path, make: Make) -> None:
    with load(save(make, tmp_path)) as ours:
        query, document = ours.of("query"), ours.of("document")
        assert query is not document
        assert query.encoder is document.encoder


def test_routes_by_modality_alone_are_one_model(tmp_path: Path) -> None:
    def make(folder: Path) -> list[torch.nn.Module]:
        return [transformer(folder), Pooling(DIM), Router({"text": [dense()], "image": [dense()]})]

    folder = save(make, tmp_path)
    parameters(folder / "2_Router", route_mappings={"(None, 'text')": "text", "(None, 'image')": "image"})
    with load(folder) as ours:
        assert not ours.routes
        assert close(ours.encode_query(TEXTS), reference(folder).encode_query(TEXTS))


def test_an_asym_of_earlier_releases(copy: Path) -> None:
    declared = json.loads((copy / "router_config.json").read_text())
    (copy / "router_config.json").unlink()
    (copy / "config.json").write_text(json.dumps(declared | {"parameters": {"allow_empty_key": True}}))
    listed = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([listed[0] | {"type": "sentence_transformers.models.Asym"}]))
    with load(copy) as ours:
        assert close(ours.encode_document(TEXTS), reference(copy).encode_document(TEXTS))
        assert close(ours.encode(TEXTS), ours.encode(TEXTS, role="query", prompt=""))


def test_states_of_other_sizes_are_not_compared(tmp_path: Path) -> None:
    def make(folder: Path) -> list[torch.nn.Module]:
        queries = [StaticEmbedding(wordpiece(), embedding_dim=16)]
        return [Router.for_query_document(queries, [transformer(folder), Pooling(DIM), dense()])]

    with load(save(make, tmp_path)) as ours:
        assert ours.dim == 16
        with pytest.raises(InvalidInput, match="16 numbers for queries and 24 for documents"):
            asyncio.run(MaxSim(ours).score(TEXTS[0], TEXTS))


# Fingerprints


def changed_queries(folder: Path) -> None:
    edit(folder / "query_1_Pooling" / "config.json", pooling_mode="max")


def other_weights_of_queries(folder: Path) -> None:
    other_weights(folder / "query_0_Transformer" / "model.safetensors")


def other_weights_of_documents(folder: Path) -> None:
    other_weights(folder / "document_0_Transformer" / "model.safetensors")


def other_weights(path: Path) -> None:
    save_file({name: weights + 0.01 for name, weights in load_file(path).items()}, path, {"format": "pt"})


def changed_documents(folder: Path) -> None:
    edit(folder / "document_1_Pooling" / "config.json", pooling_mode="max")


def another_default(folder: Path) -> None:
    parameters(folder, default_route="query")


def swapped(folder: Path) -> None:
    parameters(folder, route_mappings={"('query', None)": "document", "('document', None)": "query"})


def fingerprint(folder: Path) -> str:
    with load(folder) as ours:
        return ours.fingerprint


CHANGES = [
    *(changed_queries, changed_documents, other_weights_of_queries, other_weights_of_documents),
    *(another_default, swapped),
]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_a_vector_changes_the_fingerprint(two: Path, copy: Path, change: Any) -> None:
    before = fingerprint(copy)
    assert before == fingerprint(two)
    change(copy)
    assert fingerprint(copy) != before


# What is refused


def without_documents(folder: Path) -> None:
    config = json.loads((folder / "router_config.json").read_text())
    structure = {"query": config["structure"]["query"], "doc": config["structure"]["document"]}
    edit(folder / "router_config.json", structure=structure)
    parameters(folder, default_route="doc")


def of_another_size(folder: Path) -> None:
    edit(folder / "query_1_Pooling" / "config.json", pooling_mode=["mean", "max"])


def through_itself(folder: Path) -> None:
    edit(folder / "router_config.json", structure={"query": [""], "document": [""]}, types={"": "x"})


def through_what_is_not_named(folder: Path) -> None:
    edit(folder / "router_config.json", structure={"query": ["other"], "document": ["other"]})


def out_of_the_folder(folder: Path) -> None:
    edit(folder / "router_config.json", structure={"query": ["../x"], "document": ["../x"]}, types={"../x": "x"})


def by_an_unreadable_key(folder: Path) -> None:
    parameters(folder, route_mappings={"query": "query"})


def by_a_key_of_a_list(folder: Path) -> None:
    parameters(folder, route_mappings={"(['query'], None)": "query"})


def without_routes(folder: Path) -> None:
    edit(folder / "router_config.json", structure={})


def with_routes_in_a_list(folder: Path) -> None:
    edit(folder / "router_config.json", structure=[["query"]])


def to_no_route(folder: Path) -> None:
    parameters(folder, default_route="passage")


def with_an_unknown_parameter(folder: Path) -> None:
    parameters(folder, temperature=2)


def with_an_unknown_module(folder: Path) -> None:
    config = json.loads((folder / "router_config.json").read_text())
    edit(
        folder / "router_config.json",
        types=config["types"] | {"query_1_Pooling": "sentence_transformers.models.LSTM"},
    )


def without_its_config(folder: Path) -> None:
    (folder / "router_config.json").unlink()


def with_a_sparse_route(folder: Path) -> None:
    config = json.loads((folder / "router_config.json").read_text())
    kind = "sentence_transformers.sparse_encoder.modules.SparseStaticEmbedding"
    edit(folder / "router_config.json", types=config["types"] | {"query_0_Transformer": kind})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_documents, r"no route for texts that are a document, but the routes 'query', 'doc'.*route_mappings"),
        (of_another_size, "48 dimensions on the route query, 24 dimensions on the route document"),
        (through_itself, "is the Router itself"),
        (through_what_is_not_named, "a route through 'other', whose type it does not name"),
        (out_of_the_folder, "leads out of the model folder"),
        (by_an_unreadable_key, "has the key 'query', and should have such as"),
        (by_a_key_of_a_list, "has the key .*'query'.*, and should have such as"),
        (without_routes, r"router_config.json: structure"),
        (with_routes_in_a_list, r"router_config.json: structure"),
        (to_no_route, "names the route 'passage', and has the routes 'query', 'document'"),
        (with_an_unknown_parameter, "has .'temperature'., which may change the route. Known are"),
        (with_an_unknown_module, "the route of a query: .*LSTM.*is not one that can be followed"),
        (without_its_config, "router_config.json: is missing"),
        (with_a_sparse_route, "is a sparse encoder with a Router"),
    ],
)
def test_what_cannot_be_followed_is_refused(copy: Path, change: Any, said: str) -> None:
    change(copy)
    with pytest.raises(CheckpointError, match=said):
        load(copy)
