"""Small sequence classifiers with random weights, saved as cross-encoders are, and what becomes of them elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import CrossEncoder
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.support.checkpoints import DIM, byte_pairs, edit, wordpiece

PAIRS = [
    ("A mill by the pond.", "The wheel turns when water flows over it, slowly at first and then faster."),
    ("Grain", "What does a miller do in the evening?"),
    ("the wheel turns", "Grain"),
    ("Über den Fluss", "führt eine Brücke."),
    ("What does a miller do in the evening, when the wheel stands still?", "the wheel"),
]
_SIZES: dict[str, Any] = {
    **{"vocab_size": 400, "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 32},
}


def bert_classifier(folder: Path, *, num_labels: int = 1, **config: Any) -> Path:
    """[CLS] a [SEP] b [SEP], of which the second text has the type 1."""
    tokenizer = wordpiece()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    sizes = {"max_position_embeddings": 64, "pad_token_id": 0, "num_labels": num_labels} | config
    _save("Bert", _SIZES | sizes, tokenizer, folder)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    edit(folder / "tokenizer_config.json", model_input_names=names)
    return folder


def roberta_classifier(folder: Path, *, num_labels: int = 1) -> Path:
    """<s> a </s></s> b </s>, without types."""
    sizes = {"max_position_embeddings": 66, "type_vocab_size": 1, "pad_token_id": 1, "num_labels": num_labels}
    return _save("Roberta", _SIZES | sizes, _byte_pairs(), folder)


def modernbert_classifier(folder: Path, *, num_labels: int = 1) -> Path:
    """<s> a </s></s> b </s>, without types; attention within 32 tokens in some layers."""
    sizes = {"max_position_embeddings": 256, "num_hidden_layers": 4, "local_attention": 64, "num_labels": num_labels}
    sizes |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    return _save("ModernBert", _SIZES | sizes, _byte_pairs(), folder)


def cross_encoder(plain: Path, folder: Path, **settings: Any) -> Path:
    """`plain` as the installed sentence-transformers saves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CrossEncoder(str(plain), device="cpu", **settings).save(str(folder))
    return folder


def reference(folder: Path, **settings: Any) -> CrossEncoder:
    """The same folder as sentence-transformers loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: CrossEncoder = CrossEncoder(str(folder), device="cpu", **settings)
        return model


def _byte_pairs() -> PreTrainedTokenizerFast:
    tokenizer = byte_pairs()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _save(kind: str, sizes: dict[str, Any], tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    torch.manual_seed(11)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    with torch.no_grad():  # small random weights give nearly equal scores for all texts
        for name, weight in model.named_parameters():
            if "norm" not in name.lower():
                weight.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
