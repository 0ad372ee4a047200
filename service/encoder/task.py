"""What an encoder computes of token ids: states of tokens, or scores of a text or a pair of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
from torch import Tensor

from service.checkpoint import Checkpoint
from service.encoder.tokenizer import Tokenizer
from service.errors import CheckpointError

_ENCODER_DECODERS: Final = {"t5", "mt5", "umt5"}
"""Model types of which only the encoder is loaded, whatever their config says."""


class Task(ABC):
    """One kind of result. All else about an encoder, from its queue to its conversion, is the same for each kind.

    A result is (batch, rows, dim), where `rows` is one a token or one a text.
    """

    result: ClassVar[str]
    """What a result is called, and in brackets where transformers has it."""
    constant: ClassVar[str]
    """What a module without layers gives, for an error."""
    per_token: ClassVar[bool]
    """Whether a result has a row a token, of which those of padding mean nothing; else it has one a text."""
    directional: ClassVar[bool]
    """Whether a row is a vector of which the direction counts; else its numbers do, each as it is."""

    def reading(self, tokenizer: Tokenizer) -> Task:
        """Return the task for ids of a tokenizer.

        Raises:
            CheckpointError: what the tokenizer gives beside ids cannot be followed.
        """
        return self

    @property
    def key(self) -> Mapping[str, Any]:
        """What tells results of the same weights apart, for keys of the cache."""
        return {}

    @abstractmethod
    def auto_class(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
        """Return the class of transformers that loads an encoder for this.

        Raises:
            CheckpointError: there is none for this checkpoint.
        """

    @abstractmethod
    def needs(self, weight: str) -> bool:
        """Return whether results depend on a weight of this name."""

    @abstractmethod
    def size(self, config: Any) -> int:
        """Return the dimensions of a row by a config of transformers, for modules that cannot be asked."""

    def numbers(self, dim: int) -> int:
        """Return how many numbers a pass holds for a token beside those of layers, where rows have `dim`."""
        return 0

    @abstractmethod
    def wrap(self, module: Any) -> torch.nn.Module:
        """Return a module from token ids and mask, both (batch, time), to results (batch, rows, dim)."""

    def rows(self, results: Tensor, mask: Tensor) -> Tensor:
        """Return the rows that mean something, (n, dim)."""
        return results[mask.bool()] if self.per_token else results[:, 0]


def _has_decoder(checkpoint: Checkpoint) -> bool:
    return (
        bool(checkpoint.config.get("is_encoder_decoder")) or checkpoint.config.get("model_type") in _ENCODER_DECODERS
    )


def refuse_encoder_decoder(checkpoint: Checkpoint, instead: str) -> None:
    """Raise `CheckpointError` for an encoder with a decoder, on which a result would depend as well.

    Args:
        checkpoint: the checkpoint.
        instead: what results are made by, in a clause.
    """
    if _has_decoder(checkpoint):
        kind = checkpoint.config.get("model_type")
        raise CheckpointError(
            f"{checkpoint.encoder}: is an encoder with a decoder ({kind}), and {instead}. Choose another model."
        )


class StatesOnly(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> states (batch, time, dim)."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return the module's last hidden states; None where it has none."""
        output = self.module(input_ids=input_ids, attention_mask=attention_mask)
        return getattr(output, "last_hidden_state", None)


class TokenStates(Task):
    """The last hidden state of each token: (batch, time, dim)."""

    result = "token states (last_hidden_state)"
    constant = "gives a token the same state whatever stands before it"
    per_token = True
    directional = True

    def auto_class(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
        """Return the class that loads an encoder: of an encoder-decoder, its encoder alone.

        Raises:
            CheckpointError: transformers does not load the encoder of this encoder-decoder alone.
        """
        from transformers import AutoModel, AutoModelForTextEncoding
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

        if not _has_decoder(checkpoint):
            return AutoModel
        kind = checkpoint.config.get("model_type")
        if kind not in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES and not trust_remote_code:
            raise CheckpointError(
                f"{checkpoint.encoder}: is an encoder with a decoder ({kind}), and transformers does not load "
                "its encoder alone. Choose another model."
            )
        return AutoModelForTextEncoding

    def needs(self, weight: str) -> bool:
        """Return whether it is none of a pooler, which some architectures have behind the last states."""
        return not weight.startswith("pooler.")

    def size(self, config: Any) -> int:
        """Return the hidden size."""
        return int(config.get_text_config().hidden_size)

    def wrap(self, module: Any) -> StatesOnly:
        """Return what gives the last hidden states."""
        return StatesOnly(module)


TOKEN_STATES: Final = TokenStates()


class EveryLayer(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> states (batch, time, dim) of each layer, from the embeddings on.

    Those of the last are what `StatesOnly` gives, whatever hidden states an architecture lists: some normalise only
    the former.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Return the module's hidden states."""
        found = self.module(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return (*found.hidden_states[:-1], found.last_hidden_state)


class LayerStates(TokenStates):
    """The states of each token behind every layer, each (batch, time, dim)."""

    def wrap(self, module: Any) -> EveryLayer:  # type: ignore[override]  # it gives several results
        """Return what gives the hidden states of every layer."""
        return EveryLayer(module)


LAYER_STATES: Final = LayerStates()


class ScoresOnly(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> scores (batch, 1, labels), before any activation.

    Args:
        module: a sequence classifier of transformers.
        separator: the id that ends the first text of a pair, behind which tokens have the type 1; None where the
            module is given no types.
    """

    def __init__(self, module: Any, separator: int | None) -> None:
        super().__init__()
        self.module = module
        self.separator = separator

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return the module's logits; None where it has none."""
        types = {} if self.separator is None else {"token_type_ids": self._types(input_ids)}
        output = self.module(input_ids=input_ids, attention_mask=attention_mask, **types)
        logits = getattr(output, "logits", None)
        return None if logits is None else logits[:, None]

    def _types(self, ids: Tensor) -> Tensor:
        """Return 1 for what stands behind the first separator, padding included, and 0 for all before."""
        ends = ids.eq(self.separator or 0).long()
        return ends.cumsum(1).gt(ends).long()


class Scores(Task):
    """The logits of a sequence classifier, such as a cross-encoder: (batch, 1, labels)."""

    result = "scores (logits)"
    constant = "gives every text the same scores"
    per_token = False
    directional = False

    def __init__(self, separator: int | None = None) -> None:
        self._separator = separator

    def reading(self, tokenizer: Tokenizer) -> Task:
        """Return the task with the tokenizer's separator, where it gives pairs token types."""
        return Scores(tokenizer.first_of_pair_ends())

    @property
    def key(self) -> Mapping[str, Any]:
        """Return its name and how types are told."""
        return {"task": "scores", "separator": self._separator}

    def auto_class(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
        """Return the class that loads sequence classifiers.

        Raises:
            CheckpointError: it is an encoder-decoder, whose score depends on a decoder as well.
        """
        from transformers import AutoModelForSequenceClassification

        refuse_encoder_decoder(checkpoint, "texts are scored by encoders or decoders alone here")
        return AutoModelForSequenceClassification

    def needs(self, weight: str) -> bool:
        """Return True: a pooler stands before the classifier, which is of no use without it."""
        return True

    def size(self, config: Any) -> int:
        """Return the number of labels."""
        return int(config.num_labels)

    def wrap(self, module: Any) -> ScoresOnly:
        """Return what gives the logits."""
        return ScoresOnly(module, self._separator)
