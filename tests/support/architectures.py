"""Tiny checkpoints of the text architectures of transformers, and what Millpond makes of each.

`python -m tests.support.architectures [KIND ...]` examines all of them, or those named, and writes their rows of
`docs/architectures.md`. A test of the slow tier examines them again and compares.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import re
import string
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any, Final, Self

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForTextEncoding, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto

from service.cores import available_cores
from service.embedding.models import Models
from service.errors import ServiceError
from service.process import prepare_process
from tests.support.checkpoints import embed, served
from tests.support.servers import ROOT

PAGE: Final = ROOT / "docs" / "architectures.md"
_HEADER: Final = "| `model_type` | served by | longest text | why |\n|---|---|---|---|\n"
POSITIONS: Final = 64
_TOLERANCE: Final = 1e-5
"""Largest difference of a component, between vectors of length one."""
_PATIENCE: Final = 300.0
"""Seconds after which an architecture counts as wrong: it hangs."""

_NAMES: Final[dict[int, str]] = {
    400: "vocab_size vocab_size_per_layer_input src_vocab_size tgt_vocab_size",
    POSITIONS: "max_position_embeddings n_positions n_ctx max_seq_len context_length max_sequence_length "
    "max_source_positions max_target_positions tpu_short_seq_length max_encoder_position_embeddings "
    "max_decoder_position_embeddings",
    48: "intermediate_size d_ff encoder_ffn_dim decoder_ffn_dim n_inner hidden_dim ffn_dim d_inner dff "
    "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size ffn_hidden_size",
    32: "hidden_size d_model n_embd embedding_size emb_dim dim attention_hidden_size word_embed_proj_dim d_embed "
    "input_embedding_size output_embedding_size image_size",
    16: "sliding_window local_attention window_size attention_window q_lora_rank kv_lora_rank patch_size "
    "attention_chunk_size entity_emb_size hidden_size_per_layer_input index_topk chunk_size mamba_chunk_size "
    "pronunciation_embed_dim shape_embed_dim",
    8: "head_dim d_kv d_head v_head_dim qk_nope_head_dim qk_rope_head_dim state_size ssm_state_size mamba_d_state "
    "global_head_dim linear_key_head_dim linear_value_head_dim rotary_dim index_head_dim swa_head_dim swa_v_head_dim "
    "mamba_n_heads mamba_d_head mamba_num_heads mamba_head_dim n_mamba_heads mamba_headdim local_attn_chunk_length "
    "lsh_attn_chunk_length attention_head_size",
    4: "num_attention_heads n_head n_heads encoder_attention_heads decoder_attention_heads num_heads num_experts "
    "num_local_experts n_routed_experts moe_num_experts index_n_heads linear_num_value_heads "
    "block_size max_depth",
    2: "num_hidden_layers n_layer n_layers encoder_layers decoder_layers num_layers num_decoder_layers "
    "num_encoder_layers num_key_value_heads num_kv_heads num_experts_per_tok moe_topk moe_k linear_num_key_heads "
    "num_experts_per_token n_groups",
    1: "pad_token_id n_shared_experts n_group topk_group num_shared_experts first_k_dense_replace num_random_blocks "
    "moe_num_shared_experts mamba_ngroups",
    0: "bos_token_id",
}
_SIZES: Final = {name: size for size, names in _NAMES.items() for name in names.split()} | {"eos_token_id": 2}
"""What keys of configs are set to, whichever architecture has them."""
_EXTRAS: Final[dict[str, dict[str, Any]]] = {
    "bamba": {"attn_layer_indices": [1]},
    "bitnet": {"num_key_value_heads": 4},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "fsmt": {"langs": ["en", "de"]},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "architectures": ["FunnelModel"]},
    "gemma3n_text": {"num_kv_shared_layers": 0, "num_hidden_layers": 5, "activation_sparsity_pattern": [0.0] * 5},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "longcat_flash": {"zero_expert_num": 2},
    "luke": {"entity_vocab_size": 10},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "mobilebert": {"true_hidden_size": 32, "use_bottleneck": False, "intra_bottleneck_size": 32},
    "neomme": {"head_dim": 16, "num_attention_heads": 2},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
    "reformer": {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "num_buckets": 4},
    "roc_bert": {"pronunciation_vocab_size": 40, "shape_vocab_size": 40},
    "zamba2": {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
    },
    "zaya": {"num_experts_per_tok": 1},
}
_UNSET: Final = {"funnel": {"num_hidden_layers"}}
"""Keys that an architecture derives from others."""
_FRAMED: Final = {"funnel"}
"""Architectures that need more than one token."""
_OTHERS: Final = {
    *("chinese_clip", "clip", "dpr", "embedding_gemma2", "embedding_gemma2_text", "flava", "siglip", "splinter"),
    *("udop", "visual_bert", "vit", "wav2vec2"),
}
"""Architectures of images, sound and more than one of them, of which some text encoders are parts."""
_LEFT_OUT: Final = {
    # These need another package, or are large whatever their config says.
    *("audioflamingo3", "blt", "cohere_compass_text", "cpmant", "dbrx", "dots3_note", "dots3_note_text", "emu3"),
    *("fuyu", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "glmasr", "got_ocr2", "granite_speech"),
    *("granite_speech_plus", "kimi_linear", "layoutlmv2", "llama4", "modernvbert", "moshi"),
    *("moss_transcribe_diarize", "musicflamingo", "musicgen", "musicgen_melody", "nemo_speechlm", "perceiver"),
    *("phi4_multimodal", "qwen2_audio", "qwen3_asr", "seamless_m4t", "seamless_m4t_v2", "t5gemma2", "ultravbert"),
    *("vibevoice_asr", "voxtral", "voxtral_realtime", "zamba"),
}


def kinds() -> list[str]:
    """Return the architectures to examine: what transformers has for text, by its `model_type`."""
    tasks = ("CAUSAL_LM", "MASKED_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION")
    texts = {kind for task in tasks for kind in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")}
    texts = texts & modeling_auto.MODEL_MAPPING_NAMES.keys() | _encoders()
    return sorted((texts | _OTHERS) - _LEFT_OUT)


def save(kind: str, folder: Path) -> None:
    """Save an encoder of an architecture with random weights, and a tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind]
    values = {name: value for name, value in _sizes(config).items() if name not in _UNSET.get(kind, ())}
    auto: Any = AutoModel if kind in modeling_auto.MODEL_MAPPING_NAMES else AutoModelForTextEncoding
    module = auto.from_config(config(**values | _EXTRAS.get(kind, {})))
    with torch.no_grad():  # large enough for tokens to have different states, which shows a wrong pooling
        for name, weight in module.named_parameters():
            if weight.ndim > 1 and not name.endswith("A_log"):
                weight.normal_(std=0.2)
            elif name.endswith("bias") and "norm" not in name.lower() and "dt" not in name:
                weight.normal_(std=0.1)
    module.save_pretrained(folder)
    tokenizer(framed=kind in _FRAMED).save_pretrained(folder)


