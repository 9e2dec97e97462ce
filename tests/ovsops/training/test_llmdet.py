"""The LLMDet program: what is true of a prompt, which parts learn, and that the real loader finds what was trained."""

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.errors import ConfigError
from ovsops.losses.labelled_boxes import BoxWeights
from ovsops.losses.set_prediction import corners
from ovsops.miniature.attributes import LANGUAGES
from ovsops.training.detector_prompts import AskedNames
from ovsops.training.detector_quality import load_detector, noun_names
from ovsops.training.llmdet import (
    TERMS,
    LlmDetProgram,
    LlmDetProgramConfig,
    answers_of,
    name_logits,
    prompt_of,
    targets_of,
)
from ovsops.training.loop import LoopConfig, Progress, train
from ovsops.training.scenes import ABSENT, SceneBank
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = LlmDetProgramConfig(batch_size=2, cells_only_steps=1)


@pytest.fixture(scope="module")
def trained(
    bank: SceneBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LlmDetProgram, list[Progress]]:
    folder = tmp_path_factory.mktemp("llmdet")
    program = LlmDetProgram(bank, CONFIG, folder / "work")
    return program, rows_on_one_batch(program, folder, at=1)


@pytest.fixture(scope="module")
def program(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> LlmDetProgram:
    """Untrained; nothing may step it."""
    return LlmDetProgram(bank, CONFIG, tmp_path_factory.mktemp("untrained"))


def test_the_loss_falls_on_one_batch(trained: tuple[LlmDetProgram, list[Progress]]) -> None:
    rows = trained[1]
    assert rows[0].losses.keys() == {*TERMS, "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("labels", "proposal_scores", "box_l1", "total"):
        assert rows[-1].losses[name] < 0.95 * rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(program: LlmDetProgram) -> None:
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again
    with torch.no_grad():
        assert values(program.losses(2)) != first


def test_boxes_come_in_after_the_cells(program: LlmDetProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = BoxWeights(score=3.0, box_l1=7.0, box_giou=1.5)
    changed = replace(CONFIG, label_weight=5.0, proposal_weight=0.5, set_weights=weights)
    monkeypatch.setattr(program, "config", changed)
    with torch.no_grad():
        before, after = values(program.losses(0)), values(program.losses(1))
    assert {name for name in TERMS if before[name]} == {"labels"}
    assert before["total"] == pytest.approx(5 * before["labels"], rel=1e-5)
    assert all(after[name] > 0 for name in TERMS)
    expected = 5 * after["labels"]
    for name, weight in (("scores", 3.0), ("box_l1", 7.0), ("box_giou", 1.5)):
        expected += weight * (after[name] + 0.5 * after[f"proposal_{name}"])
    assert after["total"] == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_every_parameter_that_is_trained(
    trained: tuple[LlmDetProgram, list[Progress]],
) -> None:
    """The proposal heads above all, which the loss of transformers cuts off. Before the first step some parts lie
    below a layer that starts at zero, so a program that was stepped is asked.
    """
    program = trained[0]
    missing = without_gradient(program, step=1)
    assert not {name for name in missing if "enc_output" in name or "encoder_output" in name}
    # A bias of keys moves no attention, and the table of second sentences has one row that is used.
    assert {name for name in missing if not name.endswith(("key.bias", "k_proj.bias"))} <= set()
    kept = {name for name, p in program.module.named_parameters() if not p.requires_grad}
    assert {name for name in kept if not name.startswith("average.")} == {
        f"model.model.backbone.conv_encoder.model.swin.layernorm.{kind}" for kind in ("weight", "bias")
    }


def test_what_is_exported_is_the_average(bank: SceneBank, tmp_path: Path) -> None:
    program = LlmDetProgram(bank, replace(CONFIG, average_momentum=0.05), tmp_path)
    module = program.module
    weight, average = (part.model.enc_output.weight for part in (module.model, module.average))
    start = weight.detach().clone()
    with torch.no_grad():
        weight += 1.0
    program.after_step(0)  # at the first step the average is mostly the new weights
    torch.testing.assert_close(average, start + 0.95, atol=1e-5, rtol=0)


def test_targets_are_what_the_prompt_asks_for() -> None:
    instances = torch.zeros(1, 16, 16, dtype=torch.uint8)
    instances[0, :4, 4:12], instances[0, 8:12, :8], instances[0, 15, :15] = (
        1,
        2,
        3,
    )  # the third: one pixel too few
    names = AskedNames(phrases=("moon", "ball", "red ball"), classes=torch.tensor([5, 0, 0]))
    found = targets_of(instances, torch.tensor([[0, 3, 5, ABSENT]]), names)
    assert found.is_there.tolist() == [[True, False, False, False]]  # a ring was not asked for
    assert found.is_named[0, 0].tolist() == [False, True, True]
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([0.25, 0.0, 0.75, 0.25]))


def test_the_logit_of_a_name_is_the_mean_over_its_tokens() -> None:
    tokens = torch.tensor([[[0.0, 1.0, 3.0, -2.0, -torch.inf]]])
    spans = torch.tensor([[False, True, True, False], [False, False, False, True]])
    assert name_logits(tokens, spans).tolist() == [[[2.0, -2.0]]]


def test_a_resumed_training_ends_with_the_same_bytes(bank: SceneBank, tmp_path: Path) -> None:
    """Stopped after the second of four steps; the average and the tied heads are in the state."""
    loop = LoopConfig(num_steps=4, warmup_steps=1, log_every=1, save_every=2)
    whole, half, rest = (LlmDetProgram(bank, CONFIG, tmp_path / name) for name in ("whole", "half", "rest"))
    train(whole, loop, tmp_path / "whole")
    stopped = train(half, loop, tmp_path / "parts", should_stop=lambda: True)
    assert stopped.done == 1
    train(rest, loop, tmp_path / "parts")
    ends = [
        tmp_path / name / "states" / "state-00000004" / "state.safetensors" for name in ("whole", "parts")
    ]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    for name, program in (("whole", whole), ("parts", rest)):
        program.export(tmp_path / name / "checkpoint")
    shipped = [tmp_path / name / "checkpoint" / "model.safetensors" for name in ("whole", "parts")]
    assert shipped[0].read_bytes() == shipped[1].read_bytes()
    assert shipped[0].stat().st_size < 4.5e6


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_real_loader_finds_what_was_trained(
    trained: tuple[LlmDetProgram, list[Progress]], bank: SceneBank, tmp_path: Path, language: str
) -> None:
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    detector = load_detector(str(tmp_path / "checkpoint"))
    names = noun_names("zh" if language == "zh" else "en")
    (prompt,) = detector.name_prompts(names)
    assert prompt == prompt_of(
        program.pieces, AskedNames(phrases=names.names, classes=torch.arange(len(names)))
    )
    images = [image.permute(1, 2, 0).numpy() for image in bank.images[:3]]
    logits, boxes = detector.predict(detector.encode_images(images), [(i, prompt) for i in range(3)])
    cast = deepcopy(program.module.average).half().float()
    with torch.no_grad():
        views = normalized(bank.images[:3].float(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        own, _ = answers_of(cast, views, prompt)
    torch.testing.assert_close(
        own.logits[-1], name_logits(logits, prompt.token_map(len(prompt.token_ids))), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(own.boxes[-1], corners(boxes), atol=1e-5, rtol=0)
    found = detector.detect(images, names)
    assert all(len(each) for each in found)
    assert all(np.isfinite(each.boxes_xyxy.numpy()).all() for each in found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0; it must be 1 or more"),
        ({"proposals_per_thing": 0}, r"program\.proposals_per_thing is 0"),
        ({"cells_only_steps": -1}, r"program\.cells_only_steps is -1"),
        ({"partial_share": 1.5}, r"program\.partial_share is 1\.5; it must lie in \[0, 1\]"),
        ({"attribute_share": -0.1}, r"program\.attribute_share is -0\.1"),
        ({"average_momentum": 1.1}, r"program\.average_momentum is 1\.1"),
        ({"stuff_share": 0.0}, r"must lie in \(0, 1\]"),
        ({"label_weight": 0.0}, r"program\.label_weight is 0\.0; it must be over 0"),
        ({"set_weights": BoxWeights(score=-1.0)}, r"program\.set_weights\.score is -1\.0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlmDetProgramConfig(**changes)  # type: ignore[arg-type]


def test_building_a_program_draws_nothing_from_the_global_random_state(
    bank: SceneBank, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    LlmDetProgram(bank, CONFIG, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
