"""The SAM 3 wrapper against `transformers.Sam3Model`: bit by bit, batch by batch, box by box."""

from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.sam3 import Sam3, Sam3Prediction, joined_features
from ovsops.errors import ShapeError
from tests.ovsops.masks.test_roi_align import looped
from tests.tiny.sam3 import SMALLEST, random_ids, random_pixels, text_tokens, tiny_model

modeling_sam3 = import_module("transformers.models.sam3.modeling_sam3")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(**SMALLEST)


@pytest.fixture(scope="module")
def sam3(model: Any) -> Sam3:
    return Sam3(model)


PIXELS = random_pixels(2, side=112)
IDS, MASK = random_ids(5)


def plain(model: Any, pixels: Tensor, ids: Tensor, mask: Tensor, **boxes: Any) -> Any:
    """One call of transformers' own model."""
    views = normalized(pixels, mean=SIGLIP_MEAN, std=SIGLIP_STD)
    with torch.inference_mode():
        return model(pixel_values=views, input_ids=ids, attention_mask=mask, **boxes)


def assert_equal(found: Sam3Prediction, expected: Any, *, atol: float = 0) -> None:
    pairs = {
        "mask_logits": expected.pred_masks,
        "semantic_logits": expected.semantic_seg[:, 0],
        "query_logits": expected.pred_logits,
        "presence_logits": expected.presence_logits[:, 0],
        "boxes_xyxy": expected.pred_boxes,
    }
    for name, value in pairs.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=0, atol=atol, msg=name)


def test_one_image_and_one_prompt_are_bit_equal_to_the_model(model: Any, sam3: Sam3) -> None:
    expected = plain(model, PIXELS[:1], IDS[:1], MASK[:1])
    features = sam3.encode_images(PIXELS[:1])
    found = sam3.predict(features, text_tokens(model, IDS[:1], MASK[:1]), MASK[:1].bool())
    assert_equal(found, expected)
    assert found.scores.std() > 0.01  # the weights give something to compare


def test_several_prompts_are_bit_equal_to_the_same_batch_of_the_model(model: Any, sam3: Sam3) -> None:
    expected = plain(model, PIXELS[:1].expand(5, -1, -1, -1), IDS, MASK)
    features = sam3.encode_images(PIXELS[:1].expand(5, -1, -1, -1)).images(0, 1)
    assert_equal(sam3.predict(features, text_tokens(model, IDS, MASK), MASK.bool()), expected, atol=1e-5)


def test_batches_of_images_and_prompts_equal_single_runs(model: Any, sam3: Sam3) -> None:
    tokens = text_tokens(model, IDS, MASK)
    together = sam3.encode_images(PIXELS)
    for image in range(2):
        batch = sam3.predict(together.images(image, image + 1), tokens, MASK.bool())
        for prompt in range(len(IDS)):
            expected = plain(
                model, PIXELS[image : image + 1], IDS[prompt : prompt + 1], MASK[prompt : prompt + 1]
            )
            single = Sam3Prediction(
                **{
                    name: None if value is None else value[prompt : prompt + 1]
                    for name, value in vars(batch).items()
                }
            )
            assert_equal(single, expected, atol=1e-5)


