"""What users hand to FG-CLIP 2 and LLMDet that cannot be used: what, where, expected, and a way out that works."""

from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.inputs import box_tensor, check_image, check_images
from ovsops.backbones.mm_grounding_dino import DetectorConfig, LlmDet
from ovsops.backbones.prompts import check_prompts
from ovsops.backbones.untrained_fgclip2 import write_untrained_fgclip2
from ovsops.backbones.untrained_llmdet import write_untrained_llmdet
from ovsops.errors import ConfigError, ShapeError, VocabularyError
from ovsops.text.label_names import LabelNames
from tests.tiny.images import photo_pixels

RGB = photo_pixels(40, 60)
NAMES = LabelNames(("cat", "dog"))
BAD_IMAGES: list[tuple[Any, str]] = [
    (RGB[..., 0], r"uint8 and shape \(40, 60\); RGB in 0..255 .* np.stack\(\[grey\] \* 3, axis=-1\)"),
    (RGB[..., :1], r"shape \(40, 60, 1\); .* np.repeat\(grey, 3, axis=2\)"),
    (np.dstack([RGB, RGB[..., 0]]), r"shape \(40, 60, 4\); .* image\[..., :3\] leaves out the fourth"),
    (RGB.transpose(2, 0, 1), r"shape \(3, 40, 60\); .* image.transpose\(1, 2, 0\)"),
    (RGB / 255, r"float64 and shape \(40, 60, 3\); .*: \(255 \* image\).round\(\).astype\(np.uint8\)"),
    (RGB > 99, r"bool and shape \(40, 60, 3\); .*: \(255 \* image\)"),
    (RGB.astype(np.int64), r"int64 and shape .*: image.astype\(np.uint8\)"),
    (RGB[..., 0] / 255, r"np.stack.* grey image, then \(255 \* image\)"),
    (RGB[None], r"shape \(1, 40, 60, 3\); .* list\(batch\)"),
    (torch.from_numpy(RGB.copy()), r"Tensor of uint8 and shape \(40, 60, 3\); .* tensor.numpy\(\)"),
    (Image.fromarray(RGB), r"of type Image; .* np.asarray\(picture.convert\('RGB'\)\)"),
    ("photo.jpg", r"of type str; .* decode_image"),
    (None, "of type NoneType; RGB in 0..255"),
]


@pytest.fixture(scope="module")
def fgclip2(tmp_path_factory: pytest.TempPathFactory) -> FgClip2:
    folder = write_untrained_fgclip2(tmp_path_factory.mktemp("fgclip2"))
    return FgClip2(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def llmdet(tmp_path_factory: pytest.TempPathFactory) -> LlmDet:
    folder: Path = write_untrained_llmdet(tmp_path_factory.mktemp("llmdet"))
    config = DetectorConfig(short_side=72, max_long_side=128)
    return LlmDet(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32, config=config)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("image", "message"), BAD_IMAGES)
def test_an_image_that_is_no_rgb_is_refused_at_each_door(
    fgclip2: FgClip2, llmdet: LlmDet, image: Any, message: str
) -> None:
    with pytest.raises(ShapeError, match=f"image 1 of 2: .*{message}"):
        fgclip2.encode_images([RGB, image])
    with pytest.raises(ShapeError, match=f"image 1 of 2: .*{message}"):
        llmdet.detect([RGB, image], NAMES)
    with pytest.raises(ShapeError, match=f"image 1 of 2: .*{message}"):
        llmdet.encode_images([RGB, image])
    with pytest.raises(ShapeError, match=message):
        llmdet.ground(image, "a cat", [(2, 5)])


def test_the_ways_out_lead_to_rgb() -> None:
    grey, values = RGB[..., 0], RGB / 255
    for image in (
        np.stack([grey] * 3, axis=-1),
        np.repeat(RGB[..., :1], 3, axis=2),
        RGB.transpose(2, 0, 1).transpose(1, 2, 0),
        (255 * values).round().astype(np.uint8),
        (255 * (RGB > 99)).round().astype(np.uint8),
        np.asarray(Image.fromarray(grey).convert("RGB")),
    ):
        check_image(image)
    assert np.array_equal((255 * values).round().astype(np.uint8), RGB)


@pytest.mark.usefixtures("unchecked")
def test_images_come_in_a_row(fgclip2: FgClip2, llmdet: LlmDet) -> None:
    for images in (RGB, iter([RGB]), RGB[..., 0], 5):
        with pytest.raises(ShapeError, match=r"a list of images is expected, \[image\] for a single one"):
            fgclip2.encode_images(images)  # type: ignore[arg-type]
        with pytest.raises(ShapeError, match="a list of images is expected"):
            llmdet.detect(images, NAMES)  # type: ignore[arg-type]
    check_images(np.stack([RGB, RGB]))  # a batch is a row of images
    assert fgclip2.encode_images([]) == []
    assert llmdet.detect([], NAMES) == []


