"""Pictures beside their truth and their labels, for pages: the first images of a run, and its worst."""

import io
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8
from PIL import Image

from ovsops.errors import ConfigError, ImageDecodeError
from ovsops.images.decode import decode_image
from ovsops.images.decode_config import DecodeConfig
from ovsops.metrics.detection import outcomes_at_half
from ovsops.metrics.matching import MISS
from pipelines.evaluation.labelled import LabelledImage, paint
from pipelines.evaluation.object_counts import found_instances, things_alone
from pipelines.evaluation.truths import TruthSource
from pipelines.readers import ReaderConfig, read_shard
from pipelines.report.comparison import Legend, PanelBox, compare, draw_sheet, full_side
from pipelines.shards import Shard
from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PicturesConfig:
    """Which images are drawn for each run."""

    first: int = 0
    """Labelled images drawn in the order of the run, not chosen by how good they are."""
    worst: int = 8
    """Labelled images with the lowest mIoU of their own."""

    def __post_init__(self) -> None:
        for name in ("first", "worst"):
            if not 0 <= getattr(self, name) <= 200:
                raise ConfigError(f"pictures.{name} is {getattr(self, name)}: give 0 to 200")


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where a run's images are read from."""

    shards: tuple[Shard, ...]
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    options: StorageOptions = field(default_factory=StorageOptions)


@dataclass(frozen=True, kw_only=True)
class DrawnPicture:
    """A sheet at full size, the same panels apart for a page, and what they show."""

    name: str
    """File name of the sheet."""
    caption: str
    png: bytes
    """The sheet: panels and legend."""
    panels: tuple[tuple[str, bytes], ...]
    """Title and PNG of each panel, page-sized."""
    legend: Legend


def draw_pictures(
    images: Sequence[tuple[str, str, LabelledImage]],
    source: ImageSource,
    truth: TruthSource,
    *,
    labels_title: str,
    has_boxes: bool = False,
) -> list[DrawnPicture]:
    """A sheet for each (file name, caption, image) whose bytes are still where the run read them.

    With boxes of things where `has_boxes`: dashed are those that are wrong at IoU 0.5.
    """
    pixels = _pixels({image.image_uid: image for _, _, image in images}, source)
    drawn = []
    for name, caption, image in images:
        if image.image_uid in pixels:
            maps, names = _maps(image, pixels[image.image_uid], truth, labels_title)
            boxes = _boxes(image, truth) if has_boxes else ()
            shown = compare(pixels[image.image_uid], maps, names, boxes=boxes)
            side = full_side(pixels[image.image_uid])
            full = compare(pixels[image.image_uid], maps, names, side=side, boxes=boxes)
            drawn.append(
                DrawnPicture(
                    name=f"{name}-{_stem(image.key)}.png",
                    caption=caption,
                    png=_png(draw_sheet(full)),
                    panels=tuple((title, _png(Image.fromarray(panel))) for title, panel in shown.panels),
                    legend=shown.legend,
                )
            )
    return drawn


def _maps(
    image: LabelledImage, pixels: UInt8[np.ndarray, "h w 3"], truth: TruthSource, title: str
) -> tuple[list[tuple[str, Int32[np.ndarray, "h w"]]], dict[int, str]]:
    """Truth and labels as maps of class ids with their titles, and the classes' names."""
    classes = truth.classes
    ids = np.asarray(classes.ids)
    places = truth.places(image)
    true_ids = np.where(places >= 0, ids[places], -1).astype(np.int32)
    predicted: Int32[np.ndarray, "h w"] = paint(image, (pixels.shape[0], pixels.shape[1])).labels
    names = dict(zip(classes.ids, classes.names, strict=True))
    return [("truth", true_ids), (title, predicted)], names


def _boxes(image: LabelledImage, truth: TruthSource) -> tuple[list[PanelBox], list[PanelBox]]:
    """True and found things."""
    classes = truth.classes
    true = things_alone(truth.objects(image), classes.of_kind("thing"))
    found = found_instances(image, classes).found
    is_wrong = outcomes_at_half(found, true) == MISS
    return (
        _panel_boxes(true.boxes_xyxy, true.labels, np.zeros(len(true.labels), bool), classes.ids),
        _panel_boxes(found.boxes_xyxy, found.labels, is_wrong, classes.ids),
    )


def _panel_boxes(
    boxes_xyxy: Float64[np.ndarray, "N 4"],
    labels: Int64[np.ndarray, " N"],
    is_wrong: Bool[np.ndarray, " N"],
    ids: Sequence[int],
) -> list[PanelBox]:
    rows = zip(boxes_xyxy.tolist(), labels.tolist(), is_wrong.tolist(), strict=True)
    return [
        PanelBox(box_xyxy=(x0, y0, x1, y1), category_id=ids[label], is_wrong=wrong)
        for (x0, y0, x1, y1), label, wrong in rows
    ]


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def _pixels(
    wanted: Mapping[str, LabelledImage], source: ImageSource
) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Pixels by image uid; an image that is gone or cannot be decoded is logged and left out."""
    by_shard: dict[str, dict[int, LabelledImage]] = {}
    for image in wanted.values():
        by_shard.setdefault(image.shard, {})[image.index] = image
    found: dict[str, UInt8[np.ndarray, "h w 3"]] = {}
    for shard in source.shards:
        waiting = by_shard.get(shard.name, {})
        if not waiting:
            continue
        for table in read_shard(shard, source.reader, source.options):
            for row in table.select(["index", "key", "image", "sha256"]).to_pylist():
                asked = waiting.get(row["index"])
                if asked is None or row["sha256"] != asked.sha256 or row["image"] is None:
                    continue
                del waiting[row["index"]]
                try:
                    found[asked.image_uid] = decode_image(row["image"], source.decode).pixels
                except ImageDecodeError as error:
                    logger.warning("%s: no picture: %s", asked.where, error)
            if not waiting:
                break
    for image in wanted.values():
        if image.image_uid not in found:
            logger.warning("%s: no picture: its bytes are no longer where the run read them", image.where)
    return found


def _stem(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", key.rsplit("/", 1)[-1])[:40].strip("-") or "image"
