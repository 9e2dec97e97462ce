"""Which parts make a whole shard."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipelines.coverage import ShardCoverage
from pipelines.rows import Closing


def part(first: int, end: int, num_rows: int | None = None) -> dict:
    closing = Closing(num_rows=num_rows, complete=True).to_json() if num_rows is not None else None
    return {
        "first": first,
        "end": end,
        "path": f"{first}-{end}",
        "closing": closing,
        "decode_seconds": 0.5,
        "segment_seconds": 0.25,
    }


def test_an_empty_shard_is_covered_by_its_closing_row() -> None:
    coverage = ShardCoverage()
    assert coverage.tiling() is None
    coverage.add(part(0, 1, num_rows=0))
    assert [p["path"] for p in coverage.tiling() or []] == ["0-1"]


def test_a_missing_part_or_closing_row_leaves_the_shard_open() -> None:
    coverage = ShardCoverage()
    coverage.add(part(0, 4))
    coverage.add(part(6, 9, num_rows=8))
    assert coverage.tiling() is None
    coverage.add(part(4, 6))
    assert [p["path"] for p in coverage.tiling() or []] == ["0-4", "4-6", "6-9"]


def test_attempts_that_cut_elsewhere_do_not_mix_up() -> None:
    coverage = ShardCoverage()
    for p in (part(0, 3), part(2, 5), part(0, 4), part(4, 8), part(3, 7), part(8, 11, num_rows=10)):
        coverage.add(p)
    assert [p["path"] for p in coverage.tiling() or []] == ["0-4", "4-8", "8-11"]


@given(st.sets(st.integers(1, 40)), st.randoms())
def test_any_order_of_arrival_gives_a_tiling(cuts: set[int], random) -> None:
    edges = [0, *sorted(cuts), 41]
    parts = [part(a, b, num_rows=40 if b == 41 else None) for a, b in itertools.pairwise(edges)]
    random.shuffle(parts)
    coverage = ShardCoverage()
    for p in parts[:-1]:
        coverage.add(p)
        assert coverage.tiling() is None
    coverage.add(parts[-1])
    tiling = coverage.tiling()
    assert tiling is not None
    assert [p["first"] for p in tiling] == edges[:-1]
