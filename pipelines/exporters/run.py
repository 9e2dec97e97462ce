"""An export: committed shards one after the other, image by image, into one format.

Shards come in the order of their names and images in the order of the tables, so equal runs give equal bytes, and
one image with its regions is held at a time. What cannot leave is counted in the report, never dropped in silence.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ovsops.errors import OutputError
from pipelines.counted import counted
from pipelines.export import committed_rows, vocabulary_of
from pipelines.exporters.format import (
    IMAGE_COLUMNS,
    REGION_COLUMNS,
    ExportImage,
    FormatName,
    image_texts,
)
from pipelines.exporters.formats import open_format
from pipelines.exporters.options import ExportContext, ExportOptions
from pipelines.exporters.progress import ExportProgress
from pipelines.exporters.report import ExportReport
from pipelines.exporters.sources import Inputs, ShardImages, Sources, is_archive
from pipelines.exporters.staging import EXPORT, staged
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import read_manifest
from pipelines.shards import TAR_SUFFIXES
from pipelines.storage import Storage
from pipelines.training_sets.build import image_extension
from pipelines.writers.whole_files import write_whole

logger = logging.getLogger(__name__)

IMAGES_FILE = "images.jsonl"
"""One line an image, with licence, attribution and captions, for formats that have no place for them."""
_BYTES_INSIDE: tuple[FormatName, ...] = ("webdataset", "hf")
_NO_LICENSE: tuple[FormatName, ...] = ("yolo-seg", "cvat", "fiftyone")
_FOLDERS: Mapping[FormatName, str] = {"yolo-seg": "images/train", "fiftyone": "data"}
"""Where copied images lie; `images` in the other formats."""


def export_run(
    storage: Storage, out: Path, options: ExportOptions, inputs: Inputs | None = None
) -> ExportReport:
    """Write the committed shards of a labelled run as `options.format` to the folder `out`; what was written and lost.

    Raises OutputError when the run cannot be trusted (a shard committed but not published, tables that differ from
    their commit record, a category that the vocabulary of `run.json` does not have), and when `out` is in use.
    """
    vocabulary = vocabulary_of(storage)
    commits = Ledger(storage).read_all()
    report = ExportReport(shards=len(commits))
    report.lost["tables_ignored"] = _count_ignored(storage, commits)
    with staged(out, replace=options.replace) as folder:
        context = ExportContext(
            folder=folder,
            vocabulary=vocabulary,
            options=options,
            report=report,
            recipe_hash=str(read_manifest(storage).get("recipe_hash", "")),
        )
        with ExitStack() as stack:
            job = stack.enter_context(
                closing(_Export(storage, context, Sources(inputs or Inputs()), commits))
            )
            written = stack.enter_context(closing(open_format(context)))
            progress = ExportProgress(images=sum(c.labelled for c in commits), shards=len(commits))
            for commit in commits:
                written.begin_shard(commit.shard)
                for image in job.images(commit):
                    written.add(image)
                    progress.image()
                progress.shard()
            written.finish()
        job.finish()
    logger.info(
        "exported %s, %s to %s",
        counted(report.images, "images"),
        counted(report.annotations, "regions"),
        out,
    )
    return report


class _Export:
    """What goes from image to image: numbers and counts."""

    def __init__(
        self, storage: Storage, context: ExportContext, sources: Sources, commits: list[Commit]
    ) -> None:
        self.storage, self.context, self.sources = storage, context, sources
        self.options, self.report, self.folder = context.options, context.report, context.folder
        self.image_folder = _FOLDERS.get(context.options.format, "images")
        self.known_ids = frozenset(context.vocabulary.ids)
        labels = {_label(commit) for commit in commits if not is_archive(commit.url)}
        self.names_have_labels = len(labels) > 1
        self.beside = None
        if context.options.format in _NO_LICENSE:
            self.beside = (context.folder / IMAGES_FILE).open("wb")

    def images(self, commit: Commit) -> Iterator[ExportImage]:
        """The images of a shard that can leave."""
        if not self.options.copies:
            names = self.sources.file_names(commit)
            self.report.lost["shards_gone"] += names is None
            for row, regions in self._labelled(commit):
                yield self._image(commit, row, regions, self._file_name(commit, row, names or {}), None)
            return
        with self.sources.images(commit, self.folder) as found:
            self.report.lost["shards_gone"] += not found.is_whole
            for row, regions in self._labelled(commit):
                if (data := self._bytes(found, row)) is not None:
                    name = copied_name(row, data, self.image_folder)
                    if self.options.format not in _BYTES_INSIDE:
                        self._put(name, data)
                    yield self._image(commit, row, regions, name, data)

    def close(self) -> None:
        """Close the file beside the format."""
        if self.beside is not None:
            self.beside.close()

    def finish(self) -> None:
        """`export.json`, last."""
        document = {
            "format": self.options.format,
            "export_version": 1,
            "recipe_hash": self.context.recipe_hash,
            "vocabulary": self.context.vocabulary.name,
            "categories": [
                {"id": spec.id, "name": spec.name}
                for spec in sorted(self.context.vocabulary.classes, key=lambda s: s.id)
            ],
            **self.report.to_plain(),
        }
        text = json.dumps(document, indent=1, ensure_ascii=False)
        write_whole(self.folder / EXPORT, text.encode() + b"\n")

    def _labelled(self, commit: Commit) -> Iterator[tuple[dict[str, Any], tuple[dict[str, Any], ...]]]:
        """Rows of `images` with their rows of `instances`, in step."""
        lost = self.report.lost
        rows = committed_rows(self.storage, commit, "instances", REGION_COLUMNS)
        groups = groupby(rows, key=itemgetter("image_uid"))
        pending = next(groups, None)
        for row in committed_rows(self.storage, commit, "images", IMAGE_COLUMNS):
            regions: tuple[dict[str, Any], ...] = ()
            if row["status"] != "labelled":
                lost["images_failed"] += row["status"] == "failed"
                lost["images_skipped"] += row["status"] == "skipped"
                continue
            if pending is not None and pending[0] == row["image_uid"]:
                regions = tuple(pending[1])
                pending = next(groups, None)
            self._check_categories(commit, regions)
            if not row["license"]:
                lost["images_without_license"] += 1
                if self.options.require_license:
                    lost["annotations_without_license"] += len(regions)
                    continue
            yield row, regions
        if pending is not None:
            first = next(pending[1])
            raise OutputError(
                f"shard {commit.name}: instance {first['instance_uid']} belongs to image {pending[0]}, which is no"
                f" labelled row of images/{commit.shard}.parquet in its place; label the shard again"
            )

    def _check_categories(self, commit: Commit, regions: tuple[dict[str, Any], ...]) -> None:
        for region in regions:
            if region["category_id"] not in self.known_ids:
                raise OutputError(
                    f"shard {commit.name}: instance {region['instance_uid']} has category {region['category_id']},"
                    f" which the vocabulary {self.context.vocabulary.name} of run.json does not have; put the class"
                    " back there"
                )

    def _bytes(self, found: ShardImages, row: Mapping[str, Any]) -> bytes | None:
        data = found.get(row)
        if isinstance(data, str):
            self.report.lost[data] += 1
            return None
        return data

    def _image(
        self,
        commit: Commit,
        row: Mapping[str, Any],
        regions: tuple[Mapping[str, Any], ...],
        file_name: str,
        data: bytes | None,
    ) -> ExportImage:
        self.report.images += 1
        self.report.annotations += len(regions)
        self.report.lost["images_turned"] += (row["exif_orientation"] or 1) != 1
        image = ExportImage(
            number=self.report.images,
            shard=commit.shard,
            row=row,
            file_name=file_name,
            data=data,
            regions=regions,
        )
        if self.beside is not None:
            line = {"file_name": file_name} | image_texts(image)
            self.beside.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            self._count_beside(line)
        return image

    def _count_beside(self, line: Mapping[str, Any]) -> None:
        lost = self.report.lost
        lost["licenses"] += "license" in line and self.options.format != "fiftyone"
        lost["sources"] += "source_url" in line or "attribution" in line
        lost["image_captions"] += "caption_short" in line or "caption_long" in line
        lost["verified_absent"] += len(line.get("verified_absent", ()))

    def _file_name(self, commit: Commit, row: Mapping[str, Any], names: Mapping[str, str]) -> str:
        """The image's own name: below the archive's name, or below the folder of images."""
        name = names.get(row["key"])
        self.report.lost["file_names_without_extension"] += name is None
        name = name or row["key"]
        if is_archive(commit.url):
            return f"{_stem(commit.name)}/{name}"
        return f"{_label(commit)}/{name}" if self.names_have_labels else name

    def _put(self, name: str, data: bytes) -> None:
        """Copy an image; names are made of safe characters, and ids make them unique."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def copied_name(row: Mapping[str, Any], data: bytes, folder: str) -> str:
    """`FOLDER/NAME-ID.EXT`: what is left of the image's name when only safe characters are kept, and half of its id."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", row["key"].rsplit("/", 1)[-1])[:60].strip("-") or "image"
    return f"{folder}/{stem}-{row['image_uid'][:16]}.{image_extension(data) or 'bin'}"


def _stem(name: str) -> str:
    for suffix in TAR_SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _label(commit: Commit) -> str:
    return commit.name.rpartition("/")[0]


def _count_ignored(storage: Storage, commits: list[Commit]) -> int:
    vouched = {record["published"] for commit in commits for record in commit.tables.values()}
    return sum(info.path not in vouched for kind in ("images", "instances") for info in storage.list(kind))
