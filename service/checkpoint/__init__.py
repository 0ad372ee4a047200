"""What a model folder declares, read strictly, and where a folder comes from."""

from service.checkpoint.checkpoint import Checkpoint, HeadModule, UnknownModule, read_checkpoint
from service.checkpoint.declarations import LEARNED_POOLING, LEARNED_POOLINGS, TRANSFORMER_CONFIGS
from service.checkpoint.folder import BUNDLED, find_folder
from service.checkpoint.hashing import sha256, sha256_now
from service.checkpoint.hub import HUB_FILES

__all__ = [
    "BUNDLED",
    "HUB_FILES",
    "LEARNED_POOLING",
    "LEARNED_POOLINGS",
    "TRANSFORMER_CONFIGS",
    "Checkpoint",
    "HeadModule",
    "UnknownModule",
    "find_folder",
    "read_checkpoint",
    "sha256",
    "sha256_now",
]
