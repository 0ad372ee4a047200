"""How texts become sparse vectors, by what a config says and what a checkpoint declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.checkpoint import SparseEncoder
from service.config import SparseConfig
from service.encoder import Tokenizer
from service.encoder.length import most_tokens


@dataclass(frozen=True, eq=False)
class SparseRecipe:
    """What is done around the encoder of a sparse model.

    Args:
        name: the model's name in the deployment.
        declared: what the checkpoint declares.
        max_tokens: length of the longest text, special tokens and prompt included.
        prompts: texts put before an input, by name.
        default_prompt: name of the prompt used if none is asked for.
        truncate: whether a text that is too long is cut unless a request says otherwise.
        warnings: what an operator should know, in sentences.
    """

    name: str
    declared: SparseEncoder
    max_tokens: int
    prompts: Mapping[str, str]
    default_prompt: str | None
    truncate: bool
    warnings: tuple[str, ...]

    @property
    def include_prompt(self) -> bool:
        """Whether the prompt's tokens give weights too: always, as in sentence-transformers."""
        return True


def resolve(
    name: str, settings: SparseConfig, declared: SparseEncoder, tokenizer: Tokenizer, positions: int | None
) -> SparseRecipe:
    """Make the recipe of a sparse model: what the checkpoint declares wherever the settings say `declared`.

    Args:
        name: its name in the config.
        settings: its settings in the config.
        declared: what its folder declares.
        tokenizer: the folder's tokenizer.
        positions: most tokens by the encoder's architecture; None where that sets no bound.

    Raises:
        ConfigError: naming the key, and the remedy.
    """
    checkpoint = declared.checkpoint
    prompts = checkpoint.prompts if settings.prompts == "declared" else settings.prompts
    notes = []
    if not declared.declared:
        notes.append(
            f"{checkpoint.name} is a masked language model that declares no sparse vectors; they are made as SPLADE "
            "makes them by default, the largest log(1 + relu(logit)), and mean little unless it was trained for that"
        )
    if settings.trust_remote_code:
        notes.append("trust_remote_code is on: the checkpoint's own code runs in this process")
    return SparseRecipe(
        name,
        declared,
        most_tokens(settings.max_tokens, checkpoint, tokenizer, positions, tokenizer.num_special, f"sparse.{name}"),
        dict(prompts),
        checkpoint.default_prompt if checkpoint.default_prompt in prompts else None,
        settings.truncate,
        tuple(notes),
    )
