"""WebDataset: `SHARD-00000.tar`, ... with `UID.jpg`, the bytes as they came, and `UID.json`, everything else.

Images are called by their id, because their own names may hold dots, which WebDataset reads otherwise, and may come
twice in a run. `license`, `source_url`, `caption_short` and `caption_long` are named as the label job reads them.
"""

import json
import tarfile
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

from ovsops.masks.rle import rle_area
from pipelines.exporters.format import ExportImage, image_texts, region_rle, region_texts
from pipelines.exporters.options import ExportContext
from pipelines.writers.coco import shortest
from pipelines.writers.tar_members import add_member
from pipelines.writers.whole_files import WholeFile, numbered


class WebDatasetFormat:
    """See `format.ExportFormat`."""

    def __init__(self, context: ExportContext) -> None:
        self.context, self.report, self.names = context, context.report, context.names
        self._pattern, self._num_files = "", 0
        self._file: WholeFile | None = None

    def begin_shard(self, shard: str) -> None:
        """Archives are called after their shard."""
        self.finish()
        self._pattern, self._num_files = f"{shard}-*.tar", 0

    def add(self, image: ExportImage) -> None:
        """One sample."""
        assert image.data is not None
        if self._file is None:
            self._file = WholeFile(self.context.folder / numbered(self._pattern, self._num_files))
            self._tar = tarfile.open(
                fileobj=cast(BinaryIO, self._file), mode="w", format=tarfile.USTAR_FORMAT
            )
        text = json.dumps(self._sidecar(image), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        add_member(self._tar, f"{image.uid}.{image.extension}", image.data)
        add_member(self._tar, f"{image.uid}.json", text.encode())
        if self._file.num_bytes >= self.context.options.max_file_bytes:
            self.finish()

    def finish(self) -> None:
        """Give the open archive its name."""
        if self._file is not None:
            self._tar.close()
            self._file.publish()
            self._file = None
            self._num_files += 1

    def close(self) -> None:
        """Drop the archive that is not finished."""
        if self._file is not None:
            self._file.discard()

    def _sidecar(self, image: ExportImage) -> dict[str, Any]:
        row = image.row
        size = {"width": row["width"], "height": row["height"], "exif_orientation": row["exif_orientation"]}
        return image_texts(image) | size | {"regions": [self._region(image, r) for r in image.regions]}

    def _region(self, image: ExportImage, region: Mapping[str, Any]) -> dict[str, Any]:
        rle = region_rle(image, region)
        self.report.lost["masks_empty"] += rle_area(rle) == 0
        return {
            "instance_uid": region["instance_uid"],
            "category_id": region["category_id"],
            "category": self.names[region["category_id"]],
            "bbox": [shortest(value) for value in region["bbox"]],
            "segmentation": rle.to_coco(),
            "area": region["area"],
            "score": shortest(region["score"]),
            **region_texts(region),
        }
