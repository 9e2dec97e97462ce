"""Masks drawn over their pictures: a colour per category, outlines, and a legend. Axes: h w pixels.

What a detector found has its box, name and score besides. A category has the same colour in every picture of every run.
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
from pipelines.report.overlay_boxes import NamedBox, draw_boxes
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions

logger = logging.getLogger(__name__)

_GOLDEN = 0.618033988749895
_DARK = (24, 26, 30)
_LIGHT = (236, 238, 241)
_MAX_NAME = 30
"""Characters of a name that are written at a box."""


@dataclass(frozen=True, kw_only=True)
class OverlayConfig:
    """How an overlay looks."""

    fill: float = 0.45
    """Share of the category's colour inside a mask, in [0, 1]."""
    max_side: int = 1024
    """The picture is shown with at most this long side, in pixels."""
    max_legend: int = 12
    """Categories that the legend names, the largest first; the others are counted."""
    min_named_side: int = 640
    """A picture with boxes is shown with at least this long side, in pixels, so that names have room."""
    max_names: int = 40
    """Boxes that have their name written at them, the surest first; the others have an outline."""


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
    """The picture with the masks of its regions (rows of `instances`) and a legend below it.

    A region that a detector found (`bbox_detector`) has the box of its label (`bbox`), the category's name and how sure
    it is: `75%` is a calibrated chance, `0.75` a score that nobody calibrated.
    """
    config = config or OverlayConfig()
    boxed = [region for region in regions if region.get("bbox_detector") is not None]
    scale = _scale(max(pixels.shape[:2]), config, has_boxes=bool(boxed))
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
    if boxed:
        picture = draw_boxes(picture, _named_boxes(boxed, names, size_wh, scale, config))
    total = pixels.shape[0] * pixels.shape[1]
    counts = [(i, pixels_of[i] / total) for i in sorted(pixels_of, key=lambda i: (-pixels_of[i], i))]
    return _with_legend(picture, counts, names, title, config, note=_note(boxed, config))


def _scale(side: int, config: OverlayConfig, *, has_boxes: bool) -> float:
    scale = min(1.0, config.max_side / side)
    return max(scale, min(config.min_named_side, config.max_side) / side) if has_boxes else scale


def _named_boxes(
    regions: Sequence[Mapping[str, Any]],
    names: Mapping[int, str],
    size_wh: tuple[int, int],
    scale: float,
    config: OverlayConfig,
) -> list[NamedBox]:
    """The surest first, with names up to `max_names`."""
    found = []
    for place, region in enumerate(sorted(regions, key=_sureness, reverse=True)):
        x, y, width, height = region["bbox"]
        left, top = (max(0, round(start * scale)) for start in (x, y))
        right = min(size_wh[0], max(left + 1, round((x + width) * scale)))
        bottom = min(size_wh[1], max(top + 1, round((y + height) * scale)))
        category = region["category_id"]
        name = _printable(names.get(category, str(category)))[:_MAX_NAME]
        found.append(
            NamedBox(
                box_xyxy=(left, top, right, bottom),
                text=f"{name} {_sureness_text(region)}" if place < config.max_names else "",
                colour=category_colour(category),
            )
        )
    return found


def _sureness(region: Mapping[str, Any]) -> float:
    calibrated = region.get("score_calibrated")
    return float(region["score"] if calibrated is None else calibrated)


def _sureness_text(region: Mapping[str, Any]) -> str:
    sureness = _sureness(region)
    if region.get("score_calibrated") is None:
        return f"{sureness:.2f}"
    if 0.005 <= sureness < 0.995:
        return f"{sureness:.0%}"
    return "<1%" if sureness < 0.5 else ">99%"


def _note(boxed: Sequence[Mapping[str, Any]], config: OverlayConfig) -> str:
    """What the numbers at the boxes are; empty without boxes."""
    if not boxed:
        return ""
    kinds = {region.get("score_calibrated") is not None for region in boxed}
    words = {True: "% at boxes: calibrated chance", False: "number at boxes: score, not calibrated"}
    left_out = len(boxed) - config.max_names
    more = f"; the {config.max_names} surest of {len(boxed)} boxes are named" if left_out > 0 else ""
    return "; ".join(words[kind] for kind in sorted(kinds)) + more


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
    *,
    note: str = "",
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
    if note:
        shown.append((_DARK, note))
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
