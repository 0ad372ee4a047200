"""Sparse vectors: a row of weights over the vocabulary a text, from the logits of a masked language model.

Formal et al., SPLADE v2 (2021): the weight of a vocabulary's token is the largest log(1 + relu(logit)) that any token
of the text gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from torch import Tensor

from service.checkpoint import Checkpoint
from service.encoder.task import Task, refuse_encoder_decoder

Strategy = Literal["max", "sum"]
"""How the weights that the tokens of a text give become one, by sentence-transformers' names."""
Activation = Literal["relu", "log1p_relu"]
"""What logits go through before the logarithm, by sentence-transformers' names."""

_LOGITS_AT_ONCE: Final = 2
"""Copies of a token's logits in memory at once, found by measuring passes on PyTorch and OpenVINO."""


class SpladePooling(torch.nn.Module):
    """Token ids and mask, both (batch, time) -> weights (batch, 1, vocabulary), none below 0.

    Args:
        module: a masked language model of transformers.
        strategy: what is made of a text's tokens.
        activation: what logits go through.
    """

    def __init__(self, module: Any, strategy: Strategy, activation: Activation) -> None:
        super().__init__()
        self.module = module
        self.strategy = strategy
        self.activation = activation

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        """Return the weights of each text; None where the module has no logits."""
        found = getattr(self.module(input_ids=input_ids, attention_mask=attention_mask), "logits", None)
        if found is None:
            return None
        # Each step lets go of what the one before made, so that no more than two copies of the logits are there.
        found = found.masked_fill(~attention_mask.bool()[:, :, None], 0)  # of which relu leaves nothing
        if self.strategy == "max":  # no step changes the order of numbers, so the largest logit is enough
            found = found.amax(1, keepdim=True)
        found = found.relu()
        found = found.log1p()
        if self.activation == "log1p_relu":
            found = found.log1p()
        return found if self.strategy == "max" else found.sum(1, keepdim=True)


class Splade(Task):
    """The weights of a vocabulary's tokens for a text: (batch, 1, vocabulary)."""

    result = "weights of tokens (logits)"
    constant = "gives every text the same weights"
    per_token = False
    directional = True

    def __init__(self, strategy: Strategy = "max", activation: Activation = "relu") -> None:
        self._strategy: Strategy = strategy
        self._activation: Activation = activation

    @property
    def key(self) -> Mapping[str, Any]:
        """Return its name and how tokens become one row."""
        return {"task": "splade", "strategy": self._strategy, "activation": self._activation}

    def auto_class(self, checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Any:
        """Return the class that loads masked language models.

        Raises:
            CheckpointError: it is an encoder-decoder, whose logits depend on a decoder as well.
        """
        from transformers import AutoModelForMaskedLM

        refuse_encoder_decoder(checkpoint, "sparse vectors are made by masked language models without one")
        return AutoModelForMaskedLM

    def needs(self, weight: str) -> bool:
        """Return True: the head that gives logits is what is asked for."""
        return True

    def size(self, config: Any) -> int:
        """Return the size of the vocabulary."""
        return int(config.get_text_config().vocab_size)

    def numbers(self, dim: int) -> int:
        """Return the numbers of a token's logits."""
        return _LOGITS_AT_ONCE * dim

    def wrap(self, module: Any) -> SpladePooling:
        """Return what gives the weights."""
        return SpladePooling(module, self._strategy, self._activation)
