"""FG-CLIP 2's stage 2: weights of the paper and of the code, skipped terms that are counted, a margin that is kept."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ovsops.errors import ConfigError, TrainingError
from ovsops.losses.fgclip2 import WEIGHTS, Weights
from ovsops.training.curve import read_curve
from ovsops.training.fgclip2_batch import RegionBatch, ThingMaps
from ovsops.training.fgclip2_labels import patch_labels
from ovsops.training.fgclip2_scenes import SceneRegionsConfig
from ovsops.training.fgclip2_stage2 import (
    FgClip2Stage2Config,
    FgClip2Stage2Program,
    TermWeights,
)
from ovsops.training.loop import LoopConfig, train
from ovsops.training.scenes import ABSENT, FAMILY_SIZES, SceneBank
from tests.ovsops.training.fgclip2_world import stage2
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = FgClip2Stage2Config(batch_size=4, region_scale=10.0, regions=SceneRegionsConfig(hard_groups=6))
TERMS = {"global_short", "global_long", "fgv", "fgt", "tic", "cmr"}
SKIPS = {"fgv_skipped", "fgt_skipped", "tic_skipped", "cmr_skipped"}
LOOP = LoopConfig(num_steps=4, warmup_steps=1, log_every=2, save_every=2)


class NoRegions:
    """The source of a program, whose regions are gone from the second step on."""

    def __init__(self, program: FgClip2Stage2Program) -> None:
        self.source = program.source

    def regions(self, step: int) -> RegionBatch:
        batch = self.source.regions(step)
        empty = batch.box_images[:0]
        return (
            batch
            if step == 0
            else replace(
                batch,
                boxes_xyxy=batch.boxes_xyxy[:0],
                box_images=empty,
                phrases=(),
                phrase_keys=empty,
                hard_regions=empty,
                hard_phrases=(),
                negatives=(),
                things=None,
            )
        )


@pytest.mark.parametrize("weights", ["paper", "code"])
def test_the_loss_falls_on_one_batch(bank: SceneBank, tmp_path: Path, weights: Weights) -> None:
    program = stage2(bank, tmp_path / "work", replace(CONFIG, weights=weights))
    rows = rows_on_one_batch(program, tmp_path)
    more = {"hard_infonce", "hard_infonce_skipped"} if weights == "code" else set()
    assert rows[0].losses.keys() == {*TERMS, *SKIPS, *more, "margin", "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("fgv", "fgt", "total"):
        assert rows[-1].losses[name] < rows[0].losses[name], name
    assert all(row.losses[name] == 0 for row in rows for name in SKIPS)


@pytest.mark.parametrize("weights", ["paper", "code"])
def test_terms_are_weighted_as_published_unless_said_otherwise(
    bank: SceneBank, tmp_path: Path, weights: Weights
) -> None:
    own = TermWeights(fgv=3.0, cmr=0.0)
    for said, changed in ((TermWeights(), {}), (own, {"fgv": 3.0, "cmr": 0.0})):
        program = stage2(bank, tmp_path, replace(CONFIG, weights=weights, term_weights=said))
        with torch.no_grad():
            losses = values(program.losses(0))
        expected = sum(weight * losses[term] for term, weight in {**WEIGHTS[weights], **changed}.items())
        assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_a_step_is_the_same_whatever_was_drawn_before(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path, CONFIG)
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again


def test_gradients_reach_everything_that_is_trained(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path, CONFIG)
    assert without_gradient(program) == set()
    frozen = {name for name, p in program.module.named_parameters() if not p.requires_grad}
    assert frozen == {"model.dense_feature_head.probe"}


def test_a_training_in_two_parts_leaves_the_same_bytes(bank: SceneBank, tmp_path: Path) -> None:
    """The margin goes on, too: it is a part of the state."""
    left, margins = [], []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        torch.manual_seed(0)
        if name == "parts":
            steps: list[int] = []
            train(
                stage2(bank, folder / "work", CONFIG),
                LOOP,
                folder,
                should_stop=lambda steps=steps: len(steps.append(1) or steps) >= 2,  # type: ignore[misc]
            )
            assert len(steps) == 2
        program = stage2(bank, folder / "work", CONFIG)
        train(program, LOOP, folder)
        program.export(folder / "checkpoint")
        margins.append(float(program.module.margin))
        left.append(
            [
                (folder / file).read_bytes()
                for file in (
                    "curve.csv",
                    "checkpoint/model.safetensors",
                    "states/state-00000004/state.safetensors",
                )
            ]
        )
    assert left[0] == left[1]
    assert margins[0] == margins[1] != 0


def test_the_margin_is_that_of_the_step_before(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path, replace(CONFIG, weights="code"))
    with torch.no_grad():
        losses = values(program.losses(0))
        assert float(program.module.margin) == 0
        program.after_step(0)
    assert float(program.module.margin) == pytest.approx(losses["margin"])


def test_skipped_terms_are_counted_in_the_curve(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path / "work", replace(CONFIG, too_few="skip"))
    program.source = NoRegions(program)
    train(program, LOOP, tmp_path)
    first, second = read_curve(tmp_path / "curve.csv")
    for name in SKIPS:
        assert (first[name], second[name]) == (0.5, 1.0)
        assert second[name.removesuffix("_skipped")] == 0
    assert second["total"] == pytest.approx(second["global_short"] + second["global_long"], rel=1e-5)


def test_too_few_regions_are_an_error_unless_skipping_is_asked_for(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path / "work", CONFIG)
    program.source = NoRegions(program)
    with pytest.raises(TrainingError, match="rank 0 has 0 regions and 0 with negatives"):
        train(program, LOOP, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0"),
        ({"region_scale": 0.0}, r"program\.region_scale is 0\.0; it must be over 0"),
        (
            {"term_weights": TermWeights(hard_infonce=1.0)},
            r"program\.term_weights\.hard_infonce is 1\.0, but weights: paper has no such term",
        ),
        (
            {"term_weights": TermWeights(tic=-1.0)},
            r"program\.term_weights\.tic is -1\.0; it must be 0 or more",
        ),
        ({"term_weights": TermWeights(**dict.fromkeys(TERMS, 0.0))}, "every weight is 0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FgClip2Stage2Config(**changes)


def test_patches_are_of_the_thing_that_covers_most_of_them() -> None:
    instances = torch.zeros(1, 8, 8, dtype=torch.uint8)
    instances[0, :4, :3], instances[0, 4:, 4:6], instances[0, 4:, 6:] = 1, 2, 1
    things = ThingMaps(instances=instances, codes=torch.tensor([[[3, 1], [5, 0]]]))
    assert patch_labels(things, grid=(2, 2))[0].tolist() == [[3, 1], [ABSENT] * 2, [ABSENT] * 2, [ABSENT] * 2]
    instances[0, 4:, 6] = 2
    assert patch_labels(things, grid=(2, 2))[0, 3].tolist() == [5, 0]


def test_attributes_can_be_asked_of_patches(bank: SceneBank, tmp_path: Path) -> None:
    program = stage2(bank, tmp_path / "work", replace(CONFIG, label_weight=3.0))
    plain = stage2(bank, tmp_path / "work", CONFIG)
    assert plain.module.label_head is None
    with torch.no_grad():
        losses, without = values(program.losses(0)), values(plain.losses(0))
        assert losses["total"] == pytest.approx(without["total"] + 3 * losses["labels"], rel=1e-5)
        assert program.module.label_head is not None
        program.module.label_head.weight.zero_()
        program.module.label_head.bias.zero_()
        sizes = torch.tensor(FAMILY_SIZES).float()
        assert values(program.losses(0))["labels"] == pytest.approx(float(sizes.log().mean()), rel=1e-5)
    assert without_gradient(stage2(bank, tmp_path / "work", replace(CONFIG, label_weight=3.0))) == set()
    program = stage2(bank, tmp_path / "work", replace(CONFIG, label_weight=3.0, too_few="skip"))
    program.source = NoRegions(program)
    with pytest.raises(ConfigError, match="this source does not know which thing is where"):
        program.losses(1)


def test_it_learns_in_bfloat16_as_a_gpu_does(bank: SceneBank, tmp_path: Path) -> None:
    config = replace(CONFIG, label_weight=1.0)
    for precision in ("float32", "bfloat16"):
        program = stage2(bank, tmp_path / f"work-{precision}", config)
        train(program, replace(LOOP, precision=precision), tmp_path / precision)
    whole, half = (read_curve(tmp_path / name / "curve.csv") for name in ("float32", "bfloat16"))
    assert half[-1]["total"] == pytest.approx(whole[-1]["total"], rel=0.05)
