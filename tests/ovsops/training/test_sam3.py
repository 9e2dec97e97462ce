"""The SAM 3 program: which phrases are drawn, what is true of them, and that what it exports labels pictures."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.sam3 import load_sam3
from ovsops.backbones.sam3_text import Sam3Text
from ovsops.errors import ConfigError
from ovsops.losses.set_prediction import SetWeights
from ovsops.miniature.scene import draw_scene
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.training.loop import Progress
from ovsops.training.quality import labelled_states
from ovsops.training.sam3 import (
    NAMES,
    TERMS,
    Phrases,
    Sam3Program,
    Sam3ProgramConfig,
    draw_phrases,
    regions_of,
    targets_of,
)
from ovsops.training.scenes import ABSENT, NUM_CLASSES, NUM_THING_CLASSES, SceneBank, bank_of
from ovsops.training.shipping import world_vocabulary
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = Sam3ProgramConfig(batch_size=4, patches_only_steps=1)


@pytest.fixture(scope="module")
def trained(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> tuple[Sam3Program, list[Progress]]:
    folder = tmp_path_factory.mktemp("sam3")
    program = Sam3Program(bank, CONFIG, folder / "work")
    return program, rows_on_one_batch(program, folder, at=1)


@pytest.fixture(scope="module")
def program(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> Sam3Program:
    """Untrained; nothing may step it."""
    return Sam3Program(bank, CONFIG, tmp_path_factory.mktemp("untrained"))


def test_the_loss_falls_on_one_batch(trained: tuple[Sam3Program, list[Progress]]) -> None:
    rows = trained[1]
    assert rows[0].losses.keys() == {*TERMS, "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("labels", "semantic", "box_l1", "scores", "total"):
        assert rows[-1].losses[name] < 0.95 * rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(program: Sam3Program) -> None:
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again
    with torch.no_grad():
        assert values(program.losses(2)) != first


def test_phrases_come_in_after_the_patches(program: Sam3Program, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = replace(CONFIG, label_weight=3.0, presence_weight=5.0, semantic_weight=7.0)
    monkeypatch.setattr(program, "config", changed)
    with torch.no_grad():
        before, after = values(program.losses(0)), values(program.losses(1))
    assert {name for name in TERMS if before[name]} == {"labels"}
    assert before["total"] == pytest.approx(3 * before["labels"], rel=1e-5)
    assert all(after[name] > 0 for name in TERMS)
    weights = changed.set_weights
    expected = 3 * after["labels"] + 5 * after["presence"] + 7 * (after["semantic"] + after["semantic_dice"])
    expected += weights.score * after["scores"] + weights.box_l1 * after["box_l1"]
    expected += weights.box_giou * after["box_giou"] + weights.mask * after["masks"]
    assert after["total"] == pytest.approx(expected + weights.dice * after["dice"], rel=1e-5)


def test_gradients_reach_every_parameter_that_is_trained(program: Sam3Program) -> None:
    """All but those below a last layer that starts at zero."""
    missing = without_gradient(program, step=1)
    assert missing == {
        f"model.detr_decoder.box_head.layer{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")
    }
    kept = {name.split(".")[1] for name, p in program.module.named_parameters() if not p.requires_grad}
    assert kept == {"geometry_encoder", "text_encoder", "vision_encoder"}


def test_regions_by_hand() -> None:
    instances = torch.zeros(1, 16, 16, dtype=torch.uint8)
    semantic = torch.full((1, 16, 16), NUM_THING_CLASSES + 1, dtype=torch.uint8)  # grass
    instances[0, :4, 4:12], semantic[0, :4, 4:12] = 1, 3
    instances[0, 15, :15], semantic[0, 15, :15] = 2, 5  # one pixel too few
    found = regions_of(instances, semantic, torch.tensor([[2, 4, ABSENT]]), cell_size=4)
    assert found.is_there[0].nonzero().flatten().tolist() == [0, 3]
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([0.25, 0.0, 0.75, 0.25]))
    torch.testing.assert_close(found.boxes[0, 3], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert found.masks[0, 0].tolist() == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]
    names = draw_phrases(found, count=4, stuff_share=0.5, generator=torch.Generator().manual_seed(0))
    assert sorted(names.classes[names.is_true].tolist()) == [2, NUM_THING_CLASSES]
    assert not {2, 4, NUM_THING_CLASSES} & set(names.classes[~names.is_true].tolist())  # 4 is neither


def test_targets_are_the_regions_of_the_class() -> None:
    instances = torch.zeros(2, 16, 16, dtype=torch.uint8)
    semantic = torch.full((2, 16, 16), 20, dtype=torch.uint8)
    for number, top in ((1, 0), (2, 4), (3, 8)):
        instances[:, top : top + 4, :8], semantic[:, top : top + 4, :8] = number, 1 if number != 2 else 2
    regions = regions_of(instances, semantic, torch.tensor([[0, 1, 0]] * 2), cell_size=4)
    phrases = Phrases(
        scenes=torch.tensor([0, 0, 1, 1]),
        classes=torch.tensor([0, 5, 1, 19]),
        languages=torch.zeros(4, dtype=torch.int64),
        is_true=torch.tensor([True, False, True, True]),
    )
    masks, targets = targets_of(regions, phrases)
    assert targets.is_there.sum(dim=1).tolist() == [2, 0, 1, 1]
    torch.testing.assert_close(targets.boxes[0, :, 1], torch.tensor([0.0, 0.5]))
    assert masks.sum(dim=(1, 2)).tolist() == [4, 0, 2, 10]
    assert torch.equal(masks[0], targets.masks[0].sum(dim=0))


def test_half_of_the_phrases_are_true(bank: SceneBank) -> None:
    regions = regions_of(bank.instances, bank.semantic, bank.codes[:, :, 0], cell_size=4)
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_phrases(regions, count=4, stuff_share=0.5, generator=generator) for _ in range(50)]
    assert torch.cat([names.is_true for names in drawn]).float().mean() == pytest.approx(0.5, abs=0.02)
    assert {int(x) for names in drawn for x in names.languages} == {0, 1}
    for names in drawn:
        assert all(len(set(row)) == 4 for row in names.classes.unflatten(0, (-1, 4)).tolist())
        for scene, class_, is_true in zip(names.scenes, names.classes, names.is_true, strict=True):
            count = int((bank.semantic[scene] == class_ + 1).sum())
            assert count > 0 if is_true else count == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0; it must be 1 or more"),
        ({"phrases_per_scene": 1}, r"program\.phrases_per_scene is 1; it must lie in \[2, 10\]"),
        ({"phrases_per_scene": 11}, r"it must lie in \[2, 10\]"),
        ({"stuff_share": 0.0}, r"must lie in \(0, 1\]"),
        ({"label_weight": 0.0}, r"program\.label_weight is 0\.0; it must be over 0"),
        ({"set_weights": SetWeights(dice=-1.0)}, r"program\.set_weights\.dice is -1\.0"),
        ({"patches_only_steps": -1}, r"program\.patches_only_steps is -1"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sam3ProgramConfig(**changes)  # type: ignore[arg-type]


def test_building_a_program_draws_nothing_from_the_global_random_state(
    bank: SceneBank, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Sam3Program(bank, CONFIG, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_exported_checkpoint_predicts_what_was_trained(
    trained: tuple[Sam3Program, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    """English and Chinese names, all of the detector's answers; and the segmenter takes it without Meta's licence."""
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    source = Checkpoint(source=str(tmp_path / "checkpoint"))
    place = resolve(source)
    sam3 = load_sam3(place, device="cpu", dtype=torch.float32)
    text = Sam3Text(place, device="cpu", dtype=torch.float32).encode(NAMES)
    found = sam3.predict(sam3.encode_images(bank.images[:1].float()), text.tokens, text.attention_mask)
    everything = torch.arange(len(NAMES))
    with torch.no_grad():
        views = normalized(bank.images[:1].float(), mean=SIGLIP_MEAN, std=SIGLIP_STD)
        own = program._predict(
            program.model.get_vision_features(views),
            Phrases(
                scenes=torch.zeros_like(everything),
                classes=everything % NUM_CLASSES,
                languages=everything // NUM_CLASSES,
                is_true=everything < 0,
            ),
        )
    torch.testing.assert_close(found.semantic_logits, own.semantic_seg[:, 0], atol=0.05, rtol=0.02)
    torch.testing.assert_close(found.boxes_xyxy, own.pred_boxes, atol=0.01, rtol=0.0)
    torch.testing.assert_close(found.presence_logits, own.presence_logits[:, 0], atol=0.02, rtol=0.02)
    states = labelled_states(
        bank_of(draw_scene(seed) for seed in (900_000, 900_001)),
        world_vocabulary(),
        Sam3SegmenterConfig(sam3=source, threshold=0.0),
    )
    assert int(states.confusion.sum()) == 2 * 128 * 128
