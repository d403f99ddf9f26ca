"""Names for the types of arrays; each docstring gives shapes where they matter."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
"""Scores, vectors and weights are kept in single precision; sums over many of them are not."""
Indices = NDArray[np.intp]
"""Positions in another array, or counts."""
Int64s = NDArray[np.int64]
