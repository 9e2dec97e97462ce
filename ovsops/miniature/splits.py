"""Which seeds belong to training, validation and test. A scene is its seed, so the splits share no scene."""

from typing import Literal

Split = Literal["train", "validation", "test"]

_SEEDS: dict[Split, range] = {
    "train": range(100_000, 800_000),
    "validation": range(800_000, 900_000),
    "test": range(900_000, 1_000_000),
}


def seeds_of(split: Split) -> range:
    """The seeds of a split."""
    return _SEEDS[split]
