"""What a golden check is: it takes the arrays of a file and its folder, and raises where they disagree."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

Arrays = Mapping[str, np.ndarray]
Check = Callable[[Arrays, Path], None]
