"""Small checkpoints with random weights, saved by sentence-transformers itself, and what it makes of them."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    BigBirdConfig,
    BigBirdModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    LongformerConfig,
    LongformerModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from service.config import Config
from service.embedding.embedder import Embedder, TokenStates
from service.embedding.models import Models

DIM = 24
TEXTS = [
    "A mill by the pond.",
    "The wheel turns when water flows over it, slowly at first and then faster and faster.",
    "Grain",
    "What does a miller do in the evening, when the wheel stands still?",
    "Über den Fluss führt eine Brücke.",
    "the wheel turns",
]
_CORPUS = [*TEXTS, "query: passage: represent the sentence for retrieval", "abcdefghijklmnopqrstuvwxyz 0123456789"]


def wordpiece() -> PreTrainedTokenizerFast:
    """[CLS] text [SEP], cased, so that lower-casing is seen; a token a word that is known, and a letter of others.

    The vocabulary is listed, since what a trainer makes of equally frequent pairs differs from run to run.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {word for text in (*_CORPUS, *map(str.lower, _CORPUS)) for word, _ in splitter.pre_tokenize_str(text)}
    letters = sorted({letter for word in words for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(words)])
    tokenizer = Tokenizer(models.WordPiece({token: at for at, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, model_max_length=64, **{f"{name}_token": token for name, token in names.items()}
    )


def byte_pairs(
    single: str = "<s> $A </s>", *, pad: str | None = "<pad>", padding_side: str = "right"
) -> PreTrainedTokenizerFast:
    """Byte pairs as RoBERTa, GPT-2 and Llama have them, framed by the template `single`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if single != "$A":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=64,
        padding_side=padding_side,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
    )


def plain_bert(folder: Path, **config: Any) -> Path:
    """A plain Hugging Face folder."""
    torch.manual_seed(1)
    sizes = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}
    sizes |= {"vocab_size": 400, "max_position_embeddings": 64}
    return _save(BertModel(BertConfig(**sizes | config)), wordpiece(), folder)


def plain_roberta(folder: Path) -> Path:
    torch.manual_seed(2)
    config = RobertaConfig(
        vocab_size=400,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=34,
        type_vocab_size=1,
        pad_token_id=1,
    )
    tokenizer = byte_pairs()
    tokenizer.model_max_length = 32
    return _save(RobertaModel(config), tokenizer, folder)


def plain_llama(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> Path:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        intermediate_size=32,
        max_position_embeddings=64,
        architectures=["LlamaForCausalLM"],
    )
    return _save(LlamaModel(config), tokenizer or byte_pairs("$A </s>", padding_side="left"), folder)


def plain_gpt2(folder: Path) -> Path:
    torch.manual_seed(4)
    config = GPT2Config(vocab_size=400, n_embd=DIM, n_layer=2, n_head=4, n_positions=40)
    tokenizer = byte_pairs("$A", pad=None)
    tokenizer.model_max_length = 10**30
    return _save(GPT2Model(config), tokenizer, folder)


def plain_t5(folder: Path) -> Path:
    torch.manual_seed(5)
    config = T5Config(vocab_size=400, d_model=DIM, d_kv=6, d_ff=32, num_layers=2, num_heads=4)
    return _save(T5EncoderModel(config), byte_pairs("$A </s>"), folder)


def plain_xlm_roberta(folder: Path) -> Path:
    torch.manual_seed(6)
    return _long(XLMRobertaModel(XLMRobertaConfig(**_LONG, max_position_embeddings=258, type_vocab_size=1)), folder)


def plain_longformer(folder: Path) -> Path:
    """Attention within eight tokens to either side."""
    torch.manual_seed(7)
    config = LongformerConfig(**_LONG, max_position_embeddings=258, type_vocab_size=1, attention_window=16)
    return _long(LongformerModel(config), folder)


def plain_bigbird(folder: Path) -> Path:
    """Sparse attention from 29 tokens on."""
    torch.manual_seed(8)
    config = BigBirdConfig(**_LONG, max_position_embeddings=256, block_size=4, num_random_blocks=1)
    assert config.attention_type == "block_sparse"
    return _long(BigBirdModel(config), folder)


def plain_modernbert(folder: Path) -> Path:
    """Attention within 32 tokens to either side in two of its four layers."""
    torch.manual_seed(9)
    sizes = _LONG | {"num_hidden_layers": 4, "max_position_embeddings": 256}
    config = ModernBertConfig(**sizes, local_attention=64)
    return _long(ModernBertModel(config), folder)


_LONG: dict[str, Any] = {
    **{"vocab_size": 400, "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 32, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
}


def unbounded(kind: str, folder: Path, **config: Any) -> Path:
    """A plain folder of any kind with 34 rows for positions, whose tokenizer sets no limit of its own."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 34, "type_vocab_size": 1}
    tokenizer = byte_pairs(pad="<unk>" if config.get("pad_token_id") == 3 else "<pad>")
    tokenizer.model_max_length = 10**30
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes | config))
    return _save(model, tokenizer, folder)


