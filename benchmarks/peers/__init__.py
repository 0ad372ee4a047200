"""Other servers, each in an environment of its own that a variable names.

Infinity: `MILLPOND_INFINITY`, an environment with `infinity-emb[server,torch,optimum]`.
txtai: `MILLPOND_TXTAI`, an environment with `txtai[api]`.
Where a variable is not set, its rows are left out and the results say so.
"""

from benchmarks.peers.environment import MissingPeer
from benchmarks.peers.infinity import FP32, INT8, Infinity, infinities, quantized_folder
from benchmarks.peers.txtai import Txtai

__all__ = ["FP32", "INT8", "Infinity", "MissingPeer", "Txtai", "infinities", "quantized_folder"]
