"""Data sets through an encoder."""

from __future__ import annotations

import asyncio

import numpy as np

from service.config import Config
from service.embedding import bulk
from service.embedding.models import Models
from tests.support.checkpoints import plain_bert


def lengths(states, mask):
    return mask.sum(1).tolist()


def run(model, texts, **arguments):
    async def gather():
        return [result async for result in bulk.results(model, texts, lengths, **arguments)]

    return asyncio.run(gather())


def test_results_come_in_order_and_are_counted(tmp_path):
    folder = plain_bert(tmp_path / "model")
    texts = [f"{'one two three ' * (1 + number % 7)}{number}" for number in range(300)]
    models = Models(Config(models={"default": {"encoder": str(folder), "pooling": "mean"}}))
    try:
        model, done = models.get(), []
        found = run(model, texts, advance=done.append)
        wanted = [len(text.ids) for text in model.encoder.tokenizer.encode(texts)]
        assert np.array_equal(found, np.minimum(wanted, model.max_tokens))
        assert sum(done) == 300 and len(done) > 1
        assert run(model, []) == []
    finally:
        models.close()


def test_a_prompt_is_left_out_where_the_model_leaves_it_out(tmp_path):
    folder = plain_bert(tmp_path / "model")
    settings = {"encoder": str(folder), "pooling": "mean", "prompts": {"query": "one two "}}
    models = Models(Config(models={"default": settings}))
    try:
        model = models.get()
        assert model.include_prompt
        [plain], [asked] = run(model, ["three"]), run(model, ["three"], role="query")
        assert asked > plain
        model.include_prompt = False
        [left_out] = run(model, ["three"], role="query")
        assert left_out == asked - model.encoder.tokenizer.prompt_length("one two ")
    finally:
        models.close()