def tokenizer(*, framed: bool) -> PreTrainedTokenizerFast:
    """A token a byte, `<s>` and `</s>` around a text or nothing, no longest text."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate((*special, *alphabet))}
    bytes_alone = Tokenizer(models.BPE(vocabulary, []))
    bytes_alone.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_alone.decoder = decoders.ByteLevel()
    if framed:
        bytes_alone.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 2)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bytes_alone, **names)  # type: ignore[no-untyped-call]


@dataclass
class Outcome:
    """What came of an architecture.

    Args:
        kind: its `model_type`.
        served: by which runtime, and whether in equal lengths; `refused` where it is not served.
        longest: where the longest text comes from.
        reason: why it is refused, or not served by the runtime that is tried first.
        wrong: every difference from transformers, and every failure after the start.
    """

    kind: str
    served: str = "refused"
    longest: str = ""
    reason: str = ""
    wrong: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Return it as a row of the table, from which `read` makes it again."""
        cells = (f"`{self.kind}`", self.served, self.longest, self.reason)
        return f"| {' | '.join(cells)} |"

    @classmethod
    def read(cls, row: str) -> Self:
        """Read what `row` wrote."""
        kind, served, longest, reason = (cell.strip() for cell in row.split("|")[1:-1])
        return cls(kind.strip("`"), served, longest, reason)


