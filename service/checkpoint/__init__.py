"""What a model folder declares, read strictly, and where a folder comes from."""

from service.checkpoint.checkpoint import Checkpoint, HeadModule, UnknownModule, find_folder, read_checkpoint, sha256

__all__ = ["Checkpoint", "HeadModule", "UnknownModule", "find_folder", "read_checkpoint", "sha256"]
