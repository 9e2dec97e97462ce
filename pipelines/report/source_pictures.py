"""Pictures of a run's images, fetched from the source shards by key, checked by SHA-256, made small. Axes: h w pixels.

A picture that cannot be had is a reason, never an error. The pictures are encoded anew from their pixels, so that
nothing of the file travels along: no EXIF, no position, no embedded preview.
"""

import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ovsops.errors import ConfigError, ImageDecodeError, StorageError
from ovsops.images.decode import decode_image
from pipelines.keys import IMAGE_EXTENSIONS, archive_key
from pipelines.ledger import Commit
from pipelines.redact import redact
from pipelines.shards import TAR_SUFFIXES
from pipelines.storage import StorageOptions, open_storage, split_url
from pipelines.tar import TarConfig, TarReader

logger = logging.getLogger(__name__)

_QUALITIES = (82, 70, 55, 40)
_SHRINK = 0.75
_MIN_SIDE = 64


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """How pictures are made small."""

    side: int = 480
    """Long side at most, in pixels; small images stay as they are."""
    max_bytes: int = 48 * 1024
    """Bytes of one picture; quality, then size give way."""
    lossless_side: int = 256
    """Images up to this long side are kept without loss where `max_bytes` allows."""

    def __post_init__(self) -> None:
        for name, least in (("side", _MIN_SIDE), ("max_bytes", 2048), ("lossless_side", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"report pictures: {name} is {getattr(self, name)}; give {least} or more")


@dataclass(frozen=True, kw_only=True)
class SmallPicture:
    """A picture for the page, or why there is none."""

    webp: bytes = b""
    missing: str = ""
    """`shard`: the shard is gone or cannot be read; `image`: it is no longer in it; `changed`: its bytes are others;
    `decode`: it cannot be decoded."""


def fetch_pictures(
    wanted: Mapping[str, Sequence[Mapping[str, str]]],
    commits: Mapping[str, Commit],
    config: PictureConfig,
    options: StorageOptions,
) -> dict[str, SmallPicture]:
    """Pictures by `image_uid`. `wanted` has rows of `images` (image_uid, key, sha256) by shard id."""
    found: dict[str, SmallPicture] = {}
    for shard, rows in wanted.items():
        commit = commits[shard]
        try:
            for uid, data in _read(commit, rows, options):
                found[uid] = _made_small(data, config)
        except (StorageError, OSError) as error:
            logger.warning("shard %s: no pictures: %s", commit.name, redact(str(error)))
            lost = {row["image_uid"]: SmallPicture(missing="shard") for row in rows}
            found = lost | found
        found = {row["image_uid"]: SmallPicture(missing="image") for row in rows} | found
    return found


def _read(
    commit: Commit, rows: Sequence[Mapping[str, str]], options: StorageOptions
) -> Iterator[tuple[str, bytes]]:
    """`image_uid` and bytes of the rows that are found. Bytes of another hash are given where no other has the key."""
    by_key: dict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        by_key[row["key"]].append(row)
    members = _archive_members if commit.url.endswith(TAR_SUFFIXES) else _folder_members
    others: dict[str, bytes] = {}
    for key, data in members(commit, by_key.keys(), options):
        digest = hashlib.sha256(data).hexdigest()
        equal = [row for row in by_key[key] if row["sha256"] == digest]
        for row in equal:
            by_key[key].remove(row)
            others.pop(row["image_uid"], None)
            yield row["image_uid"], data
        for row in () if equal else by_key[key]:
            others[row["image_uid"]] = b""
        if not any(by_key.values()):
            return
    yield from others.items()


def _archive_members(
    commit: Commit, keys: Collection[str], options: StorageOptions
) -> Iterator[tuple[str, bytes]]:
    """Images of an archive with one of the keys; the others are jumped over where the file can."""
    folder, name = split_url(commit.url)
    with open_storage(folder, options).open(name) as stream:
        for member in TarReader(stream, TarConfig(), lambda name, size: _key_of(name) in keys, seeks=True):
            if member.data is not None:
                key = _key_of(member.name)
                assert key is not None, "only members with a key are wanted"
                yield key, member.data


def _key_of(name: bytes) -> str | None:
    """Key of an image's name; None for other members."""
    split = archive_key(name.decode("utf-8", "replace"))
    is_image = split is not None and split[1].rsplit(".", 1)[-1].lower() in IMAGE_EXTENSIONS
    return split[0] if split is not None and is_image else None


def _folder_members(
    commit: Commit, keys: Collection[str], options: StorageOptions
) -> Iterator[tuple[str, bytes]]:
    """Files of a folder that are called after one of the keys."""
    storage = open_storage(commit.url, options)
    largest = TarConfig().max_member_bytes
    for key in list(keys):
        for extension in sorted(IMAGE_EXTENSIONS | {each.upper() for each in IMAGE_EXTENSIONS}):
            path = f"{key}.{extension}"
            if storage.exists(path) and storage.info(path).size <= largest:
                yield key, storage.read(path)


def _made_small(data: bytes, config: PictureConfig) -> SmallPicture:
    if not data:
        return SmallPicture(missing="changed")
    try:
        return SmallPicture(webp=small_webp(decode_image(data).pixels, config))
    except ImageDecodeError as error:
        logger.warning("a picture is left out: %s", error)
        return SmallPicture(missing="decode")


def small_webp(pixels: UInt8[np.ndarray, "h w 3"], config: PictureConfig) -> bytes:
    """WebP of the pixels alone, within the sizes of `config`."""
    picture = Image.fromarray(pixels)
    if max(picture.size) <= config.lossless_side:
        data = _encoded(picture, lossless=True)
        if len(data) <= config.max_bytes:
            return data
    side = min(config.side, max(picture.size))
    while True:
        scale = side / max(picture.size)
        size_wh = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        shown = picture.resize(size_wh, Image.Resampling.LANCZOS, reducing_gap=3.0) if scale < 1 else picture
        for quality in _QUALITIES:
            data = _encoded(shown, quality=quality)
            if len(data) <= config.max_bytes:
                return data
        if side <= _MIN_SIDE:
            return data  # noise at 64 pixels: some kilobytes, whatever the limit
        side = max(_MIN_SIDE, round(side * _SHRINK))


def _encoded(picture: Image.Image, **how: int | bool) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, "WEBP", method=4, **how)
    return sink.getvalue()
