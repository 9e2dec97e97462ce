"""The eight evaluations of open-vocabulary segmentation: layout, label values, class names.

Labels are those of the vocabulary of the same name (`ovsops/text/data`): class ids 1 to C, 0 background where the
evaluation has one, 255 ignored. In an evaluation without background (VOC-20, Context-59, ADE20K) the value 0 of
the files is ignored, which is what `reduce_zero_label` does elsewhere, but ids do not move down by one.

    name             root holds (val)                                         values in the files
    voc_21, voc_20   JPEGImages, SegmentationClass, ImageSets/Segmentation    0-20, 255 void; palette
    context_60, _59  JPEGImages, SegmentationClassContext,                    0-59, as mmsegmentation writes them
                     ImageSets/SegmentationContext
    coco_stuff_171   images/val2017, annotations/val2017                      *_labelTrainIds 0-170, or id - 1 of
                                                                              the published maps; 255
    coco_object_81   the same                                                 *_instanceTrainIds 0-80, or the
                                                                              published maps
    ade20k_150       images/validation, annotations/validation                0 other, 1-150
    cityscapes_19    leftImg8bit/val/<city>, gtFine/val/<city>                *_labelTrainIds 0-18, or
                                                                              *_labelIds 0-33

Sources: the development kits of the data sets; converters of mmsegmentation (tools/dataset_converters); for
COCO-Object SC-CLIP at commit 0417ba9, where unlabelled pixels count as background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources

from ovsops.errors import ConfigError
from ovsops.metrics.segmentation import IGNORE
from ovsops.text.names import nearest
from ovsops.text.vocabulary import Vocabulary, load_vocabulary
from pipelines.truth.layout import FolderLayout, LabelEncoding, Layout, ListedLayout

BACKGROUND = "background"

_COCO_UNUSED = frozenset({12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91})
"""Ids of COCO-Stuff (1-182) that no pixel has: ten dropped things, and 91."""
_COCO_IDS = tuple(i for i in range(1, 183) if i not in _COCO_UNUSED)
"""COCO ids of the classes 1 to 171, in order."""
_NUM_COCO_THINGS = 80

_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Full ids of the classes 1 to 19; all others of 0-33 are not evaluated."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One evaluation: where files are, what their values mean, and which ids count."""

    name: str
    """Also the name of its built-in vocabulary."""
    has_background: bool
    """Whether id 0 is a class of its own; otherwise such pixels are ignored."""
    layout: Layout
    encodings: tuple[LabelEncoding, ...]
    """In order of preference."""

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Classes with the prompts that the published figures need."""
        with resources.as_file(resources.files("ovsops.text").joinpath("data", f"{self.name}.yaml")) as path:
            return load_vocabulary(path)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each id, from 0 (`background`, counted or not)."""
        return (BACKGROUND, *(spec.name for spec in self.vocabulary.classes))

    @property
    def num_ids(self) -> int:
        """Ids that labels may have: 0 to this less 1."""
        return len(self.class_names)

    @property
    def counted_ids(self) -> tuple[int, ...]:
        """Ids over which means are taken."""
        return tuple(range(0 if self.has_background else 1, self.num_ids))


def _shifted(num_values: int, *, first_id: int) -> dict[int, int]:
    """Values 0, 1, ... are ids `first_id`, ...; 255 is ignored."""
    return {value: value + first_id for value in range(num_values)} | {IGNORE: IGNORE}


def _kept(num_ids: int, *, has_background: bool) -> dict[int, int]:
    """Values are ids; 0 is ignored where there is no background."""
    ids = _shifted(num_ids, first_id=0)
    return ids if has_background else ids | {0: IGNORE}


_VOC = ListedLayout(
    images="JPEGImages",
    labels="SegmentationClass",
    lists="ImageSets/Segmentation",
    image_suffix=".jpg",
    example="VOCdevkit/VOC2012",
)
_CONTEXT = ListedLayout(
    images="JPEGImages",
    labels="SegmentationClassContext",
    lists="ImageSets/SegmentationContext",
    image_suffix=".jpg",
    example="VOCdevkit/VOC2010",
)
_COCO = FolderLayout(
    images="images/{split}",
    labels="annotations/{split}",
    image_suffix=".jpg",
    split_names={"train": "train2017", "val": "val2017"},
    example="coco_stuff164k",
)
_ADE = FolderLayout(
    images="images/{split}",
    labels="annotations/{split}",
    image_suffix=".jpg",
    split_names={"train": "training", "val": "validation"},
    example="ADEChallengeData2016",
)
_CITYSCAPES = FolderLayout(
    images="leftImg8bit/{split}",
    labels="gtFine/{split}",
    image_suffix="_leftImg8bit.png",
    split_names={"train": "train", "val": "val"},
    has_groups=True,
    example="cityscapes",
)


def _encoding(suffix: str, ids: Mapping[int, int]) -> LabelEncoding:
    return LabelEncoding(suffix=suffix, ids=ids)


def _coco_stuff_values() -> dict[int, int]:
    return {coco_id - 1: i for i, coco_id in enumerate(_COCO_IDS, 1)} | {IGNORE: IGNORE}


def _coco_object_values() -> dict[int, int]:
    """Things keep their class; stuff and what is not labelled are background."""
    return {value: i if i <= _NUM_COCO_THINGS else 0 for value, i in _coco_stuff_values().items()}


def _cityscapes_values() -> dict[int, int]:
    return (
        dict.fromkeys(range(34), IGNORE) | {v: i for i, v in enumerate(_CITYSCAPES_IDS, 1)} | {IGNORE: IGNORE}
    )


def _benchmark(name: str, layout: Layout, *encodings: LabelEncoding, has_background: bool) -> Benchmark:
    return Benchmark(name=name, layout=layout, encodings=encodings, has_background=has_background)


BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *(
            _benchmark(
                f"{name}_{num_ids - (not has_background)}",
                layout,
                _encoding(".png", _kept(num_ids, has_background=has_background)),
                has_background=has_background,
            )
            for name, layout, num_ids in (("voc", _VOC, 21), ("context", _CONTEXT, 60))
            for has_background in (False, True)
        ),
        _benchmark(
            "coco_stuff_171",
            _COCO,
            _encoding("_labelTrainIds.png", _shifted(171, first_id=1)),
            _encoding(".png", _coco_stuff_values()),
            has_background=False,
        ),
        _benchmark(
            "coco_object_81",
            _COCO,
            _encoding("_instanceTrainIds.png", _shifted(81, first_id=0)),
            _encoding(".png", _coco_object_values()),
            has_background=True,
        ),
        _benchmark(
            "ade20k_150",
            _ADE,
            _encoding(".png", _kept(151, has_background=False)),
            has_background=False,
        ),
        _benchmark(
            "cityscapes_19",
            _CITYSCAPES,
            _encoding("_gtFine_labelTrainIds.png", _shifted(19, first_id=1)),
            _encoding("_gtFine_labelIds.png", _cityscapes_values()),
            has_background=False,
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The evaluation of that name. Raises `ConfigError` that lists them."""
    if name not in BENCHMARKS:
        raise ConfigError(
            f"there is no truth {name!r}{nearest(name, BENCHMARKS)}; there are {', '.join(BENCHMARKS)}"
        )
    return BENCHMARKS[name]