def test_features_of_batches_can_be_joined(sam3: Sam3) -> None:
    apart = joined_features([sam3.encode_images(PIXELS[:1]), sam3.encode_images(PIXELS[1:])])
    together = sam3.encode_images(PIXELS)
    assert len(apart) == len(together) == 2
    for one, other in zip(apart.levels, together.levels, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def looped_roi_align(maps: Tensor, boxes: Sequence[Tensor], side: int) -> Tensor:
    rois = torch.cat([torch.cat([torch.full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)])
    return looped(maps, rois, (side, side), 1.0, -1, False)


def test_boxes_and_the_geometry_token_equal_the_model_with_a_plain_roi_align(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrapped, other = tiny_model(**SMALLEST), tiny_model(**SMALLEST)
    sam3 = Sam3(wrapped)
    boxes = torch.tensor([[[0.5, 0.5, 0.3, 0.4], [0.2, 0.7, 0.1, 0.2]]]).expand(2, -1, -1)
    labels = torch.tensor([[1, 0], [1, -10]])
    tokens = text_tokens(wrapped, IDS[:2], MASK[:2])
    features = sam3.encode_images(PIXELS[:1])
    found = sam3.predict(features, tokens, MASK[:2].bool(), boxes_cxcywh=boxes, box_labels=labels)
    with_token = sam3.predict(features, tokens, MASK[:2].bool(), geometry_token=True)

    ops = SimpleNamespace(ops=SimpleNamespace(roi_align=looped_roi_align))
    monkeypatch.setattr(modeling_sam3, "torchvision", ops, raising=False)
    pair = PIXELS[:1].expand(2, -1, -1, -1)
    expected = plain(other, pair, IDS[:2], MASK[:2], input_boxes=boxes, input_boxes_labels=labels)
    assert_equal(found, expected, atol=1e-5)
    padding = {"input_boxes": boxes[:, :1], "input_boxes_labels": torch.full((2, 1), -10)}
    assert_equal(with_token, plain(other, pair, IDS[:2], MASK[:2], **padding), atol=1e-5)

    without = sam3.predict(features, tokens, MASK[:2].bool())
    assert (without.mask_logits - found.mask_logits).abs().max() > 0.1
    assert (without.mask_logits - with_token.mask_logits).abs().max() > 0.1


def test_the_module_and_other_models_do_not_get_our_roi_align(sam3: Sam3) -> None:
    other = tiny_model(1, **SMALLEST)
    assert "_encode_boxes" in vars(sam3.model.geometry_encoder)
    assert "_encode_boxes" not in vars(other.geometry_encoder)
    method = type(other.geometry_encoder)._encode_boxes
    assert method is modeling_sam3.Sam3GeometryEncoder._encode_boxes
    ours = vars(sam3.model.geometry_encoder)["_encode_boxes"].__func__
    assert method.__globals__ is vars(modeling_sam3)
    assert ours.__globals__ is not method.__globals__


def test_two_models_in_one_process_share_nothing(model: Any) -> None:
    first = Sam3(model)
    second = Sam3(tiny_model(3), "depth_scaled")
    tokens = text_tokens(model, IDS, MASK)
    before = first.predict(first.encode_images(PIXELS[:1]), tokens, MASK.bool())
    features = second.encode_images(random_pixels(1))
    second.predict(features, text_tokens(second.model, IDS, MASK), MASK.bool())
    after_features = first.encode_images(PIXELS[:1])
    after = first.predict(after_features, tokens, MASK.bool())
    assert torch.equal(before.mask_logits, after.mask_logits)
    assert after_features.report.outliers is None
    assert features.report.outliers is not None


def test_what_cannot_be_predicted_is_refused(model: Any, sam3: Sam3) -> None:
    with pytest.raises(ShapeError, match="built for 112x112 px, these images have 168x168"):
        sam3.encode_images(random_pixels(1, side=168))
    features = sam3.encode_images(PIXELS)
    tokens = text_tokens(model, IDS, MASK)
    with pytest.raises(ShapeError, match="2 images and 5 prompts"):
        sam3.predict(features, tokens, MASK.bool())
    with pytest.raises(ShapeError, match="1 images and 0 prompts"):
        sam3.predict(features.images(0, 1), tokens[:0], MASK[:0].bool())


def test_a_constant_image_has_finite_scores(model: Any, sam3: Sam3) -> None:
    found = sam3.predict(
        sam3.encode_images(torch.full((1, 3, 112, 112), 128.0)), text_tokens(model, IDS, MASK), MASK.bool()
    )
    assert bool(found.scores.isfinite().all())
    assert bool(found.mask_logits.isfinite().all())
