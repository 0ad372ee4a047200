"""Padding as an encoder has it, against the encoder alone, and what is left out of noise and of the mean."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel, FNetConfig, FNetModel

from service.embedding.models import Models
from service.embedding.perturb import Change, Perturbed, perturb
from service.embedding.viewing import Viewing
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    byte_pairs,
    edit,
    embed,
    plain_bert,
    plain_llama,
    sentence_transformer,
    served,
    static,
    token_states,
)

PADDING = (0, 1, 5, 20)


def perturbed(models: Models, *changes: Change, poolings: tuple[str, ...] = ("mean", "max", "last")) -> Perturbed:
    return asyncio.run(perturb(models, Viewing(poolings), TEXTS[0], changes))


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("plain", [plain_bert, plain_llama])
def test_padding_is_what_transformers_has_there(plain, tmp_path: Path) -> None:
    folder = plain(tmp_path)
    module = AutoModel.from_pretrained(folder).eval()
    with served(folder, pooling="mean") as models:
        found = perturbed(models, *(Change(padding=count) for count in PADDING))
        encoder = models.get().encoder
        (states,) = token_states(models.get(), TEXTS[:1], max_total=99)
    means = []
    for count in PADDING:
        ids = torch.tensor([[*states.ids.tolist(), *[encoder.tokenizer.pad_id] * count]])
        mask = (torch.arange(ids.shape[1]) < len(states.ids)).long().unsqueeze(0)
        with torch.inference_mode():
            means.append(module(ids, attention_mask=mask).last_hidden_state[0].mean(0).numpy())
    expected = [cosine(mean, means[0]) for mean in means]
    np.testing.assert_allclose([each.without_mask for each in found.outcomes], expected, atol=1e-5)
    for each in found.outcomes:
        np.testing.assert_allclose(each.cosines, 1, atol=1e-5)


def test_states_are_computed_once_for_noise_and_once_more_for_padding(tmp_path: Path) -> None:
    with served(plain_bert(tmp_path), pooling="mean") as models:
        lengths = models.get().encoder.batcher.figures.lengths
        before = lengths.copy()
        (states,) = token_states(models.get(), TEXTS[:1], max_total=99)
        own = len(states.ids)
        perturbed(models, *(Change(noise=level / 8) for level in range(16)), *(Change(padding=n) for n in PADDING))
        assert lengths - before == {own: 2, own + PADDING[-1]: 1}


def test_what_reads_padding_is_given_each_number_of_it(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = FNetConfig(
        **{"vocab_size": 400, "hidden_size": DIM, "num_hidden_layers": 2, "intermediate_size": 32},
        **{"max_position_embeddings": 66, "pad_token_id": 1, "tpu_short_seq_length": 66},
    )
    module = FNetModel(config).eval()
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "norm" not in name.lower():
                weight.mul_(8)  # or all states are nearly equal
    module.save_pretrained(tmp_path)
    byte_pairs().save_pretrained(tmp_path)
    with served(tmp_path, pooling="mean", max_tokens=60) as models:
        encoder = models.get().encoder
        assert encoder.trial.equal_lengths
        before = encoder.batcher.figures.lengths.copy()
        found = perturbed(models, *(Change(padding=count) for count in PADDING))
        assert encoder.batcher.figures.lengths - before == {found.tokens + count: 1 for count in PADDING}
        assert found.outcomes[0].cosines[0] == pytest.approx(1)
        assert all(each.cosines[0] < 1 - 1e-4 for each in found.outcomes[1:])


def test_a_prompt_that_is_not_pooled_takes_no_part(tmp_path: Path) -> None:
    folder = sentence_transformer(plain_bert(tmp_path / "plain"), tmp_path / "model", "mean", include_prompt=False)
    edit(
        folder / "config_sentence_transformers.json",
        prompts={"query": "a long prompt: "},
        default_prompt_name="query",
    )
    with served(folder) as models:
        found = perturbed(models, Change(), Change(noise=1), Change(filler=1), poolings=("mean",))
        assert found.outcomes[0].without_mask == pytest.approx(1)
        assert found.outcomes[1].without_mask == pytest.approx(found.outcomes[1].cosines[0], abs=1e-5)
        one, other = embed(models, [TEXTS[0], found.outcomes[2].text])
        assert found.outcomes[2].cosines[0] == pytest.approx(cosine(one, other), abs=1e-5)


def test_a_static_model_has_the_row_of_its_padding_token_there(tmp_path: Path) -> None:
    with served(static(tmp_path)) as models:
        found = perturbed(models, *(Change(padding=count) for count in PADDING), poolings=("mean",))
        np.testing.assert_allclose([each.cosines for each in found.outcomes], 1, atol=1e-5)
        assert [each.padding for each in found.outcomes] == list(PADDING)
