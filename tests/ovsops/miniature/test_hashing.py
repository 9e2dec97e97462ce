import numpy as np

from ovsops.miniature.hashing import Draws, hashed, mix64

GAMMA = 0x9E3779B97F4A7C15


def test_mix_equals_the_reference_splitmix64() -> None:
    """First outputs of splitmix64 started at 0, as published with its reference implementation."""
    states = np.array([GAMMA, 2 * GAMMA & (2**64 - 1), 3 * GAMMA & (2**64 - 1)], np.uint64)
    assert [hex(v) for v in mix64(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_streams_and_seeds_differ() -> None:
    blocks = [tuple(hashed(seed, stream, 4).tolist()) for seed in range(30) for stream in range(30)]
    assert len({value for block in blocks for value in block}) == 4 * len(blocks)


def test_a_longer_block_begins_with_the_shorter() -> None:
    assert hashed(5, 6, 100)[:10].tolist() == hashed(5, 6, 10).tolist()


def test_draws_are_even_and_within_bounds() -> None:
    draws = Draws(1, 2)
    counts = np.bincount([draws.below(10) for _ in range(20_000)], minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 200  # 4.7 standard deviations
    assert {draws.between(-2, 2) for _ in range(200)} == {-2, -1, 0, 1, 2}
    assert 0.47 < sum(draws.share() for _ in range(2000)) / 2000 < 0.53
    assert 430 < sum(draws.happens(25) for _ in range(2000)) < 570


def test_blocks_of_one_stream_do_not_repeat() -> None:
    draws = Draws(3, 1)
    values = [draws.below(1 << 32) for _ in range(1000)]
    assert len(set(values)) > 995
