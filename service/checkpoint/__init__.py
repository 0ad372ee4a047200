"""What a model folder declares, read strictly, and where a folder comes from."""

from service.checkpoint.checkpoint import TOKENS, Checkpoint, HeadModule, UnknownModule, read_checkpoint
from service.checkpoint.cross_encoder import CrossEncoder, read_cross_encoder
from service.checkpoint.declarations import LEARNED_POOLING, LEARNED_POOLINGS, TRANSFORMER_CONFIGS, read_json
from service.checkpoint.folder import BUNDLED, find_folder
from service.checkpoint.hashing import sha256, sha256_now
from service.checkpoint.hub import HUB_FILES
from service.checkpoint.readme import quoted_prompts
from service.checkpoint.routes import Routes, read_model
from service.checkpoint.sparse_encoder import SparseEncoder, read_sparse_encoder

__all__ = [
    "BUNDLED",
    "HUB_FILES",
    "LEARNED_POOLING",
    "LEARNED_POOLINGS",
    "TOKENS",
    "TRANSFORMER_CONFIGS",
    "Checkpoint",
    "CrossEncoder",
    "HeadModule",
    "Routes",
    "SparseEncoder",
    "UnknownModule",
    "find_folder",
    "quoted_prompts",
    "read_checkpoint",
    "read_cross_encoder",
    "read_json",
    "read_model",
    "read_sparse_encoder",
    "sha256",
    "sha256_now",
]
