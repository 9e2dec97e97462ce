"""Who is where: left of, right of, above, below, in front of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

RelationName = Literal["left of", "right of", "above", "below", "in front of"]
RELATION_NAMES: tuple[RelationName, ...] = ("left of", "right of", "above", "below", "in front of")

_CLEAR = 0.8
"""Middles lie at least this times the sum of the radii apart along the axis that is named."""
_STEEP = 1.6
"""The named axis is at least this times the other one."""
_HIDES_PERCENT = 6
"""A thing is in front of another when it hides at least this share of it."""


@dataclass(frozen=True, kw_only=True)
class Relation:
    """`things[subject]` is <name> `things[object]`."""

    subject: int
    name: RelationName
    object: int


def relations_between(
    centers_xy: Sequence[tuple[float, float]],
    radii: Sequence[float],
    hidden_by: Sequence[Mapping[int, int]],
    areas: Sequence[int],
) -> tuple[Relation, ...]:
    """What may be said of every pair: who is in front, else where the earlier one lies if that is clear.

    `hidden_by[i][j]` counts the pixels of thing i that thing j hides, `areas` the pixels that each would show alone.
    """
    front, beside = [], []
    for i in range(len(centers_xy)):
        for j in range(i + 1, len(centers_xy)):
            if hidden_by[i].get(j, 0) * 100 >= areas[i] * _HIDES_PERCENT:
                front.append(Relation(subject=j, name="in front of", object=i))
                continue
            name = _direction(centers_xy[i], centers_xy[j], (radii[i] + radii[j]) * _CLEAR)
            if name is not None:
                beside.append(Relation(subject=i, name=name, object=j))
    return (*front, *beside)


def _direction(a: tuple[float, float], b: tuple[float, float], clear: float) -> RelationName | None:
    """Where a lies, seen from b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    if abs(dx) >= clear and abs(dx) >= _STEEP * abs(dy):
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= clear and abs(dy) >= _STEEP * abs(dx):
        return "above" if dy > 0 else "below"
    return None
