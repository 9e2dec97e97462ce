"""What is said of an image, as values of the columns that travel and stay. The one place that knows both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ovsops.annotators.annotation import BoxXyxy, FoundBox, ImagePresence
from ovsops.masks.rle import Rle
from ovsops.regions.verdicts import EvidenceMap


@dataclass(frozen=True, kw_only=True)
class RegionClass:
    """What the written record says about a class of the vocabulary."""

    id: int
    kind: str
    prompt: str
    language: str


def box_record(box: FoundBox, classes: Sequence[RegionClass]) -> dict[str, Any]:
    """A box with its names and scores; mask, tight box and area come later, unless its finder drew a mask."""
    caption, verification = box.caption, box.verification
    record = {
        "category_id": classes[box.label].id,
        "prompt": box.prompt,
        "language": box.language,
        "bbox": xywh(box.box_xyxy),
        "segmentation": no_segmentation() if box.mask is None else segmentation_record(box.mask),
        "bbox_detector": xywh(box.box_xyxy),
        "area": 0,
        "score_detector": box.score_detector,
        "score_alignment": box.score_alignment,
        "score": box.score,
        "score_calibrated": box.score_calibrated,
        "rivals": [{"category_id": classes[r.label].id, "score": r.score} for r in box.rivals],
        "reason_codes": list(box.reasons),
    }
    if caption is not None:
        record |= {
            "caption_short": caption.short,
            "caption_long": caption.long,
            "caption_source": caption.source,
        }
    if verification is not None:
        record |= {
            "verdict": verification.answer,
            "verdict_margin": verification.margin,
            "verdict_source": verification.source,
        }
        if verification.evidence is not None:
            record["evidence"] = evidence_record(verification.evidence)
    return record


def evidence_record(evidence: EvidenceMap) -> dict[str, Any]:
    """A map of evidence as a value of its column."""
    return {
        "rows": evidence.shape[0],
        "columns": evidence.shape[1],
        "values": evidence.data,
        "low": evidence.low,
        "high": evidence.high,
        "bbox": xywh(evidence.box_xyxy),
    }


def presence_record(presence: ImagePresence, classes: Sequence[RegionClass]) -> dict[str, Any]:
    """What is said of classes in the image as a whole, by id."""
    return {
        "presence": [{"category_id": classes[label].id, "score": score} for label, score in presence.scores],
        "verified_absent": [classes[label].id for label in presence.verified_absent],
        "exhaustive": [classes[label].id for label in presence.exhaustive],
    }


REVIEW = frozenset(
    {
        "R_CONTESTED",
        "R_FRAGMENTED",
        "R_HOLLOW",
        "R_HUGE",
        "R_LOW_AGREEMENT",
        "R_NO_BOX",
        "R_NO_MASK",
        "R_SEGMENTERS_DISAGREE",
    }
)
"""Codes that send a region to a person."""


def decision_of(record: Mapping[str, Any]) -> str:
    """`review` where a code or a verdict speaks against the region, else `accept`."""
    doubted = record.get("verdict") not in (None, "yes")
    return "review" if doubted or not REVIEW.isdisjoint(record["reason_codes"]) else "accept"


def segmentation_record(rle: Rle) -> dict[str, Any]:
    """COCO's compressed RLE."""
    counts = rle.counts
    return {
        "size": list(rle.size_hw),
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def no_segmentation() -> dict[str, Any]:
    """Stands for a mask that is not cut out yet."""
    return {"size": [0, 0], "counts": ""}


def xywh(box: BoxXyxy) -> list[float]:
    """Corners to COCO's form."""
    x1, y1, x2, y2 = box
    return [x1, y1, x2 - x1, y2 - y1]
