"""Arguments that a checkpoint gives to transformers: those that change no vector, and how they may be set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Arguments = Mapping[str, Callable[[Any], bool]]
"""Whether a value can be followed, by the argument's name."""

NO_LIMIT: Final = 1_000_000
"""transformers writes a number beyond this for "no limit"."""


def unknown(args: Mapping[str, Any], known: Arguments) -> list[str]:
    """Return what of some arguments cannot be followed: names, with the value where another one could be."""
    return [
        f"{name}={value!r}" if name in known else name
        for name, value in sorted(args.items())
        if name not in known or not known[name](value)
    ]


def _with_any_value(*names: str) -> Arguments:
    return dict.fromkeys(names, lambda _: True)


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == each and type(value) is type(each) for each in values)


def _limit(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 1)


_OF_LOADING: Final = _with_any_value(
    *("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "revision", "code_revision"),
    *("cache_dir", "force_download", "local_files_only", "proxies", "resume_download", "subfolder", "token"),
    "use_auth_token",
)
OF_ENCODER: Final[Arguments] = {
    **_OF_LOADING,
    **_with_any_value(
        # What is returned beside the last states.
        *("output_hidden_states", "output_attentions", "return_dict", "use_cache", "add_pooling_layer"),
        # What a classification head or training alone reads.
        *("num_labels", "id2label", "label2id", "problem_type", "finetuning_task", "initializer_range"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "classifier_dropout"),
        "gradient_checkpointing",
        # By which means the same states are computed.
        *("torchscript", "reference_compile", "unpad_inputs", "use_memory_efficient_attention"),
        *("device_map", "low_cpu_mem_usage", "offload_folder", "use_safetensors", "weights_only"),
    ),
}
"""Of the model and its config."""

_OF_BATCHES: Final = _with_any_value("padding_side", "pad_to_multiple_of", "return_token_type_ids", "verbose")
OF_TOKENIZER: Final[Arguments] = {
    **_OF_LOADING,
    **_OF_BATCHES,
    # Every call of sentence-transformers sets padding and truncation, so that here they have no effect.
    **_with_any_value("use_fast", "clean_up_tokenization_spaces", "chat_template"),
    **_with_any_value("max_length", "padding", "truncation", "return_attention_mask"),
    "model_max_length": _limit,
    "truncation_side": _one_of("right"),
}
"""Of the tokenizer when it is loaded; `model_max_length` is followed."""

OF_ALL: Final[Arguments] = {
    **_OF_BATCHES,
    **_with_any_value("return_length", "return_special_tokens_mask", "logits_to_keep"),
    "add_special_tokens": _one_of(True),
    "padding": _one_of(True, "longest", "max_length"),
    "return_attention_mask": _one_of(True),
    "return_tensors": _one_of("pt"),
    "truncation": _one_of(True, "longest_first", "only_first"),
}
"""Of each call of the tokenizer."""
OF_TEXT: Final[Arguments] = {**OF_ALL, "max_length": _limit}
"""Of each call with texts; `max_length` is followed."""
OF_CALLS: Final[Arguments] = {
    **_OF_LOADING,
    **_with_any_value("text", "common", "image", "audio", "video", "chat_template"),
}
"""Kinds of call. No text goes through a chat template here."""
