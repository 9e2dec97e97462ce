"""Numbers of an item: sizes are whole, and nothing anywhere in it is infinite."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.training_sets.contract import Fault, is_finite, is_number, is_whole, shown


def size_faults(item: Mapping[str, Any]) -> Iterator[Fault]:
    """Height and width, where an item says them: whole pixels, 1 or more."""
    for name in ("height", "width"):
        value = item.get(name)
        if value is None:
            continue
        if is_number(value) and not is_finite(value):
            yield Fault("finite", name, f"{name} is not finite")
        elif not is_whole(value) or value < 1:
            yield Fault("type", name, f"{shown(value)}, expected a whole number of pixels, 1 or more")


def size_hw(item: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width; None where one of them is missing or faulty."""
    height, width = item.get("height"), item.get("width")
    whole = is_whole(height) and is_whole(width) and not list(size_faults(item))
    return (height, width) if whole else None


def finite_faults(item: object) -> Iterator[Fault]:
    """A number, anywhere in an item, that no float can hold; one finding an item."""
    waiting: list[object] = [item]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            bad = next((name for name, each in value.items() if _is_infinite(each)), None)
            if bad is not None:
                yield Fault("finite", str(bad)[:80], "holds what is not finite")
                return
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif _is_infinite(value):
            yield Fault("finite", "", "a list holds what is not finite")
            return


def _is_infinite(value: object) -> bool:
    if isinstance(value, list):
        return any(map(_is_infinite, (each for each in value if not isinstance(each, list | dict))))
    return isinstance(value, float | int) and not is_finite(value)
