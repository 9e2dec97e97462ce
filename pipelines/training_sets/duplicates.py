"""Images that are copies of each other or look alike, joined to groups; which of a group may stay."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ovsops.errors import ConfigError
from ovsops.images.near_vectors import near_vector_pairs
from ovsops.images.phash import PictureHash, near_hash_pairs
from pipelines.training_sets.drops import Drops


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePrint:
    """What tells an image from others."""

    image_uid: str
    sha256: str
    hashes: PictureHash | None = None
    """None where no hash was taken, or the picture has no structure."""


@dataclass(frozen=True, kw_only=True)
class DuplicateConfig:
    """Which images are taken for the same, and what becomes of them."""

    max_bits: int | None = 8
    """Bits of 64 by which each of both perceptual hashes may differ; None compares none. 4 holds re-encoded
    and resized copies, 8 most crops of 3 % a side, too; different scenes are 18 or more apart
    (`tests/ovsops/images/test_phash.py`)."""
    min_cosine: float | None = None
    """Cosine of embeddings from which images look alike; None compares none."""
    drop_near: bool = False
    """Drop images that look like one that is kept, too. Else they stay, in one split."""

    def __post_init__(self) -> None:
        if self.max_bits is not None and not 0 <= self.max_bits <= 31:
            raise ConfigError(f"max_bits is {self.max_bits}: give 0 to 31, or null")
        if self.min_cosine is not None and not 0 < self.min_cosine <= 1:
            raise ConfigError(f"min_cosine is {self.min_cosine}: give more than 0 and at most 1, or null")


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Every image's group, and what is left out."""

    group_of: Mapping[str, str]
    """Group by `image_uid`, dropped images included. A group is named by the smallest SHA-256 in it."""
    dropped: Mapping[str, str]
    """Reason by `image_uid`."""

    def count(self, drops: Drops) -> None:
        """Add what is left out to `drops`."""
        for reason in self.dropped.values():
            drops.add(reason)


def group_images(
    prints: Sequence[ImagePrint], config: DuplicateConfig, vectors: np.ndarray | None = None
) -> Groups:
    """Groups of copies and look-alikes. `vectors` are unit embeddings, one a print.

    Of equal bytes the image with the smallest uid stays. With `drop_near` an image goes when it is near one
    that stays, smaller uids first: a chain of look-alikes keeps its ends. Nothing depends on the order of `prints`.
    """
    if len({one.image_uid for one in prints}) < len(prints):
        raise ConfigError("an image_uid is in the set twice: uids must be unique over all shards")
    if config.min_cosine is not None and (vectors is None or len(vectors) != len(prints)):
        raise ConfigError(
            f"min_cosine needs one embedding an image, got {0 if vectors is None else len(vectors)} for {len(prints)}"
        )
    by_uid = sorted(range(len(prints)), key=lambda i: prints[i].image_uid)
    joined = _Sets(len(prints))
    dropped: dict[str, str] = {}
    first_of: dict[str, int] = {}
    for i in by_uid:
        first = first_of.setdefault(prints[i].sha256, i)
        if first != i:
            joined.join(first, i)
            dropped[prints[i].image_uid] = "D_EXACT_DUPLICATE"
    distinct = [i for i in by_uid if first_of[prints[i].sha256] == i]
    looks = _Looks(prints, distinct, config)
    by_vector = _near_vectors(distinct, config, vectors)
    for near in (looks.near, by_vector):
        for i, others in near.items():
            for j in others:
                joined.join(i, j)
    for i, look in looks.look_of.items():
        joined.join(look, i)
    if config.drop_near:
        kept: set[int] = set()
        kept_looks: set[int] = set()
        for i in distinct:
            own = looks.look_of.get(i)
            if by_vector[i] & kept or (own is not None and looks.near[own] & kept_looks):
                dropped[prints[i].image_uid] = "D_NEAR_DUPLICATE"
            else:
                kept.add(i)
                kept_looks.update(() if own is None else (own,))
    return Groups(group_of=_names(prints, joined), dropped=dropped)


class _Looks:
    """Images with equal hashes are one look, named by the first of them; which looks are near each other,
    themselves included.
    """

    def __init__(self, prints: Sequence[ImagePrint], places: list[int], config: DuplicateConfig) -> None:
        self.look_of: dict[int, int] = {}
        self.near: dict[int, set[int]] = {}
        if config.max_bits is None:
            return
        first_of: dict[PictureHash, int] = {}
        for i in places:
            hashes = prints[i].hashes
            if hashes is not None:
                self.look_of[i] = first_of.setdefault(hashes, i)
        self.near = {look: {look} for look in first_of.values()}
        looks = list(first_of.values())
        table = np.asarray(list(first_of), np.uint64).reshape(-1, 2)
        for a, b in near_hash_pairs(table, max_bits=config.max_bits).tolist():
            self.near[looks[a]].add(looks[b])
            self.near[looks[b]].add(looks[a])


def _near_vectors(
    places: list[int], config: DuplicateConfig, vectors: np.ndarray | None
) -> defaultdict[int, set[int]]:
    """Images with near embeddings, by image."""
    near: defaultdict[int, set[int]] = defaultdict(set)
    if config.min_cosine is not None and vectors is not None:
        for pairs in near_vector_pairs(vectors[places].astype(np.float32), min_cosine=config.min_cosine):
            for a, b in pairs.tolist():
                near[places[a]].add(places[b])
                near[places[b]].add(places[a])
    return near


def _names(prints: Sequence[ImagePrint], joined: "_Sets") -> dict[str, str]:
    names: dict[int, str] = {}
    for i, one in enumerate(prints):
        root = joined.root(i)
        names[root] = min(names.get(root, one.sha256), one.sha256)
    return {one.image_uid: names[joined.root(i)] for i, one in enumerate(prints)}


class _Sets:
    """Union-find with halved paths; the smaller place is the root."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        a, b = sorted((self.root(i), self.root(j)))
        self._parent[b] = a


def share_of(text: str, salt: str) -> float:
    """A number in 0..1 that depends on both texts alone: where a thing falls when a set is cut."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / 2**64
