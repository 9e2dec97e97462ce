"""The SAM 3 segmenter from a checkpoint folder to class maps: batches, prompts, memory, bad inputs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ovsops.backbones.checkpoint import Checkpoint, checkpoints_of
from ovsops.backbones.sam3_calibration_config import CalibrationConfig
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.refine import PamrConfig
from ovsops.masks.rle import rle_area, rle_to_mask
from ovsops.segmenters.sam3 import Sam3Segmenter, build_sam3, compute_sam3_text, phrases
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.sam3_masks import contending
from ovsops.segmenters.sam3_prompts import Sam3TextFeatures
from ovsops.segmenters.segmenter import Segmenter
from ovsops.text.prompts import class_prompts
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.tiny.sam3 import SMALLEST

NEAR = PamrConfig(dilations=(1, 2), num_iterations=3)
LOW = {"threshold": 0.0, "instance_threshold": 0.3}


@pytest.fixture(scope="module")
def sam3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_sam3(tmp_path_factory.mktemp("sam3"), **SMALLEST)


@pytest.fixture(scope="module")
def text(sam3_folder: Path, vocabulary: Vocabulary) -> Sam3TextFeatures:
    config = Sam3SegmenterConfig(sam3=Checkpoint(source=str(sam3_folder)))
    return compute_sam3_text(config, vocabulary, ("en", "zh"))


Make = Callable[..., Sam3Segmenter]


@pytest.fixture(scope="module")
def make(sam3_folder: Path, vocabulary: Vocabulary, text: Sam3TextFeatures) -> Make:
    def build(**fields: Any) -> Sam3Segmenter:
        config = Sam3SegmenterConfig(sam3=Checkpoint(source=str(sam3_folder)), **(LOW | fields))
        return build_sam3(config, vocabulary, text)

    return build


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


IMAGES = [picture(70, 90), picture(120, 60, seed=1), picture(70, 90, seed=2)]


def assert_maps_equal(found: ClassMap, expected: ClassMap, *, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=atol)
    assert (found.labels != expected.labels).mean() < 1e-3  # ties within rounding


def test_phrases_are_prompts_without_templates_once_a_class(
    vocabulary: Vocabulary, text: Sam3TextFeatures
) -> None:
    owners, prompts = phrases(class_prompts(vocabulary, ("en", "zh")))
    assert (owners, prompts) == (
        (1, 1, 1, 2, 2, 3, 3, 0),
        ("cat", "kitten", "猫", "sky", "天空", "car", "汽车", "wall"),
    )
    assert text.prompts == prompts
    assert text.query_class.tolist() == list(owners)
    assert text.class_ids == vocabulary.ids


def test_text_is_cached(
    sam3_folder: Path, vocabulary: Vocabulary, text: Sam3TextFeatures, tmp_path: Path
) -> None:
    config = Sam3SegmenterConfig(sam3=Checkpoint(source=str(sam3_folder)))
    first = compute_sam3_text(config, vocabulary, ("en", "zh"), cache_dir=tmp_path)
    [file] = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = compute_sam3_text(config, vocabulary, ("en", "zh"), cache_dir=tmp_path)
    assert file.stat().st_mtime_ns == stamp
    assert first.to_bytes() == again.to_bytes() == text.to_bytes()
    assert checkpoints_of(config) == {"sam3": config.sam3}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"labels": "instances"},
        {"mode": "upstream"},
        {"calibration": "depth_scaled"},
        {"views": "slide", "short_side": 112, "window": 64, "stride": 48},
        {"refinement": NEAR},
        {"refinement": NEAR, "labels": "instances"},
        {"refinement": replace(NEAR, winning_margin=0.05), "mode": "upstream"},
    ],
    ids=[
        "semantic",
        "instances",
        "upstream",
        "calibrated",
        "slide",
        "refined",
        "refined instances",
        "refined winners",
    ],
)
def test_an_image_does_not_depend_on_its_batch(make: Make, fields: dict[str, Any]) -> None:
    segmenter = make(**fields, views_per_batch=3)
    assert isinstance(segmenter, Segmenter)
    together = segmenter.segment(IMAGES)
    assert [m.labels.shape for m in together] == [image.shape[:2] for image in IMAGES]
    for image, found in zip(IMAGES, together, strict=True):
        [alone] = make(**fields, views_per_batch=1).segment([image])
        assert_maps_equal(found, alone)
        assert 0 <= found.scores.min() <= found.scores.max() <= 1
    assert len({int(label) for m in together for label in np.unique(m.labels)}) > 1


def test_refinement_changes_borders_and_a_wide_margin_nothing(make: Make) -> None:
    plain, refined, winners, still = (
        make(refinement=refinement).segment(IMAGES[:1])[0]
        for refinement in (None, NEAR, replace(NEAR, winning_margin=1.0), replace(NEAR, num_iterations=0))
    )
    assert not np.allclose(plain.scores, refined.scores, atol=1e-3)
    assert_maps_equal(winners, refined)
    assert_maps_equal(still, plain)


def test_masks_of_instances_are_refined_too(make: Make) -> None:
    [plain] = make(instance_threshold=0.1).detect(IMAGES[:1])
    [refined] = make(instance_threshold=0.1, refinement=NEAR).detect(IMAGES[:1])
    assert [i.score for i in plain.instances] == [i.score for i in refined.instances]
    assert [i.mask for i in plain.instances] != [i.mask for i in refined.instances]


def test_prompts_that_win_nowhere_do_not_contend() -> None:
    scores = torch.tensor([[[0.9, 0.1], [0.2, 0.5], [0.1, 0.3]]])[..., None].repeat(1, 1, 1, 2)
    assert contending(scores, margin=0.0).tolist() == [True, True, False]
    assert contending(scores, margin=0.25).tolist() == [True, True, True]


@pytest.mark.parametrize("labels", ["semantic", "instances"])
def test_prompts_in_other_batches_give_the_same_map(make: Make, labels: str) -> None:
    [all_at_once] = make(labels=labels, prompts_per_batch=100).segment(IMAGES[:1])
    for size in (1, 3):
        [found] = make(labels=labels, prompts_per_batch=size).segment(IMAGES[:1])
        assert_maps_equal(found, all_at_once)


def test_modes_and_calibration_change_the_map(make: Make) -> None:
    [plain] = make().segment(IMAGES[:1])
    for fields in ({"mode": "upstream"}, {"calibration": "depth_scaled"}, {"labels": "instances"}):
        [found] = make(**fields).segment(IMAGES[:1])
        assert np.abs(found.scores - plain.scores).max() > 1e-3, fields


def test_instances_have_scores_boxes_and_masks(make: Make, text: Sam3TextFeatures) -> None:
    segmenter = make(labels="instances", nms_iou=None)
    [found] = segmenter.detect(IMAGES[:1])
    assert found.presence.shape == (len(text.prompts),)
    assert ((found.presence > 0) & (found.presence < 1)).all()
    assert len(found.instances) > 3
    scores = [instance.score for instance in found.instances]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0.3
    for instance in found.instances:
        assert instance.mask.size_hw == (70, 90)
        assert instance.label == int(text.query_class[instance.prompt])
        x1, y1, x2, y2 = instance.box_xyxy
        assert x1 < x2  # the model's boxes may leave the image
        assert y1 < y2
    [painted] = segmenter.segment(IMAGES[:1])
    best = found.instances[0]
    if best.label:
        assert (painted.labels[rle_to_mask(best.mask)] == best.label).all()


def test_suppression_scopes_and_the_cap(make: Make) -> None:
    def count(**fields: Any) -> int:
        [found] = make(labels="instances", **fields).detect(IMAGES[:1])
        return len(found.instances)

    by_scope = [count(nms_iou=0.2, nms_scope=scope) for scope in ("prompt", "class", "image")]
    assert by_scope == sorted(by_scope, reverse=True)
    assert by_scope[0] > by_scope[2]
    assert count(nms_iou=None) >= by_scope[0]
    assert count(nms_iou=None, max_instances=2) == 2
    assert count(nms_iou=0.2, nms_containment=0.5) <= by_scope[1]


def test_no_instances_is_all_background(make: Make) -> None:
    segmenter = make(labels="instances", instance_threshold=1.0)
    [found] = segmenter.segment(IMAGES[:1])
    assert not found.labels.any()
    assert not found.scores.any()
    assert segmenter.detect(IMAGES[:1])[0].instances == ()


@pytest.mark.parametrize("labels", ["semantic", "instances"])
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (2, 3)])
def test_images_of_one_row_or_column(make: Make, labels: str, size: tuple[int, int]) -> None:
    [found] = make(labels=labels).segment([picture(*size)])
    assert found.labels.shape == size
    assert np.isfinite(found.scores).all()


def test_a_constant_image_and_no_image(make: Make) -> None:
    for calibration in ("off", "depth_scaled", "safe"):
        [found] = make(calibration=calibration).segment([np.full((40, 50, 3), 127, np.uint8)])
        assert np.isfinite(found.scores).all()
    assert make().segment([]) == []


@pytest.mark.parametrize("mode", ["corrected", "upstream"])
def test_bfloat16_runs_and_gives_nearly_the_same_scores(
    sam3_folder: Path, vocabulary: Vocabulary, text: Sam3TextFeatures, make: Make, mode: Any
) -> None:
    everything = CalibrationConfig(
        repair=True,
        pre_aggregate=True,
        pre_block=2,
        post_aggregate=True,
        post_block=1,
        fuse=True,
        fuse_first=1,
        fuse_end=4,
        decoder=True,
        mask_mode="cosine",
        mask_beta=0.1,
    )
    config = Sam3SegmenterConfig(
        sam3=Checkpoint(source=str(sam3_folder)), mode=mode, calibration=everything, **LOW
    )
    [found] = build_sam3(config, vocabulary, text, dtype="bfloat16").segment(IMAGES[:1])
    [exact] = make(mode=mode, calibration=everything).segment(IMAGES[:1])
    assert found.scores.dtype == np.float32
    assert np.abs(found.scores - exact.scores).mean() < 0.05


class LargestTensor(TorchDispatchMode):
    """The most numbers that one tensor held."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor._is_view():
                self.numel = max(self.numel, tensor.numel())
        return found


