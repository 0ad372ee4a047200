"""An encoder that is loaded: its checkpoint, tokenizer, runtime and queue. Models that name it share it."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from service.checkpoint import Checkpoint, sha256
from service.config import BatchingConfig, RuntimeConfig
from service.encoder.batcher import Batcher
from service.encoder.runtime import Runtime
from service.encoder.tokenizer import Tokenizer
from service.encoder.torch_runtime import TorchRuntime

# Keys of config.json that say how it was saved, or how it is run, but change no state.
_SILENT_KEYS: Final = {
    *("_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache"),
    *("gradient_checkpointing", "architectures", "_attn_implementation_autoset"),
}


class Encoder:
    """Loads a checkpoint's tokenizer and weights and starts the queue over them.

    Raises:
        CheckpointError: either cannot be loaded.

    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        runtime: RuntimeConfig,
        batching: BatchingConfig,
        *,
        trust_remote_code: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = Tokenizer(checkpoint, trust_remote_code=trust_remote_code)
        self.runtime: Runtime = TorchRuntime(
            checkpoint,
            precision="bf16" if runtime.precision == "bf16" else "fp32",
            threads=None if runtime.threads == "auto" else runtime.threads,
            trust_remote_code=trust_remote_code,
        )
        self.dim = self.runtime.dim
        self.fingerprint = self._fingerprint()
        self.batcher = Batcher(
            self.runtime,
            pad_id=self.tokenizer.pad_id,
            max_batch_tokens=batching.max_batch_tokens,
            max_queued_tokens=batching.max_queued_tokens,
        )

    def close(self) -> None:
        """Stop the queue."""
        self.batcher.close()

    def _fingerprint(self) -> str:
        """Sixteen hex digits over the weights and the part of config.json that changes a state."""
        config = {key: value for key, value in self.checkpoint.config.items() if key not in _SILENT_KEYS}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
        for path in self.checkpoint.weight_files():
            digest.update(f"{path.name} {sha256(path)}".encode())
        return digest.hexdigest()[:16]
