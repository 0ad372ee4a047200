"""What an encoder must show before it is served: one vector a text, whatever is before it and beside it."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from service.checkpoint import read_checkpoint
from service.config import Config, RuntimeConfig
from service.doctor.examine import examine
from service.doctor.reference import here
from service.embedding.models import Models
from service.encoder.loading import Source
from service.encoder.runtimes.base import Runtime, Unfit
from service.encoder.runtimes.openvino import is_installed
from service.encoder.runtimes.torch import TorchRuntime
from service.encoder.trial import BOUNDS, tried
from service.errors import CheckpointError
from tests.support.checkpoints import (
    DIM,
    TEXTS,
    byte_pairs,
    close,
    edit,
    embed,
    plain_bert,
    plain_gpt2,
    plain_llama,
    plain_roberta,
    plain_t5,
    served,
)
from tests.support.tiers import first_fast

needs_openvino = pytest.mark.skipif(not is_installed(), reason="needs OpenVINO")
BACKENDS = ["torch", pytest.param("auto", marks=[needs_openvino, pytest.mark.slow])]
SIZES = {
    **{"vocab_size": 400, "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 32, "max_position_embeddings": 66, "pad_token_id": 1},
}
VISION = {
    **{"hidden_size": DIM, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32},
    **{"image_size": 32, "patch_size": 16},
}


def save(folder: Path, kind: str, config: str | None = None, **settings: Any) -> Path:
    """A folder of random weights of an architecture, with a tokenizer."""
    torch.manual_seed(1)
    made = getattr(transformers, config or f"{kind}Config")(**settings)
    model = getattr(transformers, f"{kind}Model" if config is None else kind)(made)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name.lower():
                weight.mul_(8)  # or all states are nearly equal
    tokenizer = byte_pairs()
    tokenizer.model_max_length = 60
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# Architectures that read padding


READS_PADDING = {
    "FNet": {"tpu_short_seq_length": 66},
    "ConvBert": {"num_attention_heads": 4, "embedding_size": DIM},
    "Yoso": {},
}


@pytest.mark.parametrize("kind", first_fast(READS_PADDING))
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_reads_padding_is_served_in_equal_lengths(kind, backend, tmp_path):
    folder = save(tmp_path / "model", kind, **SIZES | READS_PADDING[kind])
    random = np.random.default_rng(0)
    texts = [random.integers(5, 300, length).tolist() for length in (3, 7, 16, 7, 31, 16, 5, 7, 58, 1, 5)]
    runtime = {"backend": backend, "cache": str(tmp_path / "cache"), "threads": 2}
    with served(folder, pooling="mean", normalize=True, runtime=runtime) as models:
        encoder = models.get().encoder
        module = AutoModel.from_pretrained(folder).eval()
        wanted = []
        for text in texts:
            with torch.inference_mode():
                mean = module(input_ids=torch.tensor([[0, *text, 2]])).last_hidden_state[0].mean(0)
            wanted.append((mean / mean.norm()).numpy())
        assert encoder.trial.equal_lengths
        assert encoder.trial.padded > 1000 * encoder.trial.bound
        passes = encoder.batcher.passes
        assert close(embed(models, texts), np.stack(wanted))
        assert encoder.batcher.passes - passes < len(texts)
        assert close(np.concatenate([embed(models, [text]) for text in texts]), np.stack(wanted))


@pytest.mark.parametrize("make", [plain_bert, plain_roberta, plain_llama, plain_gpt2, plain_t5])
def test_what_masks_padding_shares_passes_of_any_shape(make, tmp_path):
    """GPT-2's tokenizer has no token for padding, and none is needed: whatever fills a batch up is masked."""
    with served(make(tmp_path / "model"), pooling="mean", max_tokens=32) as models:
        trial = models.get().encoder.trial
        assert not trial.equal_lengths
        assert max(trial.wide, trial.together, trial.padded, trial.again) <= trial.bound == 1e-5


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Electra"])
def test_without_a_token_for_padding_what_fills_a_batch_up_is_masked(kind, tmp_path):
    """The id that does so may be that of a word, and the model's config may know of another one."""
    folder = save(tmp_path / "model", kind, **SIZES | {"pad_token_id": 0})
    tokenizer = byte_pairs("$A", pad=None)
    tokenizer.model_max_length = 60
    tokenizer.save_pretrained(folder)
    texts = [[5, 0, 7], [9], list(range(20, 60)), [0], [0, 1, 2]]
    module = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        wanted = [
            module(input_ids=torch.tensor([text]), attention_mask=torch.ones(1, len(text), dtype=torch.long))
            .last_hidden_state[0]
            .mean(0)
            .numpy()
            for text in texts
        ]
    with served(folder, pooling="mean", normalize=False) as models:
        assert not models.get().encoder.trial.equal_lengths
        assert close(embed(models, texts), np.stack(wanted))


