"""How long a text may be for an encoder, by what its config says, its checkpoint declares, and its positions."""

from __future__ import annotations

from typing import Literal

from service.checkpoint import Checkpoint
from service.encoder.tokenizer import Tokenizer
from service.errors import ConfigError


def most_tokens(
    asked: int | Literal["declared"],
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    positions: int | None,
    special: int,
    at: str,
) -> int:
    """Return the tokens of the longest text, special ones among them.

    Args:
        asked: what the config says.
        checkpoint: the encoder's.
        tokenizer: the encoder's.
        positions: most tokens by the encoder's architecture; None where that sets no bound.
        special: how many special tokens a text has.
        at: where the config has the model.

    Raises:
        ConfigError: it is more than there are positions, leaves no room for a text, or is declared nowhere.
    """
    if asked != "declared" and positions is not None and asked > positions:
        raise ConfigError(
            f"{at}.max_tokens: {asked} is more than the {positions} positions that {checkpoint.name} has."
        )
    limit = (checkpoint.max_tokens or tokenizer.declared_limit) if asked == "declared" else asked
    most = min((each for each in (positions, limit) if each is not None), default=None)
    if most is None:
        raise ConfigError(f"{at}.max_tokens: {checkpoint.name} declares no longest text; give a number here.")
    if most <= special:
        raise ConfigError(f"{at}.max_tokens: {most} leaves no room beside the {special} special tokens.")
    return most
