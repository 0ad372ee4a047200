"""Text to token states: tokenizer, runtimes, batching."""

from service.encoder.anatomy import Anatomy
from service.encoder.batcher import Batcher, PostProcess, Room, RowFailed
from service.encoder.encoder import Encoder
from service.encoder.pool import Encoders
from service.encoder.runtimes.base import Runtime
from service.encoder.tokenizer import Side, TokenizedText, Tokenizer
from service.encoder.trial import Trial

__all__ = [
    "Anatomy",
    "Batcher",
    "Encoder",
    "Encoders",
    "PostProcess",
    "Room",
    "RowFailed",
    "Runtime",
    "Side",
    "TokenizedText",
    "Tokenizer",
    "Trial",
]