def test_the_detector_encodes_images_of_one_size(llmdet: LlmDet) -> None:
    with pytest.raises(ShapeError, match=r"0 images, sizes after resizing \[\]"):
        llmdet.encode_images([])
    with pytest.raises(ShapeError, match=r"2 images, sizes after resizing \[\(72, 108\), \(108, 72\)\]"):
        llmdet.encode_images([RGB, photo_pixels(60, 40)])
    assert len(llmdet.encode_images([RGB, photo_pixels(80, 120)])) == 2


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (torch.zeros(2, 5), r"float32 and shape \(2, 5\); four columns .* boxes\[:, :4\] leaves out a score"),
        (np.zeros((0, 5)), r"ndarray of float64 and shape \(0, 5\)"),
        (
            torch.zeros(2, 3),
            r"shape \(2, 3\); four columns of numbers are expected, x1, y1, x2, y2 in pixels$",
        ),
        (torch.zeros(1, 2, 4), r"shape \(1, 2, 4\); four columns"),
        ([1, 2, 3, 4], r"a single box goes into a list, \[box\]"),
        ([[1, 2, 3, 4], [1, 2]], "of type list; four columns"),
        (np.array([["1", "2", "3", "4"]]), "ndarray of <U1"),
        ("1,2,3,4", "of type str; four columns"),
        (torch.ones(1, 4, dtype=torch.bool), "Tensor of bool"),
        (torch.ones(1, 4, dtype=torch.complex64), "Tensor of complex64"),
    ],
)
def test_boxes_have_four_columns(fgclip2: FgClip2, boxes: Any, message: str) -> None:
    (image,) = fgclip2.encode_images([RGB])
    with pytest.raises(ShapeError, match=f"boxes: .*{message}"):
        fgclip2.region_features(image, boxes)


@pytest.mark.usefixtures("unchecked")
def test_lists_of_boxes_are_boxes_and_an_empty_one_is_none(fgclip2: FgClip2) -> None:
    (image,) = fgclip2.encode_images([RGB])
    expected, _ = fgclip2.region_features(image, torch.tensor([[5.0, 5, 30, 20]]))
    found, is_empty = fgclip2.region_features(image, [(5, 5, 30, 20)])  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)
    assert is_empty.tolist() == [False]
    nothing, is_empty = fgclip2.region_features(image, [])  # type: ignore[arg-type]
    assert (nothing.shape, is_empty.shape) == ((0, fgclip2.width), (0,))
    assert box_tensor([]).shape == (0, 4)


@pytest.mark.usefixtures("unchecked")
def test_settings_that_are_none_are_refused(fgclip2: FgClip2) -> None:
    (image,) = fgclip2.encode_images([RGB], budget=np.int64(128))  # type: ignore[arg-type]
    for length in ("medium", "Short", "", None, 64):
        with pytest.raises(ConfigError, match=rf"text length {length!r}; short .* box .* or long"):
            fgclip2.encode_text(["a cat"], length=length)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="text length 'medium'"):
        fgclip2.model.embed_texts(torch.zeros(1, 64, dtype=torch.int64), length="medium")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mode 'published'; one of corrected, upstream"):
        fgclip2.region_features(image, torch.zeros(1, 4), mode="published")  # type: ignore[arg-type]
    for field, value in (("budget", 0), ("budget", 99.5), ("patches_at_once", -1)):
        with pytest.raises(
            ConfigError, match=f"{field} is {value}; give a whole number of patches, 1 or more"
        ):
            fgclip2.encode_images([RGB], **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size is 0; give 1 or more"):
        fgclip2.encode_text(["a cat"], length="box", batch_size=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("a cat", r"'a cat' is of type str; a list of texts is expected, \[text\] for a single one"),
        (iter(["a cat"]), "a list of texts is expected"),
        (["a cat", None], "number 1 of 2, None, is of type NoneType; every prompt is a text"),
        ([b"a cat"], "number 0 of 1, b'a cat', is of type bytes"),
        ([], "no prompts to embed; a text tower's width"),
    ],
)
def test_prompts_are_texts_in_a_row(fgclip2: FgClip2, prompts: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        fgclip2.encode_text(prompts, length="box")


def test_an_empty_prompt_is_a_text_without_words(fgclip2: FgClip2) -> None:
    texts = fgclip2.encode_text(["", "cat", ""], length="box")
    torch.testing.assert_close(texts.norm(dim=-1), torch.ones(3))
    assert torch.equal(texts[0], texts[2])
    assert fgclip2.num_tokens([]).tolist() == []
    check_prompts(np.array(["cat"]))


@pytest.mark.usefixtures("unchecked")
def test_names_of_the_detector_are_label_names(llmdet: LlmDet) -> None:
    for names in (["cat"], "cat", None):
        with pytest.raises(VocabularyError, match=r'give LabelNames of .* LabelNames\(\("cat", "dog"\)\)'):
            llmdet.detect([RGB], names)  # type: ignore[arg-type]
    with pytest.raises(VocabularyError, match=r"'cat' is one string, .* give a tuple, \('cat',\)"):
        LabelNames("cat")  # type: ignore[arg-type]
    with pytest.raises(VocabularyError, match="None is of type NoneType; every name is a text"):
        LabelNames(("cat", None))  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("spans", [(2, 5), [(2,)], ["cat"], [(2.5, 5)], [(5, 2)], [(2, 9)]])
def test_spans_are_pairs_of_places(llmdet: LlmDet, spans: Any) -> None:
    with pytest.raises(ShapeError, match=r"is not inside the caption of 5 characters; give \(first, end\)"):
        llmdet.ground(RGB, "a cat", spans)
    with pytest.raises(ShapeError, match="the caption is of type NoneType; give a text"):
        llmdet.ground(RGB, None, [(0, 1)])  # type: ignore[arg-type]


def test_the_checks_are_reached_only_without_checked_annotations(fgclip2: FgClip2) -> None:
    """In tests the annotations are checked first; what `unchecked` is for."""
    with pytest.raises(jaxtyping.TypeCheckError):
        fgclip2.encode_images([RGB[..., 0]])
