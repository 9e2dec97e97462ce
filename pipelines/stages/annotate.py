"""Encoded images in, class maps and boxes out: decoding runs ahead, the models are never kept waiting.

Three things overlap inside one actor: decoder processes work on the next images, one thread runs the models on
this batch, and the calling thread packs what was said of the last batch. Batches are formed by row order and pixel
count alone, so that the same rows always meet the same batch.
"""

import logging
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from ovsops.annotators.annotation import Annotation
from ovsops.errors import ConfigError, ImageDecodeError, RowError
from ovsops.images.decode import DecodeConfig, DecodedImage
from ovsops.images.decode_pool import DecodePool
from ovsops.images.phash import PictureHash, picture_hash
from pipelines.maps import pack_class_map, pack_labels
from pipelines.records import RegionClass, box_record, presence_record
from pipelines.rows import ANNOTATED_ROW, ANNOTATED_WITH_IMAGE, PRESENCE_FIELDS
from pipelines.stage import Stage

logger = logging.getLogger(__name__)


class Annotator(Protocol):
    """What says something of decoded images."""

    def annotate(self, images: Sequence[np.ndarray]) -> list[Annotation]:
        """An annotation per image (uint8 [h w 3], EXIF-applied), in order."""


class AnnotatorFactory(Protocol):
    """Travels to the worker and loads the models there; pickles in bytes."""

    def build(self) -> Annotator:
        """Load the weights."""


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """How images are grouped for the model and how far decoding runs ahead."""

    max_images: int = 16
    """Images a model call gets at most."""
    max_megapixels: float = 64.0
    """A batch closes when its images exceed this, so that large photos do not pile up."""
    decode_workers: int = 2
    """Decoder processes of one actor."""
    decode_timeout_s: float = 20.0
    """An image that takes longer to decode fails with E_TIMEOUT."""
    skip_under_side: int = 0
    """Images with a side below this many pixels are skipped with S_SMALL; 0 labels every size."""
    max_model_failures: int = 64
    """This many images in a row failing in the model stop the job: the device is broken, not the data."""

    def __post_init__(self) -> None:
        for name in ("max_images", "decode_workers", "max_model_failures"):
            if getattr(self, name) < 1:
                raise ConfigError(f"batch.{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("max_megapixels", "decode_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"batch.{name} is {getattr(self, name)}; it must be over 0")
        if self.skip_under_side < 0:
            raise ConfigError(f"batch.skip_under_side is {self.skip_under_side}; it must be 0 or more")


@dataclass
class _Row:
    """A row on its way: its place in the block, and what became of it so far."""

    place: int
    pixels: np.ndarray | None = None
    size_hw: tuple[int | None, int | None] = (None, None)
    exif_orientation: int | None = None
    num_frames: int | None = None
    hashes: PictureHash | None = None
    notes: tuple[str, ...] = ()
    error: RowError | None = None
    error_stage: str = ""
    annotation: Annotation | None = None
    decode_seconds: float = 0.0
    segment_seconds: float = 0.0
    started: float | None = None
    ended: float | None = None


