"""An encoder that is loaded: its checkpoint, tokenizer, runtime and queue. Models that name it share it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from service.checkpoint import Checkpoint, sha256
from service.config import BatchingConfig, RuntimeConfig
from service.encoder.artifacts import Artifacts
from service.encoder.batcher import Batcher
from service.encoder.quantization import Progress, quiet
from service.encoder.runtimes.selection import Choice, choose_runtime
from service.encoder.tokenizer import Tokenizer, TokenizerSpec, load_tokenizer

logger = logging.getLogger(__name__)

_FORMAT: Final = 2
"""Raised when what is kept of the same tokenizer changes."""

# Keys of config.json that say how it was saved, or how it is run, but change no state.
_SILENT_KEYS: Final = {
    *("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"),
    *("gradient_checkpointing", "architectures", "_attn_implementation_autoset"),
}


@dataclass(frozen=True)
class Prepared:
    """A checkpoint that is loaded and may be run."""

    tokenizer: Tokenizer
    fingerprint: str
    choice: Choice


def prepare(
    checkpoint: Checkpoint, runtime: RuntimeConfig, *, trust_remote_code: bool = False, progress: Progress = quiet
) -> Prepared:
    """Load a checkpoint's tokenizer and weights, converted and quantised as the config asks for.

    Raises:
        ConfigError: this machine or this installation cannot do what the config asks for.
        CheckpointError: tokenizer or weights cannot be used.

    """
    artifacts = Artifacts(runtime.cache)
    tokenizer = Tokenizer(_tokenizer(checkpoint, artifacts, trust_remote_code=trust_remote_code))
    fingerprint = _fingerprint(checkpoint)
    choice = choose_runtime(
        checkpoint,
        fingerprint,
        tokenizer,
        runtime,
        artifacts,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    return Prepared(tokenizer, fingerprint, choice)


class Encoder:
    """Loads a checkpoint and starts the queue over it; arguments and errors as for `prepare`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: RuntimeConfig,
        batching: BatchingConfig,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        prepared = prepare(checkpoint, runtime, trust_remote_code=trust_remote_code)
        self.tokenizer, self.fingerprint = prepared.tokenizer, prepared.fingerprint
        self.runtime, self.runtime_reason = prepared.choice.runtime, prepared.choice.reason
        self.agreement = prepared.choice.agreement
        self.dim = self.runtime.dim
        logger.info(
            "%s runs on %s %s with %d streams: %s",
            *(checkpoint.name, self.runtime.backend, self.runtime.precision, self.runtime.streams),
            self.runtime_reason,
        )
        self.batcher = Batcher(
            self.runtime,
            pad_id=self.tokenizer.pad_id,
            max_batch_tokens=batching.max_batch_tokens,
            max_queued_tokens=batching.max_queued_tokens,
        )

    def close(self) -> None:
        """Stop the queue."""
        self.batcher.close()


def _fingerprint(checkpoint: Checkpoint) -> str:
    """Sixteen hex digits over the weights and the part of config.json that changes a state."""
    config = {key: value for key, value in checkpoint.config.items() if key not in _SILENT_KEYS}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in checkpoint.weight_files():
        digest.update(f"{path.name} {sha256(path)}".encode())
    return digest.hexdigest()[:16]


def _tokenizer(checkpoint: Checkpoint, artifacts: Artifacts, *, trust_remote_code: bool) -> TokenizerSpec:
    """The tokenizer as transformers resolves it: kept, for transformers takes seconds to import."""
    key = {
        "files": checkpoint.sums("*.json", "*.txt", "*.model", "*.py"),
        "lower_case": checkpoint.lower_case,
        "trust_remote_code": trust_remote_code,
        "format": _FORMAT,
        "versions": {name: version(name) for name in ("tokenizers", "transformers")},
    }

    def build(folder: Path) -> None:
        spec = load_tokenizer(checkpoint, trust_remote_code=trust_remote_code)
        (folder / "tokenizer.json").write_text(spec.to_json(), encoding="utf-8")

    folder = artifacts.get("tokenizer", key, build)
    return TokenizerSpec.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