def test_no_tensor_of_all_classes_at_the_images_size(sam3_folder: Path) -> None:
    classes = tuple(ClassSpec(id=i, name=f"thing {i}") for i in range(1, 41))
    forty = Vocabulary(name="forty", languages=("en",), classes=classes)
    config = Sam3SegmenterConfig(sam3=Checkpoint(source=str(sam3_folder)), prompts_per_batch=4, **LOW)
    segmenter = build_sam3(config, forty, compute_sam3_text(config, forty, ("en",)))
    image = picture(600, 800)
    with LargestTensor() as largest:
        segmenter.segment([image])
    pixels = image.shape[0] * image.shape[1]
    assert pixels <= largest.numel <= 4 * pixels  # the planes of one batch of prompts, never 40


def test_what_does_not_belong_together_is_refused(
    sam3_folder: Path, vocabulary: Vocabulary, text: Sam3TextFeatures, tmp_path: Path
) -> None:
    config = Sam3SegmenterConfig(sam3=Checkpoint(source=str(sam3_folder)))
    with pytest.raises(ConfigError, match="not those of the text features"):
        build_sam3(config, vocabulary, replace(text, class_ids=(3, 7, 10)))
    narrow = replace(text, tokens=text.tokens[..., :8])
    with pytest.raises(CheckpointError, match="have 8 channels, the detector has 32"):
        build_sam3(config, vocabulary, narrow)


