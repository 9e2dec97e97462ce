"""Plain data that strict JSON can hold."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """The same with null for what is not a finite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return value
