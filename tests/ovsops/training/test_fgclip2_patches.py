"""FG-CLIP 2's vision tower by the attributes of patches and regions: what moves, what stays, what is mirrored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.errors import ConfigError
from ovsops.miniature.region_truth import Located
from ovsops.miniature.scene import Thing
from ovsops.training.fgclip2_module import load_fgclip2_to_train
from ovsops.training.fgclip2_patches import FgClip2PatchesConfig, FgClip2PatchesProgram
from ovsops.training.fgclip2_scenes import located_things
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from ovsops.training.loop import LoopConfig, Progress, train
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.fgclip2_world import tiny_model
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    without_gradient,
)

CONFIG = FgClip2PatchesConfig(batch_size=4)


def program(bank: SceneBank, folder: Path, config: FgClip2PatchesConfig = CONFIG) -> FgClip2PatchesProgram:
    write_word_tokenizer(folder, FGCLIP2_WORDS)
    return FgClip2PatchesProgram(bank, config, tiny_model(), folder)


def test_the_losses_fall_on_one_batch(bank: SceneBank, tmp_path: Path) -> None:
    rows = rows_on_one_batch(program(bank, tmp_path / "work"), tmp_path)
    assert rows[0].losses.keys() == {"patches", "regions", "total"}
    for name in ("patches", "regions"):
        assert rows[-1].losses[name] < rows[0].losses[name], name
    assert rows[0].losses["total"] == pytest.approx(rows[0].losses["patches"] + rows[0].losses["regions"])


def test_only_what_region_features_come_from_is_taught(bank: SceneBank, tmp_path: Path) -> None:
    made = program(bank, tmp_path)
    assert without_gradient(made) == set()
    taught = {name for name, p in made.module.named_parameters() if p.requires_grad}
    parts = {".".join(name.split(".")[:3]) for name in taught}
    assert not any("text" in name or "vision_model.head" in name or "probe" in name for name in taught)
    assert {"model.vision_model.encoder", "model.vision_model.embeddings", "patch_head.weight"} <= parts


def test_a_step_depends_on_its_number_alone(bank: SceneBank, tmp_path: Path) -> None:
    first, again = losses_whatever_was_drawn_before(program(bank, tmp_path), 3)
    assert first == again


def turned_thing(thing: Located, height: int, width: int) -> Located:
    """Mirrored both ways."""
    left, top, of_x, of_y = thing.box_xywh
    assert isinstance(thing, Thing)
    return replace(thing, box_xywh=(width - left - of_x, height - top - of_y, of_x, of_y))


def test_boxes_are_mirrored_with_their_pictures(bank: SceneBank, tmp_path: Path) -> None:
    """A mirrored bank whose steps are not mirrored has the losses of the bank whose steps are."""
    made = program(bank, tmp_path / "a")
    step = next(step for step in range(50) if made._flips(made.draws(step)[1]) == [0, 1])
    height, width = bank.size_hw
    turned_things = tuple(
        tuple(turned_thing(thing, height, width) for thing in located_things(bank, row))
        for row in range(len(bank))
    )
    turned = replace(
        bank, images=bank.images.flip((2, 3)), instances=bank.instances.flip((1, 2)), things=turned_things
    )
    unturned = program(turned, tmp_path / "b", replace(CONFIG, mirror=False))
    with torch.no_grad():
        torch.testing.assert_close(dict(made.losses(step)), dict(unturned.losses(step)))
        assert float(made.losses(step)["regions"]) != float(unturned.losses(step + 1)["regions"])


def test_it_learns_in_bfloat16_as_a_gpu_does(bank: SceneBank, tmp_path: Path) -> None:
    totals = []
    for precision in ("float32", "bfloat16"):
        loop = LoopConfig(num_steps=2, warmup_steps=1, precision=precision)
        rows: list[Progress] = []
        train(program(bank, tmp_path / "work"), loop, tmp_path / precision, on_progress=rows.append)
        totals.append(rows[-1].losses["total"])
    assert totals[1] == pytest.approx(totals[0], rel=0.05)


def test_what_it_exports_loads(bank: SceneBank, tmp_path: Path) -> None:
    made = program(bank, tmp_path / "work")
    made.export(tmp_path / "out")
    again = load_fgclip2_to_train(resolve(Checkpoint(source=str(tmp_path / "out"))))
    assert again.state_dict().keys() == made.module.model.state_dict().keys()


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 0), ("region_weight", -1.0), ("region_scale", 0.0), ("seed", -1)]
)
def test_impossible_settings_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"program.{field}"):
        replace(CONFIG, **{field: value})