class AnnotateStage(Stage):
    """What the models say of each image. A row that fails keeps its key and gets `error_*`."""

    name = "annotate"

    def __init__(
        self,
        annotator: AnnotatorFactory,
        classes: tuple[RegionClass, ...],
        decode: DecodeConfig,
        batch: BatchConfig,
        *,
        keep_images: bool = False,
    ) -> None:
        self.factory, self.classes = annotator, classes  # no weights: this pickles in bytes
        self.decode, self.batch = decode, batch
        self.schema = ANNOTATED_WITH_IMAGE if keep_images else ANNOTATED_ROW

    def setup(self) -> None:
        """Load the models, start the decoders."""
        self.annotator = self.factory.build()
        self.decoders = DecodePool(
            self.decode, num_workers=self.batch.decode_workers, timeout_s=self.batch.decode_timeout_s
        )
        self.model_thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.failures_in_a_row = 0

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table per model batch, rows in the order they came."""
        running: tuple[list[_Row], Future[None]] | None = None
        emitted = 0
        for rows in self._batches(batch):
            future = self.model_thread.submit(self._annotate, rows)
            if running is not None:
                emitted = yield from self._finish(batch, emitted, *running)
            running = (rows, future)
        if running is not None:
            emitted = yield from self._finish(batch, emitted, *running)
        if emitted < batch.num_rows:  # rows that carry no image: failed in the reader, or closing
            yield self._table(batch.slice(emitted), [_Row(p) for p in range(batch.num_rows - emitted)])

    def _finish(
        self, batch: pa.Table, first: int, rows: list[_Row], future: Future[None]
    ) -> Generator[pa.Table, None, int]:
        """Emit the rows up to the end of this batch; returns the first row that is not yet emitted."""
        future.result()
        end = rows[-1].place + 1
        by_place = {row.place: row for row in rows}
        ordered = [by_place.get(place) or _Row(place) for place in range(first, end)]
        yield self._table(batch.slice(first, end - first), ordered)
        return end

    def _batches(self, batch: pa.Table) -> Iterator[list[_Row]]:
        """Decoded rows, grouped for the model."""
        rows: list[_Row] = []
        megapixels = 0.0
        for row in self._decoded(batch):
            if row.pixels is not None:
                megapixels += row.pixels.shape[0] * row.pixels.shape[1] / 1e6
            rows.append(row)
            if len(rows) == self.batch.max_images or megapixels >= self.batch.max_megapixels:
                yield rows
                rows, megapixels = [], 0.0
        if rows:
            yield rows

    def _decoded(self, batch: pa.Table) -> Iterator[_Row]:
        """Rows with pixels or an error, in order, decoding ahead within a budget of pixels."""
        images = batch.column("image").combine_chunks()
        places = deque(i for i in range(batch.num_rows) if images[i].is_valid)
        ahead: deque[tuple[int, float, Future[DecodedImage]]] = deque()
        while places or ahead:
            while places and len(ahead) < 3 * self.batch.max_images and self._within_budget(ahead):
                place = places.popleft()
                data = memoryview(images[place].as_buffer())
                ahead.append((place, time.perf_counter(), self.decoders.submit(data)))
            yield self._await(*ahead.popleft())

    def _within_budget(self, ahead: Sequence[tuple[int, float, Future[DecodedImage]]]) -> bool:
        done = (f.result() for _, _, f in ahead if f.done() and f.exception() is None)
        return sum(d.pixels.nbytes for d in done) < 6e6 * self.batch.max_megapixels

    def _await(self, place: int, submitted: float, future: Future[DecodedImage]) -> _Row:
        row = _Row(place)
        try:
            decoded = future.result()
        except ImageDecodeError as error:
            row.error, row.error_stage = error, "decode"
        else:
            height, width = row.size_hw = decoded.pixels.shape[:2]
            row.exif_orientation, row.num_frames, row.notes = (
                decoded.exif_orientation,
                decoded.num_frames,
                decoded.notes,
            )
            row.pixels = decoded.pixels
            row.hashes = picture_hash(
                decoded.pixels
            )  # while the pixels are here: copies are found without them
            if min(height, width) < self.batch.skip_under_side:
                message = f"{width}x{height} px is under skip_under_side={self.batch.skip_under_side}"
                row.error, row.error_stage, row.pixels = RowError("S_SMALL", message), "decode", None
        row.decode_seconds = time.perf_counter() - submitted
        return row

    def _annotate(self, rows: list[_Row]) -> None:
        """Run the models on the rows that have pixels (in the models' thread)."""
        live = [row for row in rows if row.pixels is not None]
        if not live:
            return
        started = time.time()
        clock = time.perf_counter()
        self._ask(live)
        seconds = (time.perf_counter() - clock) / len(live)
        for row in live:
            row.segment_seconds, row.started, row.ended, row.pixels = seconds, started, time.time(), None

    def _ask(self, live: list[_Row]) -> None:
        try:
            pixels = [row.pixels for row in live if row.pixels is not None]
            for row, annotation in zip(live, self.annotator.annotate(pixels), strict=True):
                row.annotation = annotation
            self.failures_in_a_row = 0
        except Exception as error:
            if len(live) > 1:
                logger.warning("batch of %d failed (%s): one image at a time now", len(live), error)
                for row in live:
                    self._ask([row])
                return
            self.failures_in_a_row += 1
            if self.failures_in_a_row >= self.batch.max_model_failures:
                raise
            live[0].error = RowError("E_MODEL", f"{type(error).__name__}: {error}"[:1000])
            live[0].error_stage = self.name

    def _table(self, source: pa.Table, rows: Sequence[_Row]) -> pa.Table:
        """The rows of one model batch as a table of `ANNOTATED_ROW`, with the images where they are wanted later."""
        columns: dict[str, Any] = {
            name: source.column(name) for name in self.schema.names if name in source.column_names
        }
        errors: dict[str, list[Any]] = {
            "error_code": [r.error.code if r.error else None for r in rows],
            "error_stage": [r.error_stage or None for r in rows],
            "error_message": [str(r.error) if r.error else None for r in rows],
        }
        for name, values in errors.items():
            before = source.column(name).to_pylist()
            columns[name] = [new if new is not None else old for new, old in zip(values, before, strict=True)]
        notes = source.column("notes").to_pylist()
        columns |= {
            "notes": [n + list(r.notes) + _dropped(r) for n, r in zip(notes, rows, strict=True)],
            "width": [r.size_hw[1] for r in rows],
            "height": [r.size_hw[0] for r in rows],
            "exif_orientation": [r.exif_orientation for r in rows],
            "num_frames": [r.num_frames for r in rows],
            "hash_difference": [r.hashes.difference if r.hashes else None for r in rows],
            "hash_frequency": [r.hashes.frequency if r.hashes else None for r in rows],
            "decode_seconds": [r.decode_seconds for r in rows],
            "segment_seconds": [r.segment_seconds for r in rows],
            "segment_started": [r.started for r in rows],
            "segment_ended": [r.ended for r in rows],
        }
        said = [self._said(r.annotation) if r.annotation else {} for r in rows]
        for name in ("class_map", "score_map", "other_map", "boxes", *(f.name for f in PRESENCE_FIELDS)):
            columns[name] = [each.get(name) for each in said]
        return pa.table({name: columns[name] for name in self.schema.names}, schema=self.schema)

    def _said(self, annotation: Annotation) -> dict[str, Any]:
        """An annotation as values of columns."""
        said: dict[str, Any] = {}
        if annotation.class_map is not None:
            said["class_map"], said["score_map"] = pack_class_map(annotation.class_map)
        if annotation.other_map is not None:
            said["other_map"] = pack_labels(annotation.other_map)
        if annotation.boxes is not None:
            said["boxes"] = [box_record(box, self.classes) for box in annotation.boxes]
        return said | presence_record(annotation.presence, self.classes)


def _dropped(row: _Row) -> list[str]:
    """Boxes that were left out, as notes `R_...:n`."""
    if row.annotation is None:
        return []
    return [f"{reason}:{count}" for reason, count in sorted(row.annotation.dropped.items())]
