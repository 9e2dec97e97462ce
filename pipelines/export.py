"""Export of a labelled output to formats that other tools read.

Only committed shards are read, shard by shard in the order of their names, so equal outputs give equal bytes.
What a format cannot hold is counted in the report, never dropped in silence.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from ovsops.errors import OutputError
from ovsops.masks.polygons import PolygonConfig, mask_to_coco_polygons
from ovsops.masks.rle import rle_from_coco, rle_to_mask
from ovsops.text.vocabulary import Vocabulary
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import read_manifest
from pipelines.storage import Storage
from pipelines.writers.coco import CocoWriter, Licenses, coco_categories, shortest

logger = logging.getLogger(__name__)

BATCH_ROWS = 2048
"""Instances in memory at a time."""
EXACT = PolygonConfig()

_IMAGE_COLUMNS = [
    "image_uid",
    "shard",
    "key",
    "sha256",
    "width",
    "height",
    "license",
    "source_url",
    "verified_absent",
    "status",
]
_INSTANCE_COLUMNS = [
    "instance_uid",
    "image_uid",
    "category_id",
    "bbox",
    "segmentation",
    "area",
    "iscrowd",
    "score",
]


@dataclass(kw_only=True)
class ExportReport:
    """What an export wrote, and what it left out and why."""

    files: list[Path] = field(default_factory=list)
    shards: int = 0
    images: int = 0
    annotations: int = 0
    images_failed: int = 0
    """Left out: they have no labels. `images/*.parquet` says why."""
    images_skipped: int = 0
    """Left out: the run skipped them on purpose."""
    images_without_license: int = 0
    """Written without a `license` key, or left out when a licence is required."""
    annotations_left_out: int = 0
    """Of images that were left out because no licence is known."""
    tables_ignored: int = 0
    """Table files that no commit record vouches for."""
    polygons_changed: int = 0
    """Masks that their polygons do not fill exactly."""
    polygons_min_iou: float = 1.0
    """Of the worst of them."""
    masks_without_polygon: int = 0
    """Empty masks: written as RLE."""


def export_coco(
    storage: Storage,
    out_dir: Path,
    *,
    segmentation: Literal["rle", "polygon"] = "rle",
    merged: bool = True,
    require_license: bool = False,
    polygons: PolygonConfig = EXACT,
) -> ExportReport:
    """COCO instances files of a labelled output: `instances.json`, or one file a shard.

    Annotation and image ids are unique over the whole export, so files of shards can be joined. Images that failed
    or were skipped are left out and counted, and so are images without a licence when one is required. Raises
    `OutputError` when the output cannot be trusted: a shard committed but not published, tables that differ from
    their commit record, a category that the vocabulary of `run.json` does not have.
    """
    vocabulary = vocabulary_of(storage)
    commits = Ledger(storage).read_all()
    report = ExportReport(shards=len(commits), tables_ignored=_count_ignored(storage, commits))
    export = _CocoExport(
        storage=storage,
        vocabulary=vocabulary,
        report=report,
        polygons=polygons if segmentation == "polygon" else None,
        require_license=require_license,
    )
    if merged:
        export.write(out_dir / "instances.json", commits)
    else:
        for commit in commits:
            export.write(out_dir / f"{commit.shard}.json", [commit])
    logger.info(
        "exported %d images, %d annotations of %d shards to %s; left out: %d failed, %d skipped, %d annotations"
        " of images without a licence",
        report.images,
        report.annotations,
        report.shards,
        out_dir,
        report.images_failed,
        report.images_skipped,
        report.annotations_left_out,
    )
    return report


def vocabulary_of(storage: Storage) -> Vocabulary:
    """The vocabulary that an output was labelled with, from its `run.json`."""
    manifest = read_manifest(storage)
    if "vocabulary" not in manifest:
        raise OutputError(f"{storage.url}/run.json has no vocabulary: it was not written by a label job")
    return Vocabulary.from_mapping(manifest["vocabulary"])


class _CocoExport:
    """The state that goes from file to file: ids, licences, counts."""

    def __init__(
        self,
        *,
        storage: Storage,
        vocabulary: Vocabulary,
        report: ExportReport,
        polygons: PolygonConfig | None,
        require_license: bool,
    ) -> None:
        self.storage, self.vocabulary, self.report = storage, vocabulary, report
        self.polygons, self.require_license = polygons, require_license
        self.known_ids = frozenset(vocabulary.ids)
        self.licenses = Licenses()

    def write(self, path: Path, commits: list[Commit]) -> None:
        """One file with these shards."""
        info = {
            "description": f"Labelled by ovsops with the vocabulary {self.vocabulary.name}",
            "version": commits[0].recipe_hash if commits else "",
            "contributor": "",
            "url": "",
        }
        with CocoWriter(path, info=info, categories=coco_categories(self.vocabulary)) as writer:
            for commit in commits:
                image_ids = self._write_images(writer, commit)
                self._write_annotations(writer, commit, image_ids)
            writer.finish(self.licenses.to_coco())
        self.report.files.append(path)

    def _write_images(self, writer: CocoWriter, commit: Commit) -> dict[str, int | None]:
        """Image ids by uid; None for images that are left out because they have no licence."""
        image_ids: dict[str, int | None] = {}
        for row in committed_rows(self.storage, commit, "images", _IMAGE_COLUMNS):
            if row["status"] != "labelled":
                self.report.images_failed += row["status"] == "failed"
                self.report.images_skipped += row["status"] == "skipped"
                continue
            if not row["license"]:
                self.report.images_without_license += 1
                if self.require_license:
                    image_ids[row["image_uid"]] = None
                    continue
            self.report.images += 1
            image_ids[row["image_uid"]] = self.report.images
            writer.add_image(self._image(row, self.report.images))
        return image_ids

    def _image(self, row: Mapping[str, Any], image_id: int) -> dict[str, Any]:
        image = {
            "id": image_id,
            "file_name": row["key"],
            "width": row["width"],
            "height": row["height"],
            "shard": row["shard"],
            "key": row["key"],
            "sha256": row["sha256"],
            "image_uid": row["image_uid"],
        }
        if row["license"]:
            image["license"] = self.licenses.id_of(row["license"])
        if row["source_url"]:
            image["coco_url"] = row["source_url"]
        if row["verified_absent"]:
            image["neg_category_ids"] = row["verified_absent"]  # LVIS's word for "looked for, not there"
        return image

    def _write_annotations(
        self, writer: CocoWriter, commit: Commit, image_ids: Mapping[str, int | None]
    ) -> None:
        for row in committed_rows(self.storage, commit, "instances", _INSTANCE_COLUMNS):
            if row["image_uid"] not in image_ids:
                raise OutputError(
                    f"shard {commit.name}: instance {row['instance_uid']} belongs to image {row['image_uid']},"
                    f" which is no labelled row of images/{commit.shard}.parquet; label the shard again"
                )
            if row["category_id"] not in self.known_ids:
                raise OutputError(
                    f"shard {commit.name}: instance {row['instance_uid']} has category {row['category_id']}, which"
                    f" the vocabulary {self.vocabulary.name} of run.json does not have; put the class back there"
                )
            image_id = image_ids[row["image_uid"]]
            if image_id is None:
                self.report.annotations_left_out += 1
                continue
            self.report.annotations += 1
            writer.add_annotation(self._annotation(row, self.report.annotations, image_id))

    def _annotation(self, row: Mapping[str, Any], annotation_id: int, image_id: int) -> dict[str, Any]:
        return {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": row["category_id"],
            "bbox": [shortest(number) for number in row["bbox"]],
            "area": row["area"],
            "iscrowd": row["iscrowd"],
            "score": shortest(row["score"]),
            "instance_uid": row["instance_uid"],
        } | self._segmentation(row["segmentation"])

    def _segmentation(self, segmentation: Mapping[str, Any]) -> dict[str, Any]:
        as_rle = {"segmentation": {"size": list(segmentation["size"]), "counts": segmentation["counts"]}}
        if self.polygons is None:
            return as_rle
        drawn = mask_to_coco_polygons(rle_to_mask(rle_from_coco(segmentation)), self.polygons)
        if not drawn.rings:
            self.report.masks_without_polygon += 1
            return as_rle
        self.report.polygons_changed += drawn.iou < 1
        self.report.polygons_min_iou = min(self.report.polygons_min_iou, drawn.iou)
        return {"segmentation": drawn.rings, "polygon_iou": round(drawn.iou, 6)}


def committed_rows(
    storage: Storage, commit: Commit, kind: str, columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Rows of a committed table, a batch in memory at a time."""
    record = commit.tables[kind]
    path = record["published"]
    try:
        stream = storage.open(path)
    except FileNotFoundError:
        raise OutputError(
            f"{storage.url}/{path}: shard {commit.name} is committed, but this table is not there: a run was killed "
            "before it published it, or somebody removed it; start the run again, it publishes or says what is gone"
        ) from None
    with stream, pq.ParquetFile(stream) as table:
        if table.metadata.num_rows != record["num_rows"]:
            raise OutputError(
                f"{storage.url}/{path}: {table.metadata.num_rows} rows, but {record['num_rows']} were committed;"
                " the file was changed after the run: label the shard again"
            )
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield from batch.to_pylist()


def _count_ignored(storage: Storage, commits: list[Commit]) -> int:
    vouched = {record["published"] for commit in commits for record in commit.tables.values()}
    return sum(info.path not in vouched for kind in ("images", "instances") for info in storage.list(kind))
