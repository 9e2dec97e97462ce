"""What a fit had to learn from, and what is unsure where that is little.

A fit on few images runs, and what it finds may be luck: nothing in its figures says so, as they are taken from the same
few images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ovsops.annotators.calibrated import class_groups, group_names
from ovsops.annotators.fitting import Observed
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.text.vocabulary import Vocabulary

ADVISED_IMAGES = 100
"""Each half of them fits what the other does not; a share that is counted on 50 is known to 14 points (95 %)."""
ADVISED_BOXES = 100
"""True boxes of a group of classes, for the same reason."""
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class FitSupport:
    """How many images and true boxes a fit was given."""

    num_images: int
    boxes_of_group: Mapping[str, int]
    """True boxes of each group of classes that holds a thing, on all images."""
    without_map: frozenset[str]
    """Groups whose scores get the map of all groups, as their own boxes did not suffice."""

    def warnings(self) -> tuple[str, ...]:
        """How much there was, what is unsure because of it, and how much is advised; empty where it was enough."""
        return tuple(line for line in (self._of_images(), self._of_boxes()) if line)

    def _of_images(self) -> str:
        if self.num_images >= ADVISED_IMAGES:
            return ""
        return (
            f"only {self.num_images} images, {ADVISED_IMAGES} or more are advised: whether and how scores are"
            " recalibrated, a presence gate, the calibrated chances and the figures above come from half of them each"
            " and may be luck; use more images whose boxes are known (--images says how many at most)"
        )

    def _of_boxes(self) -> str:
        few = sorted((count, group) for group, count in self.boxes_of_group.items() if count < ADVISED_BOXES)
        if not few:
            return ""
        named = ", ".join(f"{group} {count}" for count, group in few[:_NAMED])
        more = f" and {len(few) - _NAMED} groups more" if len(few) > _NAMED else ""
        shared = sum(group in self.without_map for _, group in few)
        consequence = f" ({shared} of {len(few)} take the map of all groups)" if shared else ""
        return (
            f"few true boxes in {len(few)} of {len(self.boxes_of_group)} groups of classes ({named}{more}),"
            f" {ADVISED_BOXES} or more in each are advised: their calibrated chances are unsure{consequence};"
            " use images that show more of them"
        )


def fit_support(
    observed: Sequence[Observed], vocabulary: Vocabulary, calibrator: ScoreCalibrator
) -> FitSupport:
    """Counts of the images that a fit saw."""
    groups, names = class_groups(vocabulary), group_names(vocabulary)
    labels = np.concatenate([np.zeros(0, np.int64), *(each.truth.labels.numpy() for each in observed)])
    counts = np.bincount(groups[labels], minlength=len(names))
    of_things = {
        int(group) for group, spec in zip(groups, vocabulary.classes, strict=True) if spec.kind == "thing"
    }
    return FitSupport(
        num_images=len(observed),
        boxes_of_group={names[group]: int(counts[group]) for group in sorted(of_things)},
        without_map=frozenset(names[group] for group in of_things if group not in calibrator.by_group),
    )
