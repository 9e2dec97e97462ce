"""A picture for each drawn label: the crop as it is, and the same with the mask's edge and the box; a page with all.

Axes: h w pixels. Images are read from the run's inputs, one at a time; one whose bytes changed gets no picture.
"""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from ovsops.errors import ImageDecodeError
from ovsops.images.decode import decode_image
from ovsops.masks.rle import rle_from_coco, rle_to_mask
from pipelines.audit.sample import SampledRow
from pipelines.evaluation.pictures import ImageSource
from pipelines.readers import read_shard
from pipelines.report.overlay import category_colour
from pipelines.report.page_style import STYLE
from pipelines.writers.whole_files import write_whole

logger = logging.getLogger(__name__)

PICTURES, PAGE = "pictures", "index.html"
MARGIN = 0.5
"""Of the box's longer side, shown around it."""
CONTEXT = 24
"""Pixels around it at least: a tiny label says nothing without its place."""
MAX_SIDE, MIN_SIDE = 512, 192
"""Pixels of a crop's long side, shown smaller or larger."""
_GAP = 8
_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_pictures(rows: Sequence[SampledRow], source: ImageSource, folder: Path) -> dict[str, str]:
    """PNG files below `folder/pictures`; their paths below `folder`, by instance uid."""
    numbers = {row.label["instance_uid"]: number for number, row in enumerate(rows, 1)}
    found: dict[str, str] = {}
    for row, pixels in _with_pixels(rows, source):
        uid = row.label["instance_uid"]
        path = f"{PICTURES}/{numbers[uid]:05d}.png"
        sink = io.BytesIO()
        draw_label(pixels, row.label).save(sink, "PNG")
        write_whole(folder / path, sink.getvalue())
        found[uid] = path
    missing = len(rows) - len(found)
    if missing:
        logger.warning(
            "%d labels have no picture: their images are no longer where the run read them", missing
        )
    return found


def _with_pixels(
    rows: Sequence[SampledRow], source: ImageSource
) -> Iterator[tuple[SampledRow, UInt8[np.ndarray, "h w 3"]]]:
    waiting: dict[str, dict[int, list[SampledRow]]] = {}
    for row in rows:
        waiting.setdefault(row.shard, {}).setdefault(row.index, []).append(row)
    for shard in source.shards:
        asked = waiting.pop(shard.name, {})
        if not asked:
            continue
        for table in read_shard(shard, source.reader, source.options):
            for image in table.select(["index", "key", "image", "sha256"]).to_pylist():
                wanted = asked.pop(image["index"], [])
                if not wanted or image["image"] is None or image["sha256"] != wanted[0].sha256:
                    continue
                try:
                    pixels = decode_image(image["image"], source.decode).pixels
                except ImageDecodeError as error:
                    logger.warning("%s %s: no picture: %s", shard.name, image["key"], error)
                    continue
                yield from ((row, pixels) for row in wanted)
            if not asked:
                break


def draw_label(pixels: UInt8[np.ndarray, "h w 3"], label: Mapping[str, Any]) -> Image.Image:
    """The crop around a label, and beside it the crop with the mask's edge and the box."""
    mask = rle_to_mask(rle_from_coco(label["segmentation"]))
    rows, columns = _window(label["bbox"], pixels.shape[:2])
    crop = pixels[rows, columns]
    scale = _scale(max(crop.shape[:2]))
    size_wh = max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize(size_wh, Image.Resampling.BICUBIC))
    marked = shown.copy()
    if mask.shape == pixels.shape[:2]:
        inside = Image.fromarray(np.ascontiguousarray(mask[rows, columns]))
        grown = np.asarray(inside.resize(size_wh, Image.Resampling.NEAREST))
        edge = grown & ~_eroded(grown)
        colour = np.array(category_colour(label["category_id"]), np.float32)
        marked = np.where(grown[..., None], 0.7 * marked + 0.3 * colour, marked).astype(np.uint8)
        marked[edge] = colour.astype(np.uint8)
    sheet = Image.new("RGB", (2 * size_wh[0] + _GAP, size_wh[1]), (24, 26, 30))
    sheet.paste(Image.fromarray(shown), (0, 0))
    sheet.paste(Image.fromarray(marked), (size_wh[0] + _GAP, 0))
    return sheet


def _window(bbox_xywh: Sequence[float], size_hw: tuple[int, ...]) -> tuple[slice, slice]:
    x, y, width, height = bbox_xywh
    around = max(CONTEXT, MARGIN * max(width, height))
    left, top = max(0, int(x - around)), max(0, int(y - around))
    right = min(size_hw[1], max(left + 1, int(np.ceil(x + width + around))))
    bottom = min(size_hw[0], max(top + 1, int(np.ceil(y + height + around))))
    return slice(min(top, bottom - 1), bottom), slice(min(left, right - 1), right)


def _scale(side: int) -> float:
    return MAX_SIDE / side if side > MAX_SIDE else max(1.0, MIN_SIDE / side)


def _eroded(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mask pixels all of whose neighbours are in it, two pixels deep."""
    for _ in range(2):
        padded = np.pad(mask, 1, mode="edge")
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def page(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """All rows of the form with their pictures, in its order. No script; every word is escaped."""
    parts = []
    for row in rows:
        picture = (
            f'<img alt="row {row["row"]}" loading="lazy" src="{escape(quote(row["picture"]))}">'
            if row["picture"]
            else "<p>no picture</p>"
        )
        facts = f"score {row['score']}, {row['decision']}, {row['shard']} {row['key']}"
        parts.append(
            f'<figure id="r{row["row"]}"><b>{row["row"]}. {escape(str(row["class"]))}</b>{picture}'
            f"<figcaption>{escape(facts)}<br><code>{escape(row['instance_uid'])}</code></figcaption></figure>"
        )
    body = (
        f"<h1>{escape(title)}</h1><p>Is the class right, and is the mask that thing's? Left the picture,"
        " right the label."
        " Answers go into <code>audit.csv</code>, by row.</p>"
        f'<div class="rows">{"".join(parts)}</div>'
    )
    columns = "repeat(auto-fill, minmax(300px, 1fr))"
    style = f"{STYLE}\n.rows {{ display: grid; grid-template-columns: {columns}; gap: 14px; }}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
