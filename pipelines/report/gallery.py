"""What the gallery of a page holds: chosen images, their regions and pictures, as JSON data. Bounded in bytes.

Masks stay the COCO RLE that is stored; those of images that are shown smaller than they are, are encoded anew at the
shown size, so that a browser never unpacks more pixels than it shows.
"""

import base64
import io
import json
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ovsops.errors import ShapeError, StorageError
from ovsops.masks.rle import Rle, mask_to_rle, rle_to_mask
from pipelines.ledger import Commit
from pipelines.report.counting import DECISIONS, Candidate, GalleryConfig, batches
from pipelines.report.negatives_beside import Negatives
from pipelines.report.source_pictures import PictureConfig, SmallPicture, fetch_pictures
from pipelines.report.texts import clean
from pipelines.storage import Storage, StorageOptions

logger = logging.getLogger(__name__)

_CAPTION, _LONG_CAPTION, _NEGATIVE = 240, 600, 200
"""Characters that are shown of each."""
_MAX_RIVALS, _MAX_NEGATIVES = 4, 10
_MAX_RLE_CHARS = 8_000
"""Of one mask; a longer one is shown as its box."""

_IMAGE_COLUMNS = (
    "image_uid",
    "key",
    "sha256",
    "width",
    "height",
    "caption_short",
    "caption_long",
    "license",
)
_REGION_COLUMNS = (
    "instance_uid",
    "image_uid",
    "category_id",
    "bbox",
    "segmentation",
    "area",
    "score",
    "score_calibrated",
    "caption_short",
    "caption_long",
    "rivals",
    "verdict",
    "decision",
    "reason_codes",
)


@dataclass(frozen=True, kw_only=True)
class ChosenImage:
    """An image of the gallery with its rows and its picture."""

    turn: int
    """Place in the order of choice: what comes late goes first where the page is full."""
    shard: str
    row: Mapping[str, Any]
    regions: tuple[Mapping[str, Any], ...]
    """Rows of `instances` that are drawn."""
    num_regions: int
    """Regions that it has."""
    picture: SmallPicture


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Chosen images, and what could not be shown."""

    images: tuple[ChosenImage, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    """Pictures that could not be had, by reason."""
    lost_shards: tuple[str, ...] = ()
    """Source shards that are gone or cannot be read."""

    @property
    def num_regions(self) -> int:
        """Regions that are drawn."""
        return sum(len(image.regions) for image in self.images)

    @property
    def region_uids(self) -> set[str]:
        """Of the regions that are drawn."""
        return {region["instance_uid"] for image in self.images for region in image.regions}

    @property
    def categories(self) -> set[int]:
        """Classes of the regions that are drawn."""
        return {region["category_id"] for image in self.images for region in image.regions}


def make_gallery(
    storage: Storage,
    commits: Sequence[Commit],
    chosen: Sequence[Candidate],
    config: GalleryConfig,
    pictures: PictureConfig,
    options: StorageOptions,
) -> Gallery:
    """Rows and pictures of the chosen images, in the order of shards and keys."""
    by_shard: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in chosen:
        by_shard[candidate.shard].append(candidate)
    commit_of = {commit.shard: commit for commit in commits}
    rows: dict[str, list[dict[str, Any]]] = {}
    regions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for shard, candidates in by_shard.items():
        uids = {candidate.image_uid for candidate in candidates}
        try:
            rows[shard] = _rows(storage, commit_of[shard], "images", _IMAGE_COLUMNS, uids)
            for region in _rows(storage, commit_of[shard], "instances", _REGION_COLUMNS, uids):
                regions[region["image_uid"]].append(region)
        except (StorageError, OSError, pa.ArrowInvalid) as error:
            logger.warning("shard %s: its tables cannot be read: %s", commit_of[shard].name, error)
            rows.pop(shard, None)
    found = fetch_pictures(rows, commit_of, pictures, options)
    sampled = {candidate.region_uid for candidate in chosen}
    turns = {candidate.image_uid: turn for turn, candidate in enumerate(chosen)}
    missing: dict[str, int] = defaultdict(int)
    lost: set[str] = set()
    images = []
    for shard in sorted(rows, key=lambda each: commit_of[each].name):
        for row in sorted(rows[shard], key=lambda each: each["key"]):
            uid = row["image_uid"]
            if found[uid].missing:
                missing[found[uid].missing] += 1
            if found[uid].missing == "shard":
                lost.add(commit_of[shard].name)
            images.append(
                ChosenImage(
                    turn=turns[uid],
                    shard=commit_of[shard].name,
                    row=row,
                    regions=_drawn(regions[uid], sampled, config.regions_per_image),
                    num_regions=len(regions[uid]),
                    picture=found[uid],
                )
            )
    return Gallery(
        images=tuple(images), missing=dict(sorted(missing.items())), lost_shards=tuple(sorted(lost))
    )


def _rows(
    storage: Storage, commit: Commit, kind: str, columns: Sequence[str], uids: Collection[str]
) -> list[dict[str, Any]]:
    """Rows of a shard's table that belong to the images."""
    wanted = pa.array(sorted(uids))
    found: list[dict[str, Any]] = []
    for table in batches(storage, commit.tables[kind]["published"], columns):
        found += table.filter(pc.is_in(table.column("image_uid"), value_set=wanted)).to_pylist()
    return found


