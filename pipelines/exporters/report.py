"""What an export wrote, what it left out, what its format could not hold: counted, said, kept in `export.json`."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipelines.counted import counted

MEANING = {
    "images_failed": "images have no labels because they failed; `images/*.parquet` of the run says why",
    "images_skipped": "images were skipped by the run on purpose",
    "images_without_license": "images have no known licence",
    "annotations_without_license": "regions were left out with their images, because no licence is known",
    "shards_gone": "shards are not where they were read, or are others now: put them back, or name where they are with"
    " --shards",
    "images_gone": "images were left out with their regions: their bytes are not there any more",
    "images_changed": "images were left out with their regions: their bytes are not those that were labelled",
    "file_names_without_extension": "file names have no extension, because their shards are not there to be asked",
    "images_turned": "images have an EXIF turn: boxes and masks lie in the turned picture, which a reader that ignores"
    " EXIF does not show",
    "tables_ignored": "table files belong to no commit and were not read",
    "masks_empty": "masks have no pixel",
    "masks_empty_left_out": "masks have no pixel and were left out",
    "masks_as_rle": "masks have no polygon and stay RLE",
    "masks_changed": "masks are not filled exactly by their polygons",
    "masks_of_parts": "masks have several parts, joined by lines into one polygon",
    "masks_with_holes": "masks have holes, joined by lines to their outline",
    "scores": "scores, which the format has no place for",
    "captions": "captions and other texts of regions, which the format has no place for",
    "image_captions": "captions of images, which the format has no place for; they are in `images.jsonl`",
    "licenses": "licences, which the format has no place for; they are in `images.jsonl`",
    "sources": "sources (addresses or names), which the format has no place for; they are in `images.jsonl`",
    "verified_absent": "classes that were looked for and are not there, which the format has no place for; they are in"
    " `images.jsonl`",
    "characters_replaced": "characters that XML cannot hold became U+FFFD",
    "names_of_gaps": "indexes are no class (a gap between category ids), named `unused-N`",
}


@dataclass(kw_only=True)
class ExportReport:
    """Counts of one export. They depend on the run and the options alone."""

    shards: int = 0
    images: int = 0
    annotations: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    """By code of `MEANING`."""
    mask_iou_sum: float = 0.0
    """Of masks with their polygons, over `masks_measured`."""
    masks_measured: int = 0
    mask_iou_min: float = 1.0
    facts: dict[str, Any] = field(default_factory=dict)
    """What a reader of the format must know: for example the index of each category."""

    def measure(self, iou: float) -> None:
        """A mask went through a polygon: how true it came back."""
        self.masks_measured += 1
        self.mask_iou_sum += iou
        self.mask_iou_min = min(self.mask_iou_min, iou)
        self.lost["masks_changed"] += iou < 1

    @property
    def is_incomplete(self) -> bool:
        """Images that were labelled are missing, because their bytes could not be had."""
        return self.lost["images_gone"] + self.lost["images_changed"] > 0

    def to_plain(self) -> dict[str, Any]:
        """For `export.json`."""
        lost = {
            code: {"count": count, "meaning": MEANING[code]}
            for code, count in sorted(self.lost.items())
            if count
        }
        plain: dict[str, Any] = {
            "shards": self.shards,
            "images": self.images,
            "annotations": self.annotations,
            "lost": lost,
        }
        if self.masks_measured:
            plain["polygons"] = {
                "masks": self.masks_measured,
                "mean_iou": round(self.mask_iou_sum / self.masks_measured, 6),
                "min_iou": round(self.mask_iou_min, 6),
            }
        return plain | self.facts

    def sentences(self) -> list[str]:
        """What was lost, one line each."""
        lines = [
            counted(count, MEANING[code].replace("`", ""), f"{count:,}")
            for code, count in sorted(self.lost.items())
            if count
        ]
        if self.lost["masks_changed"]:
            lines.append(
                f"IoU of {self.masks_measured:,} masks with their polygons: mean"
                f" {self.mask_iou_sum / self.masks_measured:.4f}, worst {self.mask_iou_min:.4f}"
            )
        return lines
