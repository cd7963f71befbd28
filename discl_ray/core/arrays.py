"""Names for the array types in signatures; a docstring says what an array's shape is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""RGB images, channels last."""

Ints = NDArray[np.int64]

Floats = NDArray[np.float64]

Bools = NDArray[np.bool_]

Texts = NDArray[np.str_]