# Architectures that leave something behind in a pass


LLAMA = SIZES | {"num_key_value_heads": 1, "head_dim": 8}
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16},
    **{"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0], "factor": 4.0},
}
STATEFUL = {
    "Llama": LLAMA | {"rope_parameters": LONGROPE, "bos_token_id": 0, "eos_token_id": 2},
    "Phi3": {"num_key_value_heads": 3, "rope_parameters": LONGROPE, "bos_token_id": 0, "eos_token_id": 2},
    "RecurrentGemma": {
        **{"lru_width": DIM, "attention_window_size": 16, "block_types": ["recurrent", "attention"]},
        **{"num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 0, "eos_token_id": 2},
    },
}


@pytest.mark.parametrize("kind", first_fast(STATEFUL))
def test_what_a_pass_leaves_behind_changes_no_other_pass(kind, tmp_path):
    """Frequencies for the widest text of a pass, or a state of its last token, hang on the module."""
    folder = save(tmp_path / "model", kind, **SIZES | STATEFUL[kind])
    random = np.random.default_rng(0)
    texts = [random.integers(5, 300, length).tolist() for length in (3, 40, 9, 50, 3, 17, 30, 2, 58, 1) * 8]
    module = AutoModel.from_pretrained(folder).eval()
    wanted = []
    for text in texts:
        with torch.inference_mode():
            mean = module(input_ids=torch.tensor([[0, *text, 2]]), use_cache=False).last_hidden_state[0].mean(0)
        wanted.append((mean / mean.norm()).numpy())

    async def at_once(model: Any) -> list[Any]:
        return await asyncio.gather(*(model.embed([text]) for text in texts))

    with served(folder, pooling="mean", normalize=True, runtime={"threads": 2}) as models:
        model = models.get()
        assert model.encoder.runtime.stateful
        assert model.encoder.runtime.streams == 1
        assert close(embed(models, texts), np.stack(wanted))
        for _ in range(3):
            found = asyncio.run(at_once(model))
            assert close(np.concatenate([each.vectors for each in found]), np.stack(wanted))


@pytest.mark.parametrize("make", [plain_bert, plain_llama, plain_gpt2, plain_t5])
def test_what_leaves_nothing_behind_takes_a_stream_a_core(make, tmp_path):
    with served(make(tmp_path / "model"), pooling="mean", max_tokens=32, runtime={"threads": 2}) as models:
        runtime = models.get().encoder.runtime
        assert not runtime.stateful
        assert runtime.streams == 2


# Models that give no token states


def dpr(folder: Path) -> Path:
    return save(folder, "DPRQuestionEncoder", "DPRConfig", **SIZES)


def clip(folder: Path) -> Path:
    return save(folder, "CLIP", text_config=SIZES, vision_config=VISION)


def siglip(folder: Path) -> Path:
    return save(folder, "Siglip", text_config=SIZES, vision_config=VISION)


def vit(folder: Path) -> Path:
    return save(folder, "ViT", **VISION)


def bart(folder: Path) -> Path:
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 3, "decoder_attention_heads": 3}
    return save(folder, "Bart", **{"d_model": DIM, "vocab_size": 400, **layers})


def projected_opt(folder: Path) -> Path:
    return save(folder, "OPT", **SIZES | {"word_embed_proj_dim": 12, "ffn_dim": 32})


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_that_are_a_projection_have_its_size(backend, tmp_path):
    folder = projected_opt(tmp_path / "model")
    runtime = {"backend": backend, "cache": str(tmp_path / "cache")}
    with served(folder, pooling="mean", runtime=runtime) as models:
        assert models.get().dim == models.get().encoder.anatomy.dim == 12
        assert embed(models, ["the wheel turns"]).shape == (1, 12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (dpr, ["DPRQuestionEncoder", "no token states", "save that part alone"]),
        (clip, ["CLIPModel wants pixel_values", "save that part alone"]),
        (siglip, ["SiglipModel wants pixel_values", "save that part alone"]),
        (vit, ["ViTModel takes pixel_values, not token ids"]),
        (bart, ["encoder with a decoder (bart)"]),
    ],
)
def test_what_gives_no_token_states_is_refused_at_start(make, words, backend, tmp_path):
    folder = make(tmp_path / "model")
    runtime = {"backend": backend, "cache": str(tmp_path / "cache")}
    for _ in range(2):  # a refusal is not kept as anything else
        with pytest.raises(CheckpointError) as caught, served(folder, pooling="mean", runtime=runtime):
            pass
        assert all(word in str(caught.value) for word in [str(folder), *words]), caught.value


