"""Masks drawn over their pictures: a colour per category, outlines, and a legend. Axes: h w pixels.

A category has the same colour in every picture of every run.
"""

import colorsys
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from ovsops.errors import ImageDecodeError
from ovsops.images.decode import decode_image
from ovsops.images.decode_config import DecodeConfig
from ovsops.masks.rle import Rle, rle_to_mask
from pipelines.ledger import Commit, Ledger
from pipelines.parts import read_part
from pipelines.readers import ReaderConfig, read_shard
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions

logger = logging.getLogger(__name__)

_GOLDEN = 0.618033988749895
_DARK = (24, 26, 30)
_LIGHT = (236, 238, 241)


@dataclass(frozen=True, kw_only=True)
class OverlayConfig:
    """How an overlay looks."""

    fill: float = 0.45
    """Share of the category's colour inside a mask, in [0, 1]."""
    max_side: int = 1024
    """The picture is shown with at most this long side, in pixels."""
    max_legend: int = 12
    """Categories that the legend names, the largest first; the others are counted."""


def category_colour(category_id: int) -> tuple[int, int, int]:
    """RGB of a category: hues a golden angle apart, three brightnesses in turn."""
    hue = (category_id * _GOLDEN) % 1.0
    saturation, value = ((0.85, 1.0), (0.65, 0.95), (0.95, 0.8))[category_id % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(
    pixels: UInt8[np.ndarray, "h w 3"],
    regions: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    *,
    title: str = "",
    config: OverlayConfig | None = None,
) -> Image.Image:
    """The picture with the masks of its regions (rows of `instances`) and a legend below it."""
    config = config or OverlayConfig()
    scale = min(1.0, config.max_side / max(pixels.shape[:2]))
    size_wh = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    canvas = np.asarray(Image.fromarray(pixels).resize(size_wh, Image.Resampling.LANCZOS)).astype(np.float32)
    pixels_of: dict[int, int] = defaultdict(int)
    outlines: list[tuple[Bool[np.ndarray, "h w"], tuple[int, int, int]]] = []
    for region in sorted(regions, key=lambda r: -r["area"]):
        colour = category_colour(region["category_id"])
        mask = _shown_mask(region["segmentation"], size_wh)
        canvas[mask] += config.fill * (np.asarray(colour, np.float32) - canvas[mask])
        outlines.append((_inner_edge(mask), colour))
        pixels_of[region["category_id"]] += region["area"]
    for edge, colour in outlines:
        canvas[edge] = 0.25 * canvas[edge] + 0.75 * np.asarray(colour, np.float32)
    picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    total = pixels.shape[0] * pixels.shape[1]
    counts = [(i, pixels_of[i] / total) for i in sorted(pixels_of, key=lambda i: (-pixels_of[i], i))]
    return _with_legend(picture, counts, names, title, config)


def _shown_mask(segmentation: Mapping[str, Any], size_wh: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    rle = Rle(size_hw=tuple(segmentation["size"]), counts=segmentation["counts"])
    mask = rle_to_mask(rle)
    if mask.shape == (size_wh[1], size_wh[0]):
        return mask
    return np.asarray(Image.fromarray(mask).resize(size_wh, Image.Resampling.NEAREST))


def _inner_edge(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mask pixels with a neighbour outside; the picture's border is no edge."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _with_legend(
    picture: Image.Image,
    counts: Sequence[tuple[int, float]],
    names: Mapping[int, str],
    title: str,
    config: OverlayConfig,
) -> Image.Image:
    font = ImageFont.load_default(size=15)
    shown = [
        (
            category_colour(i),
            f"{_printable(names.get(i, str(i)))}  {share:.0%}"
            if share >= 0.005
            else f"{_printable(names.get(i, str(i)))}  <1%",
        )
        for i, share in counts[: config.max_legend]
    ]
    if len(counts) > config.max_legend:
        shown.append((_DARK, f"+{len(counts) - config.max_legend} more"))
    if not shown:
        shown.append((_DARK, "no regions"))
    width, row = max(picture.width, 320), 26
    lines = wrap_legend(shown, width, font)
    top = row if title else 0
    sheet = Image.new("RGB", (width, picture.height + top + row * len(lines) + 12), _DARK)
    sheet.paste(picture, ((width - picture.width) // 2, top))
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((10, row / 2), _printable(title), fill=_LIGHT, font=font, anchor="lm")
    for number, line in enumerate(lines):
        y = top + picture.height + 6 + row * number + row // 2
        for x, colour, text in line:
            draw.rounded_rectangle((x, y - 7, x + 14, y + 7), 3, fill=colour)
            draw.text((x + 21, y), text, fill=_LIGHT, font=font, anchor="lm")
    return sheet


def wrap_legend(
    entries: Sequence[tuple[tuple[int, int, int], str]], width: int, font: Any
) -> list[list[tuple[int, tuple[int, int, int], str]]]:
    """Legend entries in lines that fit, each with its x."""
    lines: list[list[tuple[int, tuple[int, int, int], str]]] = [[]]
    x = 10
    for colour, text in entries:
        needed = 21 + round(font.getlength(text)) + 18
        if lines[-1] and x + needed > width:
            lines.append([])
            x = 10
        lines[-1].append((x, colour, text))
        x += needed
    return lines


def _printable(text: str) -> str:
    """The built-in font has Latin letters; what it lacks is shown as code points."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 else f"<{ord(c):X}>" for c in text)[:80]


def write_overlays(
    storage: Storage,
    shards: Sequence[Shard],
    names: Mapping[int, str],
    folder: Path,
    *,
    limit: int,
    reader: ReaderConfig,
    decode: DecodeConfig,
    options: StorageOptions,
    config: OverlayConfig | None = None,
) -> list[Path]:
    """Overlays of the first `limit` labelled images, in the order of shards and rows; the files written.

    `shards` are the run's inputs: image bytes are read from there, masks from the tables of `storage`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    by_id = {shard.id: shard for shard in shards}
    written: list[Path] = []
    for commit in Ledger(storage).read_all():
        if len(written) >= limit:
            break
        if commit.shard not in by_id:
            logger.warning(
                "shard %s is no longer among the inputs as it was labelled: no overlays", commit.name
            )
            continue
        shard = by_id[commit.shard]
        for image, regions, data in _labelled(storage, commit, shard, reader, options, limit - len(written)):
            try:
                decoded = decode_image(data, decode)
            except ImageDecodeError as error:
                logger.warning("%s %s: no overlay: %s", commit.name, image["key"], error)
                continue
            sheet = draw_overlay(decoded.pixels, regions, names, title=image["key"], config=config)
            path = folder / f"{shard.slug}-{image['index']:06d}-{file_stem(image['key'])}.png"
            sheet.save(path)
            written.append(path)
    return written


def _labelled(
    storage: Storage, commit: Commit, shard: Shard, reader: ReaderConfig, options: StorageOptions, limit: int
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], bytes]]:
    """Row of `images`, rows of `instances` and encoded bytes of a shard's first labelled images."""
    tables = {kind: read_part(storage, t["published"], t["sha256"]) for kind, t in commit.tables.items()}
    rows = [r for r in tables["images"].to_pylist() if r["status"] == "labelled"]
    rows = sorted(rows, key=lambda r: r["index"])[:limit]
    by_index = {row["index"]: row for row in rows}
    regions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for region in tables["instances"].to_pylist():
        regions[region["image_uid"]].append(region)
    for table in read_shard(shard, reader, options):
        for index, data in zip(table.column("index").to_pylist(), table.column("image"), strict=True):
            if index in by_index and data.is_valid:
                row = by_index.pop(index)
                yield row, regions[row["image_uid"]], data.as_py()
        if not by_index:
            return


def file_stem(key: str) -> str:
    """A safe piece of a file name from an image's key."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", key.rsplit("/", 1)[-1])[:40].strip("-") or "image"
