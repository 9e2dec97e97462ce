from ovsops.miniature.splits import seeds_of


def test_splits_share_no_seed() -> None:
    ranges = [seeds_of(split) for split in ("train", "validation", "test")]
    for i, a in enumerate(ranges):
        for b in ranges[:i]:
            assert a.start >= b.stop or b.start >= a.stop
    assert [r.start for r in ranges] == [100_000, 800_000, 900_000]