def table() -> list[Outcome]:
    """Return what the documentation says of each architecture that the installed transformers has."""
    rows = map(Outcome.read, PAGE.read_text().split(_HEADER)[1].splitlines())
    return [row for row in rows if row.kind in CONFIG_MAPPING]


def examined(kind: str) -> Outcome:
    """Serve an architecture in a process of its own, so that whatever its code does ends there, and compare."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded", __spec__.name if __spec__ else __name__])
    with TemporaryDirectory() as folder:
        process = context.Process(target=_examine, args=(kind, Path(folder)))
        process.start()
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        if process.exitcode:
            return Outcome(kind, wrong=[f"its process ended with {process.exitcode}"])
        return Outcome(**json.loads((Path(folder) / "outcome.json").read_text()))


def _examine(kind: str, folder: Path) -> None:
    prepare_process()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    save(kind, folder / "model")
    alone = cache(lambda: _Alone(folder / "model"))
    outcome = _served(Outcome(kind), folder / "model", "auto", alone)
    if "OpenVINO" in outcome.served:
        outcome.wrong += _served(Outcome(kind), folder / "model", "torch", alone).wrong
    (folder / "outcome.json").write_text(json.dumps(dataclasses.asdict(outcome)))


def _served(outcome: Outcome, folder: Path, backend: str, alone: Callable[[], _Alone]) -> Outcome:
    """Serve a checkpoint and compare; where it declares no longest text, under one that is given."""
    settings: dict[str, Any] = {"runtime": {"backend": backend, "cache": folder.parent / "cache", "threads": 2}}
    given: dict[str, Any] = {}
    while True:
        try:
            with served(folder, pooling="mean", normalize=True, **settings, **given) as found:
                _compare(outcome, found, alone, given=bool(given))
        except ServiceError as error:
            if "declares no longest text" in str(error) and not given:
                given = {"max_tokens": POSITIONS}
                continue
            outcome.reason = _short(str(error).removeprefix(f"{folder}: "))
        except Exception as error:  # what users would see as a traceback
            outcome.wrong.append(f"{backend}: {type(error).__name__}: {_short(str(error))}")
        return outcome


def _compare(outcome: Outcome, found: Models, made: Callable[[], _Alone], *, given: bool) -> None:
    model = found.get()
    runtime, trial, limit = model.encoder.runtime.backend, model.encoder.trial, model.recipe.max_tokens
    outcome.served = {"openvino": "OpenVINO", "torch": "PyTorch"}[runtime]
    outcome.served += ", equal lengths" if trial.equal_lengths else ""
    reason = model.encoder.runtime_reason.removeprefix("the architecture does not convert to OpenVINO (")
    outcome.reason = "" if runtime == "openvino" else _short(reason.rstrip(")"))
    declared = f"{POSITIONS - limit} less than declared" if limit < POSITIONS else "declared"
    outcome.longest = "to be given" if given else declared
    alone = made()
    if not given:
        outcome.wrong += alone.limit(limit)
    for name, texts, pooling in _passes(limit, model.encoder.tokenizer.num_special):
        try:
            vectors = embed(found, texts, pooling)
        except Exception as error:
            outcome.wrong.append(f"{runtime}, {name}: {_short(str(error))}")
            continue
        apart = max(
            float(np.abs(vector - alone(text, pooling)).max()) for vector, text in zip(vectors, texts, strict=True)
        )
        if not apart <= _TOLERANCE:
            outcome.wrong.append(f"{runtime}, {name}: {apart:.1e} from transformers")


def _passes(limit: int, special: int) -> Iterator[tuple[str, list[str], str]]:
    """Yield requests: what each shows, its texts, and the pooling."""
    short, middle, long = (text(length - special) for length in (1 + special, 7, limit))
    for each in (short, middle, long, short, middle):
        yield f"{len(each)} alone", [each], "mean"
    beside = [text(length - special, seed) for seed, length in enumerate((4, 5, limit - 4), 1)]
    for pooling in ("mean", "cls", "last"):
        yield f"padded, {pooling}", [short, *beside, middle, long], pooling


def text(length: int, seed: int = 0) -> str:
    """Return a text of so many tokens, special ones aside."""
    return "".join(np.random.default_rng([length, seed]).choice(list(string.ascii_letters), length))


class _Alone:
    """transformers' module by itself, on texts that are not padded."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[str, Any] = {}
        """States of texts."""
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        kind = json.loads((folder / "config.json").read_text())["model_type"]
        auto: Any = AutoModelForTextEncoding if kind in _encoders() else AutoModel
        self._module = auto.from_pretrained(folder).eval()
        self._module.config.use_cache = False  # of keys and values, which some make wrongly
        if hasattr(self._module, "set_attention_type"):  # BigBird's other attention depends on what came before
            self._module.set_attention_type("original_full")

    def __call__(self, text: str, pooling: str) -> Any:
        if text not in self._found:
            self._found[text] = self._states(text)
        states = self._found[text]
        pooled = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
        return pooled / np.linalg.norm(pooled)

    def limit(self, limit: int) -> list[str]:
        """Say what is wrong with a longest text: the module fails on it, or takes more and nothing declares it."""
        special = len(self._tokenizer.encode("a").ids) - 1
        try:
            self._states(text(limit - special))
        except Exception as error:
            return [f"transformers fails at {limit} tokens: {_short(str(error))}"]
        try:
            self._states(text(limit + 1 - special))
        except Exception:
            return []
        config = self._module.config.get_text_config()
        declared = {getattr(config, name, None) for name in _NAMES[POSITIONS].split()}
        return [] if limit in declared else [f"transformers takes more than {limit} tokens"]

    def _states(self, text: str) -> Any:
        ids = torch.tensor([self._tokenizer.encode(text).ids])
        with torch.inference_mode():
            states = self._module(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]
        assert len(states) == ids.shape[1]
        return states.double().numpy()


