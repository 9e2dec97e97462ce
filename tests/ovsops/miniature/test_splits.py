import pytest

from ovsops.errors import ConfigError
from ovsops.miniature.splits import seeds_of, split_of


def test_splits_share_no_seed() -> None:
    ranges = [seeds_of(split) for split in ("train", "validation", "test")]
    for i, a in enumerate(ranges):
        for b in ranges[:i]:
            assert a.start >= b.stop or b.start >= a.stop
    assert [r.start for r in ranges] == [100_000, 800_000, 900_000]


def test_every_seed_of_a_split_maps_back() -> None:
    for split in ("train", "validation", "test"):
        seeds = seeds_of(split)
        assert {split_of(seeds[0]), split_of(seeds[-1]), split_of(seeds[len(seeds) // 2])} == {split}


def test_a_seed_of_no_split() -> None:
    with pytest.raises(ConfigError, match="belongs to no split"):
        split_of(99_999)