def test_the_licence_is_asked_for_before_anything_is_loaded(
    vocabulary: Vocabulary, text: Sam3TextFeatures
) -> None:
    hub = Sam3SegmenterConfig(sam3=Checkpoint(source="facebook/sam3", revision="1" * 40))
    with pytest.raises(CheckpointError, match="accept_sam_licence: true"):
        compute_sam3_text(hub, vocabulary, ("en",))
    with pytest.raises(CheckpointError, match="accept_sam_licence: true"):
        build_sam3(hub, vocabulary, text)
    with pytest.raises(CheckpointError, match="not in the local cache"):
        build_sam3(replace(hub, accept_sam_licence=True), vocabulary, text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"threshold": 1.5}, r"segmenter.threshold is 1\.5"),
        ({"nms_iou": -0.1}, r"segmenter.nms_iou is -0\.1"),
        ({"mask_threshold": 1.0}, "between 0 and 1"),
        ({"prompts_per_batch": 0}, "segmenter.prompts_per_batch is 0"),
        ({"window": 100, "stride": 200}, "stride 200 is over window 100"),
        ({"labels": "instances", "views": "slide"}, "needs views squash"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sam3SegmenterConfig(sam3=Checkpoint(source="nowhere"), **fields)


def test_windows_have_no_instances(make: Make) -> None:
    with pytest.raises(ConfigError, match="must be squash for instances"):
        make(views="slide").detect(IMAGES[:1])


def test_areas_of_instances_follow_the_image(make: Make) -> None:
    """The same picture twice as large: the same things, four times the area."""
    segmenter = make(labels="instances", instance_threshold=0.4)
    small, large = segmenter.detect([IMAGES[0], IMAGES[0].repeat(2, axis=0).repeat(2, axis=1)])
    assert len(small.instances) > 0
    ratio = rle_area(large.instances[0].mask) / rle_area(small.instances[0].mask)
    assert ratio == pytest.approx(4, rel=0.15)
