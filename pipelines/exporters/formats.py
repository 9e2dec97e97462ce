"""Formats by name."""

from collections.abc import Callable, Mapping

from pipelines.exporters.coco import CocoFormat
from pipelines.exporters.cvat import CvatFormat
from pipelines.exporters.fiftyone import FiftyOneFormat
from pipelines.exporters.format import ExportFormat, FormatName
from pipelines.exporters.hf import HfFormat
from pipelines.exporters.labelstudio import LabelStudioFormat
from pipelines.exporters.options import ExportContext
from pipelines.exporters.webdataset import WebDatasetFormat
from pipelines.exporters.yolo import YoloSegFormat

_FORMATS: Mapping[FormatName, Callable[[ExportContext], ExportFormat]] = {
    "coco": CocoFormat,
    "yolo-seg": YoloSegFormat,
    "labelstudio": LabelStudioFormat,
    "cvat": CvatFormat,
    "fiftyone": FiftyOneFormat,
    "webdataset": WebDatasetFormat,
    "hf": HfFormat,
}


def open_format(context: ExportContext) -> ExportFormat:
    """The format that the options name, ready for its first shard."""
    return _FORMATS[context.options.format](context)
