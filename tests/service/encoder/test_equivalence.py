"""Encoders as converted: at any length, in any order and company, the states of transformers' module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from service.checkpoint import read_checkpoint
from service.encoder.loading import Source, load_module
from service.encoder.runtimes.equivalence import difference, longest
from service.encoder.runtimes.openvino import ConversionError, convert, is_installed
from service.encoder.task import StatesOnly
from service.errors import CheckpointError
from tests.support.checkpoints import (
    close,
    embed,
    plain_bert,
    plain_bigbird,
    plain_longformer,
    plain_modernbert,
    plain_roberta,
    plain_xlm_roberta,
    served,
)

needs_openvino = pytest.mark.skipif(not is_installed(), reason="the extra 'openvino' is not installed")
Make = Callable[[Path], Path]
LONG = [plain_xlm_roberta, plain_longformer, plain_bigbird, plain_modernbert]
MAKES = [plain_bert, plain_roberta, *LONG]


def lengths(make: Make) -> tuple[int, ...]:
    most = {plain_bert: 64, plain_roberta: 32}.get(make, 256)
    return 3, most, 3, most // 2 + 1, 7, most - 1, 4


def texts(make: Make) -> list[list[int]]:
    """Token ids, short and long in turn, without the two special tokens that frame a text."""
    random = np.random.default_rng(0)
    return [random.integers(5, 140, length - 2).tolist() for length in lengths(make)]


def means(folder: Path, ids: list[list[int]]) -> np.ndarray:
    """The mean state of each text alone, by transformers; each by a new module, as some remember what they saw."""
    found = []
    spec = Source(read_checkpoint(str(folder))).tokenizer.spec
    for text in ids:
        module = AutoModel.from_pretrained(folder).eval()
        if hasattr(module, "set_attention_type"):
            module.set_attention_type("original_full")
        with torch.inference_mode():
            states = module(input_ids=torch.tensor([[*spec.prefix, *text, *spec.suffix]])).last_hidden_state
            found.append(states[0].mean(0).numpy())
    return np.stack(found)


@pytest.mark.slow
@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("backend", ["torch", pytest.param("auto", marks=needs_openvino)])
def test_a_text_has_one_vector_whatever_was_before_it_and_beside_it(make, backend, tmp_path):
    folder = make(tmp_path / "model")
    ids = texts(make)
    wanted = means(folder, ids)
    with served(folder, pooling="mean", normalize=False, runtime={"backend": backend}) as models:
        assert close(np.concatenate([embed(models, [text]) for text in ids]), wanted)
        assert close(embed(models, ids), wanted)
        assert close(np.concatenate([embed(models, [text]) for text in ids]), wanted)
        encoder = models.get(None).encoder
        if backend == "auto":
            assert encoder.runtime.backend == ("torch" if make is plain_longformer else "openvino")
            assert ("its states differ" in encoder.runtime_reason) == (make is plain_longformer)


@pytest.mark.slow
@needs_openvino
def test_by_name_what_differs_is_refused(tmp_path):
    folder = plain_longformer(tmp_path / "model")
    with (
        pytest.raises(CheckpointError, match=r"does not convert to OpenVINO: .*its states differ.*runtime\.backend"),
        served(folder, pooling="mean", runtime={"backend": "openvino"}),
    ):
        pass


class Branching(torch.nn.Module):
    """Takes another way for texts of more than `at` tokens."""

    def __init__(self, module, at):
        super().__init__()
        self.module, self.config, self.at = module, module.config, at

    def forward(self, input_ids, attention_mask):
        output = self.module(input_ids=input_ids, attention_mask=attention_mask)
        if input_ids.shape[1] > self.at:
            output.last_hidden_state = output.last_hidden_state * 2
        return output


@needs_openvino
def test_a_graph_that_differs_only_at_the_limit_is_refused(tmp_path):
    module = load_module(read_checkpoint(str(plain_bert(tmp_path / "model"))), torch.float32)
    with pytest.raises(ConversionError, match="at 1 x 64 tokens its states differ"):
        convert(Branching(module, 63))


def test_what_keeps_something_of_a_long_sequence_differs_at_the_next_short_one(tmp_path):
    module = load_module(read_checkpoint(str(plain_bert(tmp_path / "model"))), torch.float32)
    states = StatesOnly(module)
    assert difference(module, states) is None
    widths = [0]

    def keeps(ids, mask):
        widths.append(max(widths[-1], ids.shape[1]))
        return states(ids, mask) * (1 if ids.shape[1] == widths[-1] else 1.01)

    assert "at 1 x 3 tokens its states differ by" in str(difference(module, keeps))


def test_states_that_are_no_number_differ(tmp_path):
    module = load_module(read_checkpoint(str(plain_bert(tmp_path / "model"))), torch.float32)
    assert "differ by nan" in str(difference(module, lambda ids, mask: StatesOnly(module)(ids, mask) * torch.nan))


SMALL = {"vocab_size": 400, "pad_token_id": 1, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
WIDE = SMALL | {"intermediate_size": 2**25}


@pytest.mark.parametrize(
    ("make", "config", "wanted"),
    [
        (BertModel, BertConfig(**SMALL, max_position_embeddings=512), 512),
        # Positions of the RoBERTa family begin behind that of padding.
        (RobertaModel, RobertaConfig(**SMALL, max_position_embeddings=514), 512),
        (RobertaModel, RobertaConfig(**SMALL | {"pad_token_id": 3}, max_position_embeddings=514), 510),
        # Where the limit costs too much: what is cheap, what the config declares, and no less than of old.
        (BertModel, BertConfig(**WIDE, max_position_embeddings=8192), 121),
        (ModernBertModel, ModernBertConfig(**WIDE, max_position_embeddings=8192, local_attention=128), 256),
        (ModernBertModel, ModernBertConfig(**WIDE, max_position_embeddings=200, local_attention=128), 200),
        (MistralModel, MistralConfig(**WIDE, num_key_value_heads=3, head_dim=8, sliding_window=4096), 8192),
    ],
)
def test_how_long_a_checked_sequence_is(make, config, wanted):
    with torch.device("meta"):
        module = make(config)
    assert longest(module) == wanted
