"""The ids that are counted: places in tables of counts, names, kinds, and whether run and truth mean the same.

Ids need not be dense; places are. Place 0 is id 0: unlabelled, or the background where the truth counts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int32, Integer

from ovsops.errors import ConfigError, ShapeError
from ovsops.text.names import canonical_name
from ovsops.text.vocabulary import Vocabulary

Kind = Literal["thing", "stuff"]

IGNORED = -1
"""Place of pixels that the truth says nothing about."""
BACKGROUND = "background"


@dataclass(frozen=True, kw_only=True)
class TruthClass:
    """A class of the truth."""

    id: int
    name: str
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Classes of a truth, in the order of their ids."""

    classes: tuple[TruthClass, ...]
    """Without the background."""
    has_background: bool
    """Whether id 0 is a class that counts in the mean; otherwise it is nothing, and never right."""

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary, *, has_background: bool) -> "Classes":
        """The classes of a truth whose ids and names are those of a vocabulary."""
        found = [TruthClass(id=spec.id, name=spec.name, kind=spec.kind) for spec in vocabulary.classes]
        return cls(classes=tuple(sorted(found, key=lambda c: c.id)), has_background=has_background)

    @property
    def num_places(self) -> int:
        """Places in a table of counts."""
        return 1 + len(self.classes)

    @property
    def counted(self) -> tuple[int, ...]:
        """Places over which the mean over all classes is taken."""
        return tuple(range(0 if self.has_background else 1, self.num_places))

    def of_kind(self, kind: Kind) -> tuple[int, ...]:
        """Places of things or of stuff."""
        return tuple(place for place, c in enumerate(self.classes, 1) if c.kind == kind)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name at each place."""
        return (BACKGROUND if self.has_background else "unlabelled", *(c.name for c in self.classes))

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Id at each place."""
        return (0, *(c.id for c in self.classes))

    def place_of(self, class_id: int) -> int:
        """Place of an id. Raises `ShapeError` for an id that is no class."""
        if class_id not in self._place_of:
            raise ShapeError(f"id {class_id} is none of the {len(self.classes)} classes")
        return self._place_of[class_id]

    @cached_property
    def _place_of(self) -> dict[int, int]:
        return {class_id: place for place, class_id in enumerate(self.ids)}

    def places(
        self, ids: Integer[np.ndarray, "h w"], *, ignore: int | None = None, where: str = "label map"
    ) -> Int32[np.ndarray, "h w"]:
        """Places of a map of ids; `ignore` becomes `IGNORED`. Raises `ShapeError` for an id that is no class."""
        known = np.asarray(self.ids)
        place = np.searchsorted(known, ids).clip(max=len(known) - 1)
        is_known = known[place] == ids
        is_ignored = (ids == ignore) & ~is_known if ignore is not None else np.zeros(ids.shape, bool)
        if not (is_known | is_ignored).all():
            wrong = np.unique(ids[~(is_known | is_ignored)])[:5].tolist()
            raise ShapeError(f"{where} has ids {wrong}, which are none of the {len(self.classes)} classes")
        return np.where(is_ignored, IGNORED, place).astype(np.int32)


def check_same_classes(classes: Classes, vocabulary: Vocabulary, *, run: str, truth: str) -> None:
    """The vocabulary of a run and the truth must mean the same by every id. Raises `ConfigError` naming both."""
    true_names: Mapping[int, str] = {c.id: c.name for c in classes.classes}
    run_names: Mapping[int, str] = {spec.id: spec.name for spec in vocabulary.classes}
    problems = []
    for i in sorted({*true_names, *run_names}):
        in_truth, in_run = true_names.get(i), run_names.get(i)
        if in_truth is None or in_run is None or canonical_name(in_truth) != canonical_name(in_run):
            problems.append(f"id {i} is {_shown(in_run)} in the run and {_shown(in_truth)} in the truth")
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ConfigError(
            f"{run} was labelled with the vocabulary {vocabulary.name!r}, which is not that of the truth {truth!r}:"
            f" {'; '.join(problems[:5])}{more}. Label with the truth's vocabulary, or name the truth that fits"
        )


def _shown(name: str | None) -> str:
    return "no class" if name is None else repr(name)