def _long(model: Any, folder: Path) -> Path:
    tokenizer = byte_pairs()
    tokenizer.model_max_length = 256
    return _save(model, tokenizer, folder)


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    # Small random weights give nearly equal states for all tokens, which would hide a wrong pooling.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name.lower() and "ln_" not in name:
                weight.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence_transformer(
    plain: Path,
    folder: Path,
    pooling: Any = "mean",
    *head: torch.nn.Module,
    include_prompt: bool = True,
    **settings: Any,
) -> Path:
    """`plain` with pooling and what follows it, as the installed sentence-transformers saves it."""
    transformer = Transformer(str(plain))
    modules = [transformer, Pooling(DIM, pooling, include_prompt=include_prompt), *head]
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder))
    return folder


def static(folder: Path, *head: torch.nn.Module, **settings: Any) -> Path:
    """A table of vectors over the tokens of `wordpiece`, as the installed sentence-transformers saves it."""
    torch.manual_seed(10)
    modules = [StaticEmbedding(wordpiece(), embedding_dim=DIM), *head]
    SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder))
    return folder


def routed(folder: Path, *after: torch.nn.Module, default: str | None = "document") -> Path:
    """Queries by a table, and documents by an encoder, as the installed sentence-transformers saves them."""
    torch.manual_seed(21)
    router = Router.for_query_document(
        [StaticEmbedding(wordpiece(), embedding_dim=DIM)],
        [Transformer(str(plain_bert(folder / "plain"))), Pooling(DIM, "cls")],
        default_route=default,
        allow_empty_key=False,
    )
    prompts = {"query": "query: ", "document": "passage: "}
    SentenceTransformer(modules=[router, *after], device="cpu", prompts=prompts).save(str(folder / "model"))
    return folder / "model"


def model2vec(folder: Path, tensors: Mapping[str, np.ndarray] | None = None, **config: Any) -> Path:
    """A folder in the form in which model2vec saves one, of vectors (tokens, DIM) unless other tensors are given."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer.from_str(wordpiece().backend_tokenizer.to_str())
    tokenizer.enable_truncation(512)
    tokenizer.save(str(folder / "tokenizer.json"))
    if tensors is None:
        vectors = np.random.default_rng(11).normal(size=(tokenizer.get_vocab_size(), DIM))
        tensors = {"embeddings": vectors.astype(np.float32)}
    save_file(dict(tensors), folder / "model.safetensors")
    settings = {"model_type": "model2vec", "normalize": True, "max_length": 512, "embedding_dtype": "float32"}
    edit(folder / "config.json", **settings | config)
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; those that are None are removed."""
    values = json.loads(path.read_text()) if path.exists() else {}
    values |= changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def reference(folder: Path) -> SentenceTransformer:
    """The same folder as sentence-transformers loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


@contextmanager
def served(folder: Path | str, *, runtime: dict[str, Any] | None = None, **settings: Any) -> Iterator[Models]:
    """The folder as Millpond serves it, under the name 'default'; on PyTorch, which has nothing to convert first."""
    defaults = {"threads": 1, "backend": "torch", "precision": "fp32"}
    config = Config.model_validate(
        {"models": {"default": {"encoder": str(folder), **settings}}, "runtime": {**defaults, **(runtime or {})}}
    )
    models = Models(config)
    try:
        yield models
    finally:
        models.close()


def embed(
    models: Models, inputs: Sequence[Any], spec: Any = None, layers: Any = None, **arguments: Any
) -> np.ndarray:
    """Vectors of the default model."""
    return asyncio.run(models.get(None, spec, layers).embed(inputs, **arguments)).vectors


def token_states(embedder: Embedder, texts: Sequence[str], **arguments: Any) -> list[TokenStates]:
    """Return the states of texts, held no longer."""

    async def read() -> list[TokenStates]:
        async with embedder.token_states(texts, **arguments) as found:
            return found

    return asyncio.run(read())


def close(left: np.ndarray, right: np.ndarray, tolerance: float = 1e-5) -> bool:
    """Whether vectors are equal up to rounding, relative to their size."""
    assert left.shape == right.shape, (left.shape, right.shape)
    return bool(np.abs(left - right).max() <= tolerance * max(1.0, float(np.abs(right).max())))