def _drawn(
    regions: Sequence[Mapping[str, Any]], sampled: Collection[str], limit: int
) -> tuple[Mapping[str, Any], ...]:
    """Sampled regions first, then the best scores, `limit` in all; large ones first, so that small ones lie on top."""
    ranked = sorted(regions, key=lambda r: (r["instance_uid"] not in sampled, -r["score"], r["instance_uid"]))
    return tuple(sorted(ranked[:limit], key=lambda r: (-r["area"], r["instance_uid"])))


def gallery_data(
    gallery: Gallery, places: Mapping[int, int], negatives: Mapping[str, Negatives], *, max_bytes: int
) -> tuple[list[dict[str, Any]], int]:
    """Plain data of each image for the page's script, and how many images did not fit into `max_bytes`.

    `places` are classes by id, as the page lists them. Keys are short because they repeat thousands of times:
    k key, s shard, w h pixels, W H shown pixels, t picture, m why there is none, c C captions, l licence, n regions it
    has, r regions; of a region c class, s score, p chance, d decision, b box, g mask, a area, q codes, v verdict,
    t T captions, x rivals, o positive text, N negatives.
    """
    found: list[tuple[int, dict[str, Any]]] = []
    used = 0
    places_on_page = {id(image): place for place, image in enumerate(gallery.images)}
    for image in sorted(gallery.images, key=lambda each: each.turn):
        plain = _image(image, places, negatives)
        size = _size(plain)
        if used + size > max_bytes and plain["t"]:  # the masks alone may still fit
            plain["t"], plain["m"] = "", "page"
            size = _size(plain)
        if used + size > max_bytes:
            continue
        used += size
        found.append((places_on_page[id(image)], plain))
    shown = [plain for _, plain in sorted(found, key=lambda each: each[0])]
    return shown, len(gallery.images) - len(shown)


def page_json(data: Any) -> str:
    """JSON that cannot end the element it stands in, whatever is in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _size(plain: Any) -> int:
    """Bytes in the page, with the comma."""
    return len(page_json(plain).encode()) + 1


def _image(
    image: ChosenImage, places: Mapping[int, int], negatives: Mapping[str, Negatives]
) -> dict[str, Any]:
    row, size_wh = image.row, shown_size(image)
    return {
        "k": clean(row["key"]),
        "s": clean(image.shard),
        "w": row["width"],
        "h": row["height"],
        "W": size_wh[0],
        "H": size_wh[1],
        "t": base64.b64encode(image.picture.webp).decode(),
        "m": image.picture.missing,
        "c": clean(row.get("caption_short") or "", _CAPTION),
        "C": clean(row.get("caption_long") or "", _LONG_CAPTION),
        "l": clean(row.get("license") or "", 80),
        "n": image.num_regions,
        "r": [
            _region(region, size_wh, places, negatives.get(region["instance_uid"]))
            for region in image.regions
        ],
    }


def shown_size(image: ChosenImage) -> tuple[int, int]:
    """Width and height of the picture as shown; of one that is missing, as it would be."""
    if image.picture.webp:
        width, height = _webp_size(image.picture.webp)
        return width, height
    width, height = image.row["width"] or 4, image.row["height"] or 3
    scale = min(1.0, PictureConfig().side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _webp_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.size


def _region(
    region: Mapping[str, Any],
    size_wh: tuple[int, int],
    places: Mapping[int, int],
    negatives: Negatives | None,
) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "c": places.get(region["category_id"], -1),
        "s": round(region["score"], 4),
        "b": [round(value, 1) for value in region["bbox"]],
        "g": _mask(region["segmentation"], size_wh),
        "a": region["area"],
        "d": region["decision"] if region["decision"] in DECISIONS else "",
        "q": [clean(code, 40) for code in region["reason_codes"]],
    }
    if region.get("score_calibrated") is not None:
        plain["p"] = round(region["score_calibrated"], 4)
    if region.get("verdict"):
        plain["v"] = clean(region["verdict"], 20)
    for key, name, limit in (("t", "caption_short", _CAPTION), ("T", "caption_long", _LONG_CAPTION)):
        if region.get(name):
            plain[key] = clean(region[name], limit)
    if region.get("rivals"):
        rivals = sorted(region["rivals"], key=lambda rival: -rival["score"])[:_MAX_RIVALS]
        plain["x"] = [[places.get(rival["category_id"], -1), round(rival["score"], 3)] for rival in rivals]
    if negatives is not None:
        plain["o"] = clean(negatives.positive, _NEGATIVE)
        types = (*negatives.types, *[""] * len(negatives.texts))
        plain["N"] = [
            [clean(text, _NEGATIVE), clean(kind, 40)]
            for text, kind in list(zip(negatives.texts, types, strict=False))[:_MAX_NEGATIVES]
        ]
    return plain


def _mask(segmentation: Mapping[str, Any], size_wh: tuple[int, int]) -> list[Any]:
    """Height, width and compressed runs, of a coarser mask where they would be too long; empty where it is damaged."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    shown_wh = (min(width, size_wh[0]), min(height, size_wh[1]))
    if shown_wh == (width, height) and len(counts) <= _MAX_RLE_CHARS:
        return [height, width, counts]
    try:
        mask = Image.fromarray(rle_to_mask(Rle(size_hw=(height, width), counts=counts)))
    except ShapeError as error:
        logger.warning("a mask is shown as its box: %s", error)
        return [0, 0, ""]
    while True:
        counts = mask_to_rle(np.asarray(mask.resize(shown_wh, Image.Resampling.NEAREST))).counts
        if len(counts) <= _MAX_RLE_CHARS:
            return [shown_wh[1], shown_wh[0], counts]
        shown_wh = (max(1, shown_wh[0] // 2), max(1, shown_wh[1] // 2))
