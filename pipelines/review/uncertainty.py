"""How much a label's own record doubts it.

u = 1 - (1 - h)(1 - r)(1 - s)(1 - v)      noisy-or: any one doubt is enough, and no sum passes 1

h  entropy of its chance in bits (calibrated score, else score): 1 at even chance, 0 at sure
r  score of its closest rival over its own
s  1 - agreement with the second segmenter, where one looked
v  1 where a model that was asked said no, 0.5 where it was unsure
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.audit.sample import chance_of

_TOLD = 0.3
"""Doubts from here on are named as reasons."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """How uncertain a label is, in [0, 1], and why."""

    value: float
    reasons: tuple[str, ...]


def doubt_of(row: Mapping[str, Any], names: Mapping[int, str]) -> Doubt:
    """The doubt of a row of `instances`."""
    chance = chance_of(row)
    parts = [(binary_entropy(chance), f"score {chance:.2f} {_said_of(chance)}")]
    if row["rivals"]:
        rival = max(row["rivals"], key=lambda each: (each["score"], -each["category_id"]))
        closeness = min(1.0, rival["score"] / row["score"]) if row["score"] > 0 else 1.0
        name = names.get(rival["category_id"], str(rival["category_id"]))
        parts.append((closeness, f"{name} fits nearly as well ({rival['score']:.2f})"))
    if row["agreement_other"] is not None:
        gap = 1 - min(1.0, max(0.0, row["agreement_other"]))
        parts.append((gap, f"a second segmenter agrees by {row['agreement_other']:.2f} only"))
    said = {"no": 1.0, "unsure": 0.5}.get(row["verdict"] or "", 0.0)
    parts.append((said, f"the model that was asked says {row['verdict']}"))
    sure = math.prod(1 - value for value, _ in parts)
    return Doubt(value=1 - sure, reasons=tuple(reason for value, reason in parts if value >= _TOLD))


def _said_of(chance: float) -> str:
    return "is low" if chance < 0.35 else "is near even chance" if chance <= 0.65 else "leaves doubt"


def binary_entropy(chance: float) -> float:
    """Bits; 0 for what is sure."""
    if not 0 < chance < 1:
        return 0.0
    return -(chance * math.log2(chance) + (1 - chance) * math.log2(1 - chance))
