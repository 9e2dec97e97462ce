"""Perceptual hashes: what they survive, what they tell apart, and that near pairs are found exactly."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ovsops.errors import ShapeError
from ovsops.images.near_vectors import near_vector_pairs
from ovsops.images.phash import PictureHash, near_hash_pairs, picture_hash

MAX_BITS = 8


def photo(seed: int, size_hw: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A picture whose detail falls with its fineness, as that of photos does."""
    rng = np.random.default_rng(seed)
    total = np.zeros((*size_hw, 3))
    for rows, weight in ((3, 1.0), (6, 0.5), (12, 0.25), (48, 0.06)):
        coarse = Image.fromarray(rng.integers(0, 256, (rows, rows * 4 // 3, 3), np.uint8))
        total += weight * np.asarray(coarse.resize(size_hw[::-1], Image.Resampling.BICUBIC))
    return (total / 1.81).astype(np.uint8)


def encoded(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def bits_apart(one: np.ndarray, other: np.ndarray) -> int:
    a, b = picture_hash(one), picture_hash(other)
    assert a is not None
    assert b is not None
    return max((a.difference ^ b.difference).bit_count(), (a.frequency ^ b.frequency).bit_count())


CHANGES = {
    "jpeg 50": lambda p: encoded(p, 50),
    "jpeg 20": lambda p: encoded(p, 20),
    "half the size": lambda p: resized(p, 160, 120),
    "other aspect": lambda p: resized(p, 400, 240),
    "darker": lambda p: (p * 0.75).astype(np.uint8),
    "brighter": lambda p: np.minimum(p.astype(int) // 2 + 100, 255).astype(np.uint8),
    "crop of 1 %": lambda p: p[2:-2, 2:-2],
    "crop of 3 % a side": lambda p: p[6:-6, 8:-8],
    "grey": lambda p: np.asarray(Image.fromarray(p).convert("L").convert("RGB")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_stay_near(change: str) -> None:
    """All but crops stay within 4 bits; of crops of 3 % a side three quarters stay within 8."""
    apart = [bits_apart(photo(seed), CHANGES[change](photo(seed))) for seed in range(20)]
    if "crop of 3" not in change:
        assert max(apart) <= 4
    assert np.mean([bits <= MAX_BITS for bits in apart]) >= 0.75, apart


def test_other_pictures_are_far() -> None:
    hashes = [picture_hash(photo(seed)) for seed in range(60)]
    table = np.asarray(hashes, np.uint64)
    assert len(near_hash_pairs(table, max_bits=12)) == 0


def test_a_mirrored_picture_is_another_one() -> None:
    assert bits_apart(photo(0), photo(0)[:, ::-1]) > MAX_BITS


def test_uniform_pictures_have_no_hash() -> None:
    assert picture_hash(np.full((50, 40, 3), 130, np.uint8)) is None
    noise = np.random.default_rng(0).integers(128, 131, (400, 400, 3), np.uint8)
    assert picture_hash(noise) is None


def test_the_difference_hash_by_hand() -> None:
    """Every row of cells grows to the right: all 64 bits are set. Upside down nothing changes, mirrored all do."""
    ramp = np.repeat(np.arange(0, 180, 20, np.uint8), 10)[None, :, None] * np.ones((80, 1, 3), np.uint8)
    assert picture_hash(ramp).difference == 2**64 - 1  # type: ignore[union-attr]
    assert picture_hash(ramp[:, ::-1]).difference == 0  # type: ignore[union-attr]


def test_a_picture_of_one_pixel_and_of_none() -> None:
    assert picture_hash(np.zeros((1, 1, 3), np.uint8)) is None
    assert picture_hash(np.asarray([[[0, 0, 0], [255, 255, 255]]], np.uint8)) is not None
    with pytest.raises(ShapeError, match="has no hash"):
        picture_hash(np.zeros((0, 5, 3), np.uint8))


@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(0, 40))
def test_near_pairs_are_those_of_brute_force(seed: int, max_bits: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**64, (4, 2), np.uint64)
    rows = base[rng.integers(0, 4, count)]
    for _ in range(4):  # some bits turned over
        rows = rows ^ (np.uint64(1) << rng.integers(0, 64, rows.shape).astype(np.uint64))
    found = near_hash_pairs(rows, max_bits=max_bits)
    near = (np.bitwise_count(rows[:, None] ^ rows[None]) <= max_bits).all(axis=2)
    assert components(found.tolist(), count) == components(np.argwhere(near).tolist(), count)
    assert all(near[i, j] and i < j for i, j in found.tolist())


def components(pairs: list[list[int]], count: int) -> list[int]:
    names = list(range(count))
    for i, j in pairs:
        low, high = sorted((names[i], names[j]))
        names = [low if name == high else name for name in names]
    return names


def test_a_hundred_thousand_equal_hashes_are_a_star() -> None:
    table = np.full((100_000, 2), 7, np.uint64)
    pairs = near_hash_pairs(table, max_bits=4)
    assert pairs.shape == (99_999, 2)
    assert (pairs[:, 0] == 0).all()


def test_bad_limits() -> None:
    with pytest.raises(ShapeError, match="max_bits is 40"):
        near_hash_pairs(np.zeros((2, 2), np.uint64), max_bits=40)


def test_the_hash_is_one_type() -> None:
    assert isinstance(picture_hash(photo(1)), PictureHash)


def test_near_vectors_across_blocks() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    vectors[41] = vectors[3] + 0.01
    vectors[42] = vectors[41]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = np.concatenate(list(near_vector_pairs(vectors, min_cosine=0.99)))
    blocks = np.concatenate(list(near_vector_pairs(vectors, min_cosine=0.99, block=7)))
    assert (
        sorted(map(tuple, whole.tolist()))
        == sorted(map(tuple, blocks.tolist()))
        == [(3, 41), (3, 42), (41, 42)]
    )


@pytest.mark.parametrize("bad", [0.0, float("nan"), 2.0])
def test_vectors_that_are_no_unit_vectors_are_named(bad: float) -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2] *= bad
    with pytest.raises(ShapeError, match="vector 2 is not of length 1"):
        list(near_vector_pairs(vectors, min_cosine=0.9))