def _encoders() -> set[str]:
    """Return the architectures of which transformers has an encoder of text alone."""
    return set(modeling_auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES)


def _sizes(config: Any) -> dict[str, Any]:
    known = {each.name for each in dataclasses.fields(config)} | set(getattr(config, "attribute_map", None) or {})
    found: dict[str, Any] = {name: size for name, size in _SIZES.items() if name in known}
    if "kv_lora_rank" in known:  # keys and values of all heads are made of one vector
        found["num_key_value_heads"] = found["num_attention_heads"]
    for name, part in (getattr(config, "sub_configs", None) or {}).items():
        if dataclasses.is_dataclass(part):
            found[name] = _sizes(part)
    return found


def _short(message: str) -> str:
    """Return the first sentence of a message, in one cell of the table."""
    return shorten(re.split(r"\.\s", message.replace("|", "/"))[0].rstrip("."), 160, placeholder=" ...")


def _write(outcome: Outcome) -> None:
    """Put a row into the page's table, in the place of that of the same architecture."""
    top, rows = PAGE.read_text().split(_HEADER)
    by_kind = {Outcome.read(row).kind: row for row in rows.splitlines()} | {outcome.kind: outcome.row()}
    PAGE.write_text(top + _HEADER + "".join(f"{by_kind[kind]}\n" for kind in sorted(by_kind)))


def main(named: Sequence[str]) -> int:
    """Examine architectures and write their rows; returns how many are wrong."""
    wrong = 0
    with ThreadPoolExecutor(available_cores()) as pool:
        for outcome in pool.map(examined, named or kinds()):
            print(outcome.row(), *(f"    WRONG {each}" for each in outcome.wrong), sep="\n", flush=True)
            wrong += bool(outcome.wrong)
            if not outcome.wrong:
                _write(outcome)
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
