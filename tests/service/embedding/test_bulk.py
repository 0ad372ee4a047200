"""Data sets through an encoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from service.config import BatchingConfig, RuntimeConfig
from service.embedding.embedder import Embedder
from service.encoder import Encoder
from service.errors import InvalidInput, Unavailable
from tests.support.checkpoints import plain_bert, served


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return plain_bert(tmp_path_factory.mktemp("bert") / "model")


@pytest.fixture(scope="module")
def model(folder):
    with served(folder, pooling="mean", prompts={"query": "one two "}) as models:
        yield models.get()


def lengths(states, mask, ids):
    return mask.sum(1).tolist()


def test_results_come_in_order_and_are_counted(model):
    texts = [f"{'one two three ' * (1 + number % 7)}{number}" for number in range(300)]
    done = []
    found = list(model.run(texts, lengths, advance=done.append))
    wanted = [len(text.ids) for text in model.encoder.tokenizer.encode(texts)]
    assert np.array_equal(found, np.minimum(wanted, model.recipe.max_tokens))
    assert sum(done) == 300 and len(done) > 1
    assert list(model.run([], lengths)) == []


def test_a_prompt_is_left_out_if_the_model_leaves_it_out(model):
    prompt = model.prompt("query")
    [plain], [asked] = model.run(["three"], lengths), model.run(["three"], lengths, prompt=prompt)
    assert asked > plain
    without = Embedder(model.encoder, replace(model.recipe, include_prompt=False))
    [left_out] = without.run(["three"], lengths, prompt=prompt)
    assert left_out == asked - model.encoder.tokenizer.prompt_length(prompt)


def test_a_text_without_a_token_is_named(model):
    with pytest.raises(InvalidInput, match="the text ' ' has nothing but white space") as caught:
        list(model.run([*["one"] * 200, " "], lengths))
    assert caught.value.where.to_json() == {"field": "texts", "index": 200}


@pytest.mark.slow
def test_a_full_queue_is_waited_for_and_a_closed_one_is_not(model):
    texts = ["one two three"] * 40
    batching = BatchingConfig(max_batch_tokens=16, max_queued_tokens=64)
    runtime = RuntimeConfig(backend="torch", precision="fp32", threads=1)
    small = Embedder(Encoder(model.encoder.checkpoint, runtime, batching), model.recipe)
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda _: list(small.run(texts, lengths, batch_size=20)), range(6)))
    assert all(each == found[0] and len(each) == 40 for each in found)
    small.close()
    with pytest.raises(Unavailable, match="stopping"):
        list(small.run(texts, lengths))
