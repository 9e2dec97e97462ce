"""Negatives before they are believed: what a validator is given, what it answers, and every reason for a drop.

    found = validate_all([TextValidator(), LabelValidator(rules), MarginValidator(encode)], candidates, contexts)
    found[0].kept        # the texts that are left, in their order
    count_drops(found)   # {"V_CAPTION": 3, ...}

Nothing heavy is imported: workers without a model may read this.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from ovsops.errors import ShapeError
from ovsops.negatives.check import FAULTS
from ovsops.negatives.config import NUM_NEGATIVES, REASONS
from ovsops.negatives.lexicon import Language

Source = Literal["rule", "llm"]
"""Who wrote a negative."""

DROPS: dict[str, str] = {
    "V_ENTAILED": "says nothing that the region's own caption does not say: true",
    "V_SYNONYM": "differs from the caption in words that do not exclude what it says: large for big",
    "V_OPEN": "adds what the caption leaves open, and contradicts nothing",
    "V_CAPTION": "what it changed is what another caption of the region says",
    "V_MAY_HOLD": "what it changed may hold beside what another caption, or a label, says",
    "V_NEIGHBOUR": "true of another region that lies on the same place",
    "V_LABEL": "names a class that was accepted for the region",
    "V_CONTESTED": "names a class that lost to the region's own by little",
    "V_MARGIN": "the region is nearer to it than to the caption: probably true",
    "V_NO_FEATURE": "nothing could be measured: the region covers no patch",
}
"""Reasons of the validators of this package. Faults of a text keep their codes of `check.FAULTS`, captions in another
shape those of `config.REASONS`."""
MEANINGS: dict[str, str] = {
    str(code): text for table in (FAULTS, REASONS, DROPS) for code, text in table.items()
}
"""Every reason that a validator may give, with its meaning."""
TOO_FEW = "V_TOO_FEW"
"""A region of which fewer than ten are left: it gets none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateNegatives:
    """Texts that are to be false for one region."""

    key: str
    """Names the region in messages."""
    positive: str
    language: Language
    texts: tuple[str, ...]
    types: tuple[str, ...]
    """What was changed in each: `colour`, or `colour+material`."""
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if not len(self.texts) == len(self.types) == len(self.sources):
            raise ShapeError(
                f"region {self.key}: {len(self.texts)} negatives, {len(self.types)} types, {len(self.sources)} sources:"
                " one of each is wanted a negative"
            )

    def only(self, places: Sequence[int]) -> "CandidateNegatives":
        """Those at some places, in that order."""
        if list(places) == list(range(len(self.texts))):  # nearly always
            return self
        return replace(
            self,
            texts=tuple(self.texts[i] for i in places),
            types=tuple(self.types[i] for i in places),
            sources=tuple(self.sources[i] for i in places),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RegionContext:
    """What else is known of a region."""

    captions: tuple[str, ...] = ()
    """All that is said of it beside the positive: long and short captions, the detector's phrase. Any language."""
    neighbours: tuple[str, ...] = ()
    """Captions of other regions on the same place; `same_place` finds those."""
    labels: tuple[str, ...] = ()
    """Names of classes that were accepted for it: its own, and those of regions on the same place."""
    contested: tuple[str, ...] = ()
    """Names of classes that lost to its own by less than is sure."""
    feature: Float[np.ndarray, " D"] | None = None
    """Unit vector in the space of FG-CLIP 2's `box` texts. None where it covers no patch, or nobody looked."""


DropReason = str
"""A key of `MEANINGS`."""


@runtime_checkable
class Validator(Protocol):
    """Looks at candidates of a batch of regions."""

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[DropReason | None]]:
        """For every text of every region why it is dropped, or None. `contexts[i]` is of region i."""


@dataclass(frozen=True, kw_only=True)
class Validated:
    """What became of one region's candidates."""

    kept: CandidateNegatives
    reasons: tuple[DropReason | None, ...]
    """Of every candidate, in the order in which they came."""


def joined(first: CandidateNegatives, second: CandidateNegatives) -> CandidateNegatives:
    """Candidates of two writers for one region, the first one's before; ShapeError where they are of two captions."""
    if (first.positive, first.language) != (second.positive, second.language):
        raise ShapeError(
            f"regions {first.key} and {second.key}: captions {first.positive!r} and {second.positive!r}: candidates of"
            " one caption are wanted; ask for all of them with the same text"
        )
    return replace(
        first,
        texts=first.texts + second.texts,
        types=first.types + second.types,
        sources=first.sources + second.sources,
    )


def validate_all(
    validators: Sequence[Validator],
    candidates: Sequence[CandidateNegatives],
    contexts: Sequence[RegionContext],
) -> list[Validated]:
    """All validators one after another; the first reason counts, and later ones see only what is left."""
    if len(candidates) != len(contexts):
        raise ShapeError(f"{len(candidates)} regions with {len(contexts)} contexts: one of each is wanted")
    reasons: list[list[DropReason | None]] = [[None] * len(each.texts) for each in candidates]
    for validator in validators:
        left = [[i for i, reason in enumerate(own) if reason is None] for own in reasons]
        rows = [row for row, places in enumerate(left) if places]
        if not rows:
            break
        found = validator.validate(
            [candidates[row].only(left[row]) for row in rows], [contexts[row] for row in rows]
        )
        for row, answers in zip(rows, found, strict=True):
            for place, reason in zip(left[row], answers, strict=True):
                reasons[row][place] = reason
    return [
        Validated(
            kept=each.only([i for i, reason in enumerate(own) if reason is None]),
            reasons=tuple(own),
        )
        for each, own in zip(candidates, reasons, strict=True)
    ]


def count_drops(found: Iterable[Validated]) -> Counter[str]:
    """How often each reason was given."""
    return Counter(reason for each in found for reason in each.reasons if reason is not None)


def choose_ten(kept: CandidateNegatives, *, max_of_type: int = NUM_NEGATIVES) -> CandidateNegatives | None:
    """The ten that a region gets: the first ones, at most `max_of_type` of one type; None where there are fewer.

    Negatives by rule come in an order that keeps the corpus balanced: the cap is for those of a model, which
    likes to change colours.
    """
    counts: Counter[str] = Counter()
    places: list[int] = []
    for place, kind in enumerate(kept.types):
        if counts[kind] < max_of_type and len(places) < NUM_NEGATIVES:
            counts[kind] += 1
            places.append(place)
    return kept.only(places) if len(places) == NUM_NEGATIVES else None


def same_place(boxes_xyxy: Float[np.ndarray, "R 4"], *, min_iou: float = 0.7) -> list[list[int]]:
    """Of each box the others that overlap it at least so much: they may show the same thing. O(R^2).

    A box without area overlaps nothing. 0.7 is the bound of `ovsops.regions.exclusive`.
    """
    left, top, right, bottom = boxes_xyxy.astype(np.float64).T
    area = (right - left).clip(0) * (bottom - top).clip(0)
    width = np.minimum.outer(right, right) - np.maximum.outer(left, left)
    height = np.minimum.outer(bottom, bottom) - np.maximum.outer(top, top)
    shared = width.clip(0) * height.clip(0)
    total = np.add.outer(area, area) - shared
    is_near = (shared > 0) & (shared >= min_iou * total)
    np.fill_diagonal(is_near, False)
    return [np.flatnonzero(row).tolist() for row in is_near]
