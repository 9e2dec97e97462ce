"""Where a data set keeps its images and label maps, and which belong together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ovsops.errors import StorageError

Split = Literal["train", "val"]

_MAX_LIST_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class LabelEncoding:
    """One way in which label maps are published: how files are named, and what their values mean."""

    suffix: str
    """What follows the key in the name of the file, such as `_gtFine_labelIds.png`."""
    ids: Mapping[int, int]
    """Value in the file to id of the evaluation; any other value is an error."""


@dataclass(frozen=True, kw_only=True)
class TruthFiles:
    """One image and its label map, both there."""

    key: str
    image_path: Path
    label_path: Path
    encoding: LabelEncoding


@dataclass(frozen=True, kw_only=True)
class ListedLayout:
    """Flat folders, and a text file with the keys of each split (VOC, Context)."""

    images: str
    labels: str
    lists: str
    """Folder of `train.txt` and `val.txt`, one key a line."""
    image_suffix: str
    example: str
    """What the root is usually called, for errors."""

    def pairs(self, root: Path, split: Split) -> Iterator[tuple[str, Path, Path]]:
        """Key, image and folder of the label map, in the order of the list."""
        images, labels = self.folders(root, split)
        for key in _read_list(root / self.lists / f"{split}.txt", layout=self.describe(split)):
            yield key, images / f"{key}{self.image_suffix}", labels

    def folders(self, root: Path, split: Split) -> tuple[Path, Path]:
        """Folders of images and of label maps. Raises `StorageError` where one is missing."""
        return _folders(root, self.images, self.labels, layout=self.describe(split))

    def describe(self, split: Split) -> str:
        """What the root must hold."""
        return f"{self.images}, {self.labels} and {self.lists}/{split}.txt, such as {self.example}"


@dataclass(frozen=True, kw_only=True)
class FolderLayout:
    """A folder of images and one of label maps for each split (COCO, ADE20K, Cityscapes)."""

    images: str
    """With `{split}` in it."""
    labels: str
    image_suffix: str
    split_names: Mapping[Split, str]
    has_groups: bool = False
    """Whether there is one more level of folders, the same on both sides (cities)."""
    example: str

    def pairs(self, root: Path, split: Split) -> Iterator[tuple[str, Path, Path]]:
        """Key, image and folder of the label map of every image, by name."""
        images, labels = self.folders(root, split)
        groups = sorted(path.name for path in images.iterdir() if path.is_dir()) if self.has_groups else ["."]
        found = 0
        for group in groups:
            for path in sorted((images / group).iterdir()):
                if path.name.endswith(self.image_suffix) and not path.name.startswith("."):
                    found += 1
                    yield path.name.removesuffix(self.image_suffix), path, labels / group
        if not found:
            below = "/<group>" if self.has_groups else ""
            raise StorageError(
                f"{images}{below}: holds no file *{self.image_suffix}; expected {self.describe(split)}"
            )

    def folders(self, root: Path, split: Split) -> tuple[Path, Path]:
        """Folders of images and of label maps. Raises `StorageError` where one is missing."""
        return _folders(root, *self._names(split), layout=self.describe(split))

    def describe(self, split: Split) -> str:
        """What the root must hold."""
        images, labels = self._names(split)
        return f"{images} and {labels}, such as {self.example}"

    def _names(self, split: Split) -> tuple[str, str]:
        name = self.split_names[split]
        return self.images.format(split=name), self.labels.format(split=name)


Layout = ListedLayout | FolderLayout


def list_truth(
    layout: Layout, encodings: tuple[LabelEncoding, ...], root: Path, split: Split
) -> tuple[TruthFiles, ...]:
    """All images of a split with their label maps; of several encodings the first that is there.

    Raises `StorageError`, with every place that was looked at, for a folder, list, image or label map that is
    missing, and for a key that comes twice. No image is left out in silence.
    """
    found: dict[str, TruthFiles] = {}
    for key, image_path, label_folder in layout.pairs(root, split):
        if key in found:
            raise StorageError(
                f"{root}: key {key!r} comes twice ({found[key].image_path}, {image_path}); keep one"
            )
        if not image_path.is_file():
            raise StorageError(f"{key}: there is no image {image_path}; expected {layout.describe(split)}")
        for encoding in encodings:
            label_path = label_folder / f"{key}{encoding.suffix}"
            if label_path.is_file():
                found[key] = TruthFiles(
                    key=key, image_path=image_path, label_path=label_path, encoding=encoding
                )
                break
        else:
            tried = ", ".join(f"{key}{encoding.suffix}" for encoding in encodings)
            raise StorageError(
                f"{image_path} has no label map: looked in {label_folder} for {tried};"
                f" expected {layout.describe(split)}"
            )
    return tuple(found.values())


def _folders(root: Path, *names: str, layout: str) -> tuple[Path, Path]:
    for name in names:
        if not (root / name).is_dir():
            raise StorageError(
                f"{root}: there is no folder {name} in it (looked for {root / name}); the root holds {layout}"
            )
    images, labels = (root / name for name in names)
    return images, labels


def _read_list(path: Path, *, layout: str) -> Iterator[str]:
    """Keys of a list, one a line. Raises `StorageError` for a missing list and for lines that are no key."""
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_LIST_BYTES + 1).decode("utf-8-sig")
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}); the root holds {layout}") from error
    except UnicodeDecodeError as error:
        raise StorageError(
            f"{path}: not UTF-8 at byte {error.start}; it is a list of keys, one a line"
        ) from error
    if len(text) > _MAX_LIST_BYTES:
        raise StorageError(f"{path}: longer than {_MAX_LIST_BYTES} bytes; it is a list of keys, one a line")
    num_keys = 0
    for number, line in enumerate(text.splitlines(), 1):
        key = line.strip()
        if not key:
            continue
        if key.startswith(".") or any(c in "/\\" or c.isspace() or not c.isprintable() for c in key):
            raise StorageError(
                f"{path}: line {number} is {line[:80]!r}; expected one key, a file name without folder or suffix"
            )
        num_keys += 1
        yield key
    if not num_keys:
        raise StorageError(f"{path}: lists no key; it is a list of keys, one a line")
