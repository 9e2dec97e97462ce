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
    if not is_whole(height) or not is_whole(width) or list(size_faults(item)):
        return None
    return height, width


def finite_faults(item: object) -> Iterator[Fault]:
    """A number, anywhere in an item, that no float can hold; one finding an item."""
    waiting: list[object] = [item]
    while waiting:
        value = waiting.pop()
        for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            kind = type(each)
            if kind is dict or kind is list:
                waiting.append(each)
            elif (kind is float or kind is int) and not is_finite(each):
                yield Fault("finite", _name_of(each, value), "holds what is not finite")
                return


def _name_of(value: object, holder: object) -> str:
    names = holder.items() if isinstance(holder, dict) else ()
    return next((str(name)[:80] for name, each in names if each is value), "")