# Weights and configs that do not give numbers, or not those meant


def change(folder: Path, key: str, value: float, row: int = -1) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.setdefault(key, torch.zeros(1))[row].view(-1)[-1] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder.layer.1.output.dense.weight", float("nan")),
        ("encoder.layer.0.attention.self.query.bias", float("inf")),
        ("embeddings.position_embeddings.weight", float("nan")),  # of the last position only
    ],
)
def test_weights_that_are_no_numbers_are_refused(key, value, backend, tmp_path):
    folder = plain_bert(tmp_path / "model")
    change(folder, key, value)
    runtime = {"backend": backend, "cache": str(tmp_path / "cache")}
    with pytest.raises(CheckpointError) as caught, served(folder, pooling="mean", runtime=runtime):
        pass
    assert "not finite" in str(caught.value) and f"model.safetensors holds NaN or infinity in {key}" in str(
        caught.value
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_token_without_numbers_is_told_and_others_are_served(value, tmp_path, caplog):
    folder = plain_bert(tmp_path / "model")
    change(folder, "embeddings.word_embeddings.weight", value, row=4)  # of [MASK]
    with served(folder, pooling="mean", runtime={"cache": str(tmp_path / "cache")}) as models:
        assert models.get().encoder.trial.not_finite == "model.safetensors: embeddings.word_embeddings.weight"
        assert np.isfinite(embed(models, TEXTS)).all()
        report = asyncio.run(examine(models.get(), reference=here))
    assert "embeddings.word_embeddings.weight" in caplog.text
    (found,) = [each for each in report.findings if each.name == "trial"]
    assert found.severity == "fault" and "embeddings.word_embeddings.weight holds NaN" in found.seen


@pytest.mark.parametrize(
    "key",
    [
        "pooler.dense.weight",
        "cls.predictions.bias",
        "embeddings.token_type_embeddings.weight",  # of the second type
        "embeddings.word_embeddings.weight",  # of an id that the tokenizer does not have
    ],
)
def test_what_no_text_reads_need_be_no_number(key, tmp_path, caplog):
    folder = plain_bert(tmp_path / "model")
    change(folder, key, float("nan"))
    with served(folder, pooling="mean", runtime={"cache": str(tmp_path / "cache")}) as models:
        report = asyncio.run(examine(models.get(), reference=here))
    assert "NaN" not in caplog.text
    (found,) = [each for each in report.findings if each.name == "trial"]
    assert found.severity == "ok"


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_that_are_no_numbers_are_named_by_openvino_too(precision, tmp_path):
    folder = plain_bert(tmp_path / "model")
    change(folder, "embeddings.position_embeddings.weight", float("nan"))  # of the last position only
    runtime = {"backend": "openvino", "precision": precision, "cache": str(tmp_path / "cache")}
    words = r"model\.safetensors holds NaN or infinity in embeddings\.position_embeddings\.weight\. Get the file anew"
    with pytest.raises(CheckpointError, match=words), served(folder, pooling="mean", runtime=runtime):
        pass


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden_size": 48}, ["embeddings", "24", "48", "config.json"]),
        ({"intermediate_size": 64}, ["intermediate.dense", "32", "64", "config.json"]),
        ({"vocab_size": 500}, ["word_embeddings", "400 x 24", "500 x 24", "config.json"]),
        ({"max_position_embeddings": 512}, ["position_embeddings", "64 x 24", "512 x 24", "config.json"]),
        ({"num_hidden_layers": 3}, ["weights are missing", "encoder.layer.2"]),
        ({"num_hidden_layers": 1}, ["model.safetensors holds 'encoder.layer.1.", "has 1 of 2", "config.json"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0", "config.json"]),
        ({"num_hidden_layers": 10**12}, ["num_hidden_layers is 1000000000000", "39 tensors", "config.json"]),
        ({"hidden_size": 3 * 10**9}, ["config.json describes", "of a Embedding, 400 x 3000000000"]),
        ({"intermediate_size": 10**9}, ["config.json describes", "of a Linear, 1000000000 x 24"]),
        ({"vocab_size": 10**9}, ["config.json describes", "of a Embedding, 1000000000 x 24"]),
        ({"max_position_embeddings": 10**9}, ["config.json describes", "of a Embedding, 1000000000 x 24"]),
        ({"vocab_size": 10**30}, ["describes no encoder"]),
    ],
)
def test_a_config_of_another_model_is_refused(config, words, tmp_path):
    folder = plain_bert(tmp_path / "model")
    edit(folder / "config.json", **config)
    with pytest.raises(CheckpointError) as caught, served(folder, pooling="mean"):
        pass
    assert all(word in str(caught.value) for word in [str(folder), *words]), caught.value


@pytest.mark.slow
def test_layers_without_weights_of_their_own_are_few(tmp_path):
    """Of ALBERT, whose layers share theirs, so that it may have more layers than tensors."""
    sizes = {"embedding_size": 8, "vocab_size": 400, "hidden_size": DIM, "num_attention_heads": 3}
    folder = save(tmp_path / "model", "Albert", **sizes, intermediate_size=32, num_hidden_layers=100)
    with served(folder, pooling="mean") as models:
        assert models.get().dim == DIM
    edit(folder / "config.json", num_hidden_layers=10**9)
    with pytest.raises(CheckpointError, match="num_hidden_layers is 1000000000"), served(folder, pooling="mean"):
        pass


@pytest.mark.parametrize(
    ("kind", "sizes", "key"),
    [
        ("Bert", SIZES | {"num_hidden_layers": 0}, "num_hidden_layers"),
        ("GPT2", {"vocab_size": 400, "n_embd": DIM, "n_head": 3, "n_layer": 0}, "n_layer"),
        ("DistilBert", {"vocab_size": 400, "dim": DIM, "n_heads": 3, "n_layers": 0, "hidden_dim": 32}, "n_layers"),
    ],
)
def test_a_model_without_layers_is_refused(kind, sizes, key, tmp_path):
    folder = save(tmp_path / "model", kind, **sizes)
    stated = rf"whatever stands before it, .*{key} is 0.*config.json"
    with pytest.raises(CheckpointError, match=stated), served(folder, pooling="mean"):
        pass


def test_weights_of_zero_are_refused(tmp_path):
    folder = plain_bert(tmp_path / "model")
    weights = {name: torch.zeros_like(weight) for name, weight in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights of zero"), served(folder, pooling="mean"):
        pass


def test_nothing_of_what_was_loaded_before_stays(tmp_path):
    good, bad = plain_bert(tmp_path / "good"), plain_bert(tmp_path / "bad")
    change(bad, "encoder.layer.1.output.dense.weight", float("nan"))
    models = {"good": {"encoder": str(good), "pooling": "mean"}, "bad": {"encoder": str(bad), "pooling": "mean"}}
    config = Config.model_validate(
        {"models": models, "runtime": {"backend": "torch", "threads": 2, "cache": str(tmp_path / "cache")}}
    )
    before = set(threading.enumerate())
    loaded: list[weakref.ref[Any]] = []
    init = TorchRuntime.__init__

    def noting(self, module, *arguments, **named):
        init(self, module, *arguments, **named)
        loaded.extend([weakref.ref(self), weakref.ref(module)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TorchRuntime, "__init__", noting)
        try:
            Models(config)
        except CheckpointError as error:
            refused = str(error)
    gc.collect()
    assert str(bad) in refused
    assert len(loaded) >= 2 and all(each() is None for each in loaded)
    assert set(threading.enumerate()) <= before


# Runtimes


class Faulty(Runtime):
    """PyTorch with a fault, as a runtime of another package may have one."""

    backend, rank, merit = "faulty", 0, "none"

    def __init__(self, sound: Runtime, fault: str) -> None:
        self.sound, self.fault = sound, fault
        self.precision, self.streams, self.dim = "fp32", 1, sound.dim
        self.calls, self.widest, self.long = 0, 0, 0

    @classmethod
    def load(cls, source, config):
        raise NotImplementedError

    def states(self, ids, mask, *, wide=False):
        self.calls += 1
        rows, width = ids.shape
        before, self.widest = self.widest, max(self.widest, width)
        self.long += width == 64
        found = self.sound.states(ids, mask, wide=wide)
        noise = torch.linspace(0, 1e-3, found.shape[2])
        if self.fault == "all cores":
            return found + noise if wide else found
        if self.fault == "keeps the longest":
            return found + noise if before == 64 > width else found
        if self.fault == "ever other":
            return found + noise * self.calls
        if self.fault == "fills up":  # of what it keeps of long texts
            return found + noise if self.long > 3 and width < 64 else found
        if self.fault == "beside the longest":
            return found + noise if rows > 1 and width == 64 else found
        if self.fault == "neighbours":
            return found + noise if rows > 4 and mask.all() else found
        if self.fault == "longest fails" and width == 64:
            raise IndexError("index out of range")
        if self.fault == "narrow":
            return found[:, :, :-1]
        if self.fault == "one a text":
            return found[:, 0]
        if self.fault == "nothing":
            return found * torch.nan
        if self.fault == "always fails":
            raise RuntimeError("no such kernel")
        return found


@pytest.fixture
def source(tmp_path):
    return Source(read_checkpoint(str(plain_bert(tmp_path / "model"))), tmp_path / "cache")


SETTINGS = RuntimeConfig(backend="torch", precision="fp32", threads=1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("all cores", "in a pass that takes all cores"),
        ("keeps the longest", "another vector"),
        ("fills up", "after other texts"),
        ("ever other", "another vector"),
        ("neighbours", "beside texts of the same length"),
        ("longest fails", r"fails on a text of 64 tokens \(IndexError: index out of range\), and not on one of 33"),
        ("narrow", r"should have \(64, 3, 24\)"),
        ("one a text", r"should have \(64, 3, 24\)"),
        ("nothing", "not finite"),
        ("always fails", "no such kernel"),
    ],
)
def test_a_runtime_with_a_fault_is_refused_each_time(fault, words, source):
    runtime = TorchRuntime.load(source, SETTINGS)
    assert not tried(source, Faulty(runtime, "none"), SETTINGS).equal_lengths
    shutil.rmtree(source.artifacts.root)
    for _ in range(2):
        with pytest.raises(Unfit, match=words):
            tried(source, Faulty(runtime, fault), SETTINGS)


def test_a_trial_is_kept_until_something_changes(source, monkeypatch):
    runtime = TorchRuntime.load(source, SETTINGS)

    def passes(precision: str = "fp32", streams: int = 1) -> int:
        one = Faulty(runtime, "none")
        one.precision, one.streams = precision, streams
        tried(source, one, SETTINGS)
        return one.calls

    assert passes() > 10
    assert passes() == 0
    assert passes("bf16") > 10
    assert passes(streams=2) > 10
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert passes() > 10
    assert passes() == 0
    monkeypatch.setattr(Faulty, "version", "2")
    assert passes() > 10


def test_a_text_padded_to_the_longest_is_tried(source):
    runtime = TorchRuntime.load(source, SETTINGS)
    assert tried(source, Faulty(runtime, "beside the longest"), SETTINGS).equal_lengths


def test_the_bound_is_that_of_the_precision(source):
    runtime = TorchRuntime.load(source, SETTINGS)
    assert BOUNDS["fp32"] == 1e-5 < BOUNDS["fp16"] < BOUNDS["bf16"]
    for precision, bound in BOUNDS.items():
        one = Faulty(runtime, "all cores")
        one.precision = precision
        if precision == "fp32":
            continue
        assert tried(source, one, SETTINGS).bound == bound


@pytest.mark.slow
def test_the_longest_text_is_within_a_budget(tmp_path):
    """A layer as wide as this would take gigabytes at 4,096 tokens."""
    folder = plain_bert(tmp_path / "model", max_position_embeddings=4096, intermediate_size=2**16)
    source = Source(read_checkpoint(str(folder)), tmp_path / "cache")
    trial = tried(source, TorchRuntime.load(source, SETTINGS), SETTINGS)
    assert 129 < trial.checked_to < 600 and trial.limit == 4096
    assert str(trial).endswith(f"checked to {trial.checked_to} of 4096 tokens")
    assert json.loads(next(source.artifacts.root.glob("trial-*/trial.json")).read_text())["limit"] == 4096
