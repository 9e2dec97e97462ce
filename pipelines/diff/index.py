"""Which images two runs share, by content: a compact index of each, and pairs. Axes: I images, P pairs.

An image is its bytes: SHA-256, or shard and key where it could not be read. An index holds some 48 bytes an image, so a
million images fit into 50 MB; rows of tables are read shard by shard.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

from ovsops.metrics.drift import NO_PARTNER
from pipelines.export import committed_rows
from pipelines.ledger import Commit
from pipelines.storage import Storage

_DIGEST = np.dtype([("high", "<u8"), ("low", "<u8")])
_COLUMNS = ["image_uid", "shard", "key", "sha256", "status", "error_code", "width", "height"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageIndex:
    """Images of a run in the order of its commits and rows."""

    identities: np.ndarray
    """128 bits of content each."""
    uids: np.ndarray
    """`image_uid` as 128 bits."""
    commits: Int32[np.ndarray, " I"]
    """Place of the commit that an image belongs to."""
    outcomes: Int32[np.ndarray, " I"]
    """Place in `outcome_names`."""
    sides: np.ndarray
    """Square root of width times height, pixels; 0 where it is not known."""
    outcome_names: tuple[str, ...]
    """`labelled`, `skipped S_SMALL`, `failed E_TRUNCATED`, ..."""

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether an image has labels."""
        names = np.array([name == "labelled" for name in self.outcome_names] or [False])
        return names[self.outcomes]

    @property
    def is_failed(self) -> np.ndarray:
        """Whether an image failed."""
        names = np.array([name.startswith("failed") for name in self.outcome_names] or [False])
        return names[self.outcomes]


def index_images(storage: Storage, commits: Sequence[Commit]) -> ImageIndex:
    """Read the `images` tables of all commits once. Raises `OutputError` for tables that cannot be trusted."""
    identities, uids = bytearray(), bytearray()
    places: list[int] = []
    outcomes: list[int] = []
    sides: list[float] = []
    names: dict[str, int] = {"labelled": 0}
    for place, commit in enumerate(commits):
        for row in committed_rows(storage, commit, "images", _COLUMNS):
            identities += _identity(row["sha256"], row["shard"], row["key"])
            uids += uid_bytes(row["image_uid"])
            places.append(place)
            outcome = (
                row["status"] if row["status"] == "labelled" else f"{row['status']} {row['error_code'] or ''}"
            )
            outcomes.append(names.setdefault(outcome.strip(), len(names)))
            sides.append(((row["width"] or 0) * (row["height"] or 0)) ** 0.5)
    return ImageIndex(
        identities=np.frombuffer(bytes(identities), _DIGEST),
        uids=np.frombuffer(bytes(uids), _DIGEST),
        commits=np.array(places, np.int32),
        outcomes=np.array(outcomes, np.int32),
        sides=np.array(sides, np.float32),
        outcome_names=tuple(names),
    )


def _identity(sha256: str | None, shard: str, key: str) -> bytes:
    if sha256:
        return bytes.fromhex(sha256)[:16]
    return hashlib.blake2b(f"{shard}\0{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def uid_bytes(uid: str) -> bytes:
    """128 bits of a uid: hexadecimal as we write them, else a hash."""
    if len(uid) == 32:
        try:
            return bytes.fromhex(uid)
        except ValueError:
            pass  # not one of ours: hashed below, so that it stays itself
    return hashlib.blake2b(uid.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pair_images(first: ImageIndex, second: ImageIndex) -> Int64[np.ndarray, "P 2"]:
    """Places of the same images, sorted by commits: the n-th of equal images with the n-th."""
    both = np.concatenate([first.identities, second.identities])
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.int64)
    numbers = np.unique(both, return_inverse=True)[1].reshape(-1)
    one, two = numbers[: len(first)], numbers[len(first) :]
    first_keys, second_keys = (_with_occurrence(each, len(both)) for each in (one, two))
    _, left, right = np.intersect1d(first_keys, second_keys, assume_unique=True, return_indices=True)
    order = np.lexsort((left, second.commits[right], first.commits[left]))
    return np.stack([left[order], right[order]], axis=1).astype(np.int64)


def _with_occurrence(numbers: Int64[np.ndarray, " I"], most: int) -> Int64[np.ndarray, " I"]:
    """Numbers that tell the first of equal images from the second."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]]
    run = np.arange(len(ordered)) - np.maximum.accumulate(np.where(starts, np.arange(len(ordered)), 0))
    occurrence = np.empty_like(numbers)
    occurrence[order] = run
    return numbers * np.int64(most) + occurrence


def partners_of(
    pairs: Int64[np.ndarray, "P 2"], num_first: int, num_second: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each image of either run the place of the same image in the other, or `NO_PARTNER`."""
    one, two = np.full(num_first, NO_PARTNER, np.int64), np.full(num_second, NO_PARTNER, np.int64)
    one[pairs[:, 0]], two[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]
    return one, two
