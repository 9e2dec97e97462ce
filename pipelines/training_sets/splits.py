"""Which split a group of images goes to: by a hash of the group, so that sets may grow and shards may come in
any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from ovsops.errors import ConfigError
from pipelines.training_sets.duplicates import share_of
from pipelines.training_sets.record import SPLITS, Split

_HELD_OUT_FIRST: tuple[Split, ...] = ("test", "val", "train")


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the groups, not of the images: a large group is not cut."""

    val: float = 0.01
    test: float = 0.01
    salt: str = "ovsops"
    """Another salt cuts otherwise."""

    def __post_init__(self) -> None:
        if min(self.val, self.test) < 0 or self.val + self.test >= 1:
            raise ConfigError(
                f"splits val {self.val} and test {self.test}: give shares of 0 or more, below 1 together"
            )


def split_of_group(group: str, config: SplitConfig) -> Split:
    """The split of a group by its name alone. Other groups change nothing."""
    share = share_of(group, config.salt)
    if share < config.test:
        return "test"
    return "val" if share < config.test + config.val else "train"


def assign_splits(
    group_of: Mapping[str, str], config: SplitConfig, known: Mapping[str, Split] | None = None
) -> dict[str, Split]:
    """Split by `image_uid`. With `known`, the splits of an earlier version of the set, images stay where they were.

    A new image can join groups that lie in two splits, and it can take a group's name. Then the whole group
    goes where its most held-out known image is (test, then val): what was held out never becomes training data.
    """
    kept: dict[str, Split] = {}
    for image_uid, split in (known or {}).items():
        if split not in SPLITS:
            raise ConfigError(
                f"image {image_uid} was in split {split!r}, expected one of {', '.join(SPLITS)}"
            )
        group = group_of.get(image_uid)
        if group is not None:
            kept[group] = min(kept.get(group, split), split, key=_HELD_OUT_FIRST.index)
    return {
        image_uid: kept[group] if group in kept else split_of_group(group, config)
        for image_uid, group in group_of.items()
    }
