"""Names for the NumPy arrays that pass between packages: element type and shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
"""The token ids of one text, (tokens,)."""

Offsets = NDArray[np.int64]
"""Start and end of tokens or spans in characters of their text, (n, 2); an empty range stands for no character."""

Vectors = NDArray[np.float32]
"""One vector or token state per row, (rows, dim)."""

Floats = NDArray[np.float32]
"""Numbers of any shape."""

Keys = NDArray[np.int64]
"""The keys of stored documents, (n,)."""

Ordinals = NDArray[np.int64]
"""Places of vectors among those of their document, counted from 0."""
