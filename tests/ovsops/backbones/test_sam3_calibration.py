"""Self-calibration as hooks: what each switch may change, what it must not, and that nothing stays behind."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ovsops.backbones.sam3 import Sam3
from ovsops.backbones.sam3_calibration import SelfCalibration, blended, joined_reports, matched_statistics
from ovsops.backbones.sam3_calibration_config import CalibrationConfig, calibration_preset
from ovsops.errors import ConfigError
from ovsops.patches.outliers import OutlierConfig
from tests.tiny.sam3 import OUTPUTS, random_ids, random_pixels, tiny_model

PIXELS = random_pixels(2) / 127.5 - 1
IDS, MASK = random_ids(2)
FEW = OutlierConfig(num_neighbours=10)
BLOCKS = {"pre_block": 8, "post_block": 2, "fuse_first": 3, "fuse_end": 10}
ALL = CalibrationConfig(
    repair=True,
    outliers=FEW,
    pre_aggregate=True,
    post_aggregate=True,
    fuse=True,
    decoder=True,
    beta=0.1,
    **BLOCKS,
)


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@torch.inference_mode()
def outputs(model: Any, first: int = 0, end: int = 2) -> dict[str, Tensor]:
    found = model(pixel_values=PIXELS[first:end], input_ids=IDS[first:end], attention_mask=MASK[first:end])
    return {name: getattr(found, name) for name in OUTPUTS}


def changed(model: Any, config: CalibrationConfig) -> set[str]:
    """Names of the outputs in which a bit differs under a calibration."""
    plain = outputs(model)
    with SelfCalibration(model, config):
        found = outputs(model)
    return {name for name in OUTPUTS if not torch.equal(plain[name], found[name])}


def num_hooks(model: Any) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize(
    "config",
    [
        CalibrationConfig(),
        replace(ALL, residual_weight=0.0, repair_weight=0.0),
        CalibrationConfig(repair=True, outliers=OutlierConfig(min_score=1e6)),
        CalibrationConfig(report_lof=True),
    ],
    ids=["off", "zero weights", "unreachable score", "report only"],
)
def test_is_bit_equal(model: Any, config: CalibrationConfig) -> None:
    assert changed(model, config) == set()


def test_off_sets_no_hook(model: Any) -> None:
    calibration = SelfCalibration(model, CalibrationConfig())
    calibration.attach()
    assert num_hooks(model) == 0


def test_hooks_are_gone_after_detach(model: Any) -> None:
    plain, before = outputs(model), num_hooks(model)
    calibration = SelfCalibration(model, replace(ALL, mask_mode="cosine", mask_beta=0.2))
    calibration.attach()
    calibration.attach()  # twice is once
    attached = num_hooks(model)
    outputs(model)
    calibration.detach()
    assert before == num_hooks(model) == 0
    assert attached == 1 + 10 + 1 + 3  # begin; blocks 2 to 11; decoder; masks
    after = outputs(model)
    assert all(torch.equal(plain[name], after[name]) for name in OUTPUTS)


def test_hooks_are_gone_after_an_error(model: Any) -> None:
    with pytest.raises(RuntimeError), SelfCalibration(model, ALL):
        model(pixel_values=PIXELS[:, :2], input_ids=IDS, attention_mask=MASK)
    assert num_hooks(model) == 0


@pytest.mark.parametrize("switch", ["repair", "pre_aggregate", "post_aggregate", "fuse"])
def test_each_switch_of_the_image_side_does_something(model: Any, switch: str) -> None:
    config = CalibrationConfig(outliers=FEW, beta=0.1, **BLOCKS, **{switch: True})
    assert "pred_masks" in changed(model, config)


def test_the_decoder_leaves_semantics_alone(model: Any) -> None:
    config = CalibrationConfig(
        decoder=True, outliers=OutlierConfig(num_neighbours=5, contamination=0.3), beta=0.0
    )
    found = changed(model, config)
    assert "semantic_seg" not in found
    assert {"pred_masks", "pred_logits"} <= found
    assert "presence_logits" in changed(model, replace(config, decoder_layers="all"))
    assert "presence_logits" not in found  # the last layer's presence token is never mixed


@pytest.mark.parametrize("mode", ["shift", "gate", "cosine", "zero"])
def test_mask_modes_change_masks_only(model: Any, mode: Any) -> None:
    assert changed(model, CalibrationConfig(mask_mode=mode, mask_beta=0.3)) == {"pred_masks"}


def test_mask_modes_do_what_they_say(model: Any) -> None:
    plain = outputs(model)["pred_masks"]

    def masks(mode: Any) -> Tensor:
        with SelfCalibration(model, CalibrationConfig(mask_mode=mode, mask_beta=0.3)):
            return outputs(model)["pred_masks"]

    torch.testing.assert_close(masks("shift"), plain - 0.3)
    torch.testing.assert_close(masks("gate"), torch.where(plain < 0.3, plain.clamp(max=-10), plain))
    torch.testing.assert_close(masks("zero"), torch.where(plain < 0.3, 0, plain))
    cosine = masks("cosine")
    kept = cosine == plain
    assert 0 < kept.float().mean() < 1
    assert bool((cosine[~kept] <= -10).all())
    assert bool((plain[kept & (plain > -10)] > 0).all())  # a cosine of 0.3 needs a logit above 0


def test_a_batch_equals_single_images(model: Any) -> None:
    with SelfCalibration(model, ALL):
        together, first, second = outputs(model), outputs(model, 0, 1), outputs(model, 1, 2)
    for name in OUTPUTS:
        torch.testing.assert_close(
            together[name], torch.cat([first[name], second[name]]), rtol=0, atol=1e-5, msg=name
        )


def test_the_report_travels_with_the_features_and_says_what_was_done() -> None:
    sam3 = Sam3(tiny_model(), ALL)
    pixels = (PIXELS + 1) * 127.5
    both = sam3.encode_images(pixels).report
    assert both.outliers is not None
    assert both.outlier_indices is not None
    assert both.outliers.shape == (2, 12, 12)
    assert both.outliers.sum(dim=(1, 2)).tolist() == [8, 8]  # 5 % of 144, rounded up by the strict quantile
    flags = both.outliers[1].flatten()
    assert both.outlier_indices[1].tolist() == [i for i in range(144) if flags[i]]
    assert both.kept_fraction_pre is not None
    assert 1 / 144 < float(both.kept_fraction_pre.min()) <= float(both.kept_fraction_pre.max()) < 1
    single = [sam3.encode_images(pixels[i : i + 1]).report for i in range(2)]
    joined = joined_reports(single)
    assert torch.equal(joined.outliers, both.outliers)
    assert torch.equal(both.images(1, 2).outliers, single[1].outliers)
    assert sam3.calibration.take_report().outliers is None  # taken once


def test_safe_reports_lof_and_repairs_by_norm() -> None:
    model = tiny_model()
    sam3 = Sam3(model, "safe")

    def enlarge(module: Any, inputs: Any, tokens: Tensor) -> Tensor:
        tokens = tokens.clone()
        tokens[0, 3, 4] *= 40
        return tokens

    handle = model.vision_encoder.backbone.layers[9].register_forward_hook(enlarge)
    report = sam3.encode_images((PIXELS + 1) * 127.5).report
    handle.remove()
    assert report.outlier_indices is not None
    assert report.outlier_scores is not None
    assert 3 * 12 + 4 in report.outlier_indices[0].tolist()
    assert (
        report.outlier_indices[1].tolist()
        == sam3.encode_images((PIXELS[1:] + 1) * 127.5).report.outlier_indices[0].tolist()
    )
    assert float(report.outlier_scores.median()) == pytest.approx(1, abs=0.2)  # LOF, not a z-score


@pytest.mark.parametrize("name", ["literal", "depth_scaled", "safe"])
def test_identical_tokens_stay_finite(model: Any, name: Any) -> None:
    config = calibration_preset(name, num_blocks=12, global_blocks=(2, 5, 8, 11))
    calibration = SelfCalibration(model, config)
    tokens = torch.ones(2, 3, 5, 8)
    calibration._call.references |= {config.pre_block: tokens, config.post_block: tokens}
    calibration._call.fused_sum = tokens * 6
    before, after = calibration._before_last_block(tokens), calibration._after_last_block(tokens)
    torch.testing.assert_close(before, tokens)
    torch.testing.assert_close(after, tokens)


def test_presets() -> None:
    assert calibration_preset("off").is_off
    literal = calibration_preset("literal")
    assert (literal.pre_block, literal.post_block, literal.fuse_first, literal.fuse_end) == (6, 2, 2, 8)
    scaled = calibration_preset("depth_scaled")
    assert (scaled.pre_block, scaled.post_block, scaled.fuse_first, scaled.fuse_end) == (23, 7, 10, 27)
    base = calibration_preset("depth_scaled", num_blocks=12, global_blocks=range(12))
    assert (base.pre_block, base.post_block, base.fuse_first, base.fuse_end) == (8, 3, 3, 10)  # SC-CLIP's own
    assert calibration_preset("safe").outliers.mode == "norm"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"residual_weight": 1.5}, r"residual_weight is 1\.5; it must lie in \[0, 1\]"),
        ({"beta": 1.0}, "a cosine from 0 to below 1"),
        ({"fuse_first": 5, "fuse_end": 5}, "fuse_end is exclusive"),
        ({"mask_mode": "gate"}, "gate needs mask_beta"),
        ({"topk": 0}, "1 or more, or None"),
        ({"pre_block": -1}, "start at 0"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CalibrationConfig(**fields)


def test_blocks_that_the_encoder_lacks_are_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"pre_block: block 23 .* of 12 blocks \(0 to 10\).*depth_scaled"):
        SelfCalibration(model, CalibrationConfig(pre_aggregate=True))
    SelfCalibration(model, CalibrationConfig(repair=True))  # blocks of what is off do not matter


def test_matched_statistics() -> None:
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(2, 50, 3, generator=generator) * 7 + 3
    new[:, :, 2] = 5.0  # constant
    like = torch.randn(2, 50, 3, generator=generator) + 1
    found = matched_statistics(new, like)
    torch.testing.assert_close(found.mean(dim=1), like.mean(dim=1))
    torch.testing.assert_close(found[..., :2].std(dim=1), like[..., :2].std(dim=1))
    assert found[..., 2].std(dim=1).max() == 0


def test_blended_is_exact_at_its_ends() -> None:
    old, new = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
    assert blended(old, new, 0.0) is old
    assert blended(old, new, 1.0) is new
    assert blended(old, new, 0.5).tolist() == [2.0, 4.0]
