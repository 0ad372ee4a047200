"""A static model over HTTP: described, embedded, explained, stored and searched as an encoder is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.modules import Normalize

from service.api import create_app
from service.config import Config
from service.deployment import open_deployment
from tests.support.applications import ask
from tests.support.checkpoints import DIM, TEXTS, close, edit, reference, static


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = static(tmp_path_factory.mktemp("static") / "model", Normalize())
    edit(folder / "config.json", matryoshka_dims=[8, DIM])
    return folder


def test_a_static_model_over_http(folder: Path, tmp_path: Path) -> None:
    config = {"models": {"m": {"encoder": str(folder)}}, "store": {"path": str(tmp_path / "store")}}
    with open_deployment(Config.model_validate(config)) as served:
        app = create_app(served)
        told = ask(app, "GET", "/info").json()["models"]["m"]
        assert (told["backend"], told["precision"], told["pooling"]) == ("static", "fp32", "mean")
        assert told["matryoshka_dimensions"] == [DIM, 8]
        expected = reference(folder).encode(TEXTS)
        for texts in (TEXTS, TEXTS * 40):  # here, and on a thread
            answer = ask(app, "POST", "/embed", json={"inputs": texts})
            assert close(np.array(answer.json(), np.float32), np.tile(expected, (len(texts) // len(TEXTS), 1)))
            assert "x-inference-time" in answer.headers
        cut = np.array(ask(app, "POST", "/embed", json={"inputs": TEXTS, "dimensions": 5}).json(), np.float32)
        assert close(cut, expected[:, :5] / np.linalg.norm(expected[:, :5], axis=1, keepdims=True))
        explained = ask(app, "POST", "/explain", json={"text": TEXTS[0]})
        assert explained.status_code == 200, explained.text
        assert ask(app, "PUT", "/collections/mill").status_code == 201
        documents = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]
        assert ask(app, "POST", "/collections/mill/documents", json={"documents": documents}).status_code < 300
        hits = ask(app, "POST", "/collections/mill/search", json={"query": TEXTS[3], "k": 1}).json()
        assert "3" in str(hits)
        empty = ask(app, "POST", "/embed", json={"inputs": ["mill", " "]})
        assert empty.status_code == 422 and empty.json()["where"] == "inputs[1]"
