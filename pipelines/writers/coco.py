"""A COCO instances file, written record by record: memory does not grow with the corpus.

Ids start at 1: id 0 is refused by CVAT, and pycocotools takes a match with annotation 0 for none.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ovsops.errors import StorageError
from ovsops.text.vocabulary import Vocabulary


class CocoWriter:
    """Writes beside the file and renames: `path` is whole or not there. Use it as a context manager.

    Images go into the file as they come; annotations wait in a file of their own and are joined at the end.
    """

    def __init__(self, path: Path, *, info: Mapping[str, Any], categories: list[dict[str, Any]]) -> None:
        self.path = path
        self.info = info
        self.categories = categories

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
            self._stack.callback(self._temporary.unlink, missing_ok=True)
            self._file = self._stack.enter_context(self._temporary.open("wb"))
            self._waiting = self._stack.enter_context(tempfile.TemporaryFile(dir=self.path.parent))
        except OSError as error:
            self._stack.close()
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); choose another folder"
            ) from error
        self._file.write(
            b'{"info":' + _json(self.info) + b',"categories":' + _json(self.categories) + b',"images":['
        )
        self._num_images = self._num_annotations = 0
        return self

    def add_image(self, image: Mapping[str, Any]) -> None:
        """One entry of `images`."""
        self._file.write(_separator(self._num_images) + _json(image))
        self._num_images += 1

    def add_annotation(self, annotation: Mapping[str, Any]) -> None:
        """One entry of `annotations`."""
        self._waiting.write(_separator(self._num_annotations) + _json(annotation))
        self._num_annotations += 1

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return self._file.tell() + self._waiting.tell()

    def finish(self, licenses: list[dict[str, Any]]) -> None:
        """Close the file and give it its name."""
        self._waiting.seek(0)
        self._file.write(b'],\n"annotations":[')
        shutil.copyfileobj(self._waiting, self._file)
        self._file.write(b'],\n"licenses":' + _json(licenses) + b"}\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._temporary, self.path)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()


class Licenses:
    """Ids from 1 for licence texts, in the order in which they are met."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, license_text: str) -> int:
        """The id of a licence, new or known."""
        return self._ids.setdefault(license_text, len(self._ids) + 1)

    def to_coco(self) -> list[dict[str, Any]]:
        """The `licenses` list; a licence that is a URL is its own link."""
        return [
            {"id": number, "name": text, "url": text if text.startswith(("http://", "https://")) else ""}
            for text, number in self._ids.items()
        ]


def coco_categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The `categories` list, with the vocabulary's ids; `isthing` as in COCO panoptic."""
    return [
        {"id": spec.id, "name": spec.name, "supercategory": spec.group, "isthing": int(spec.kind == "thing")}
        for spec in vocabulary.classes
    ]


def shortest(value: float) -> float:
    """The shortest number that is this float32: 0.9 and not 0.8999999761581421."""
    return float(str(np.float32(value)))


def _separator(num_before: int) -> bytes:
    return b",\n" if num_before else b"\n"


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "surrogatepass")
