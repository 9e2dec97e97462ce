"""What an export writes, and what a format is opened with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ovsops.errors import ConfigError
from ovsops.masks.polygons import PolygonConfig
from ovsops.text.vocabulary import Vocabulary
from pipelines.exporters.format import FORMATS, FormatName, Images
from pipelines.exporters.report import ExportReport

DEFAULT_IMAGES: Mapping[FormatName, Images] = {
    name: "reference" if name == "coco" else "copy" for name in FORMATS
}
_ONLY_COPY: tuple[FormatName, ...] = ("yolo-seg", "fiftyone", "webdataset", "hf")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export writes."""

    format: FormatName
    images: Images | None = None
    """Whether images are copied, byte by byte, or named as they lie in the input; None is what the format does."""
    require_license: bool = False
    """Leave images out of which no licence is known."""
    replace: bool = False
    """Put the export in the place of the one that the folder holds."""
    segmentation: Literal["rle", "polygon"] = "rle"
    """COCO: masks as RLE, which is exact, or as polygons."""
    merged: bool = True
    """COCO: one file, or one a shard."""
    polygons: PolygonConfig = field(default_factory=PolygonConfig)
    """COCO: how masks become polygons."""
    image_prefix: str = "/data/local-files/?d="
    """Label Studio: goes before the path of each image in its task."""
    max_file_bytes: int = 512 * 2**20
    """webdataset, hf: the next file begins after so many bytes."""
    max_tasks: int = 1000
    """Label Studio: tasks in one file."""

    def __post_init__(self) -> None:
        if self.images == "reference" and self.format in _ONLY_COPY:
            raise ConfigError(f"--images reference: {self.format} is nothing without its images; use copy")
        if self.format != "coco" and (self.segmentation == "polygon" or not self.merged):
            raise ConfigError(f"--segmentation polygon and --per-shard are for coco, not for {self.format}")
        if self.max_file_bytes < 1 or self.max_tasks < 1:
            raise ConfigError("max_file_bytes and max_tasks are at least 1")

    @property
    def copies(self) -> bool:
        """Whether the images' bytes are needed."""
        return (self.images or DEFAULT_IMAGES[self.format]) == "copy"


@dataclass(frozen=True, kw_only=True)
class ExportContext:
    """What a format is opened with."""

    folder: Path
    """Where its files go."""
    vocabulary: Vocabulary
    options: ExportOptions
    report: ExportReport
    recipe_hash: str
    """Of the run."""

    @property
    def names(self) -> dict[int, str]:
        """Class names by category id."""
        return {spec.id: spec.name for spec in self.vocabulary.classes}
