"""More blocks for a vision tower: nothing changes at first, the new ones learn, and the checkpoint says how many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.errors import ConfigError
from ovsops.training.deeper import deepen_vision
from ovsops.training.fgclip2_module import FgClip2Embedder, load_fgclip2_to_train
from ovsops.training.fgclip2_patches import FgClip2PatchesConfig
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from ovsops.training.loop import LoopConfig, train
from ovsops.training.scenes import SceneBank
from tests.ovsops.training.fgclip2_world import tiny_model
from tests.ovsops.training.test_fgclip2_patches import program

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)


@pytest.mark.parametrize(("num_layers", "new"), [(2, []), (3, [2]), (4, [1, 3])])
def test_new_blocks_lie_evenly_and_add_nothing(num_layers: int, new: list[int], tmp_path: Path) -> None:
    write_word_tokenizer(tmp_path, FGCLIP2_WORDS)
    plain, deep = tiny_model(), deepen_vision(tiny_model(), num_layers=num_layers)
    blocks: Any = deep.vision_model.encoder.layers
    silent = [place for place, block in enumerate(blocks) if not block.mlp.fc2.weight.any()]
    assert (len(blocks), silent) == (num_layers, new)
    seen = [FgClip2Embedder(model, tmp_path, device="cpu").images([PICTURE])[1] for model in (plain, deep)]
    assert torch.equal(*seen)


@pytest.mark.parametrize("num_layers", [1, 5])
def test_blocks_that_cannot_be_spread_are_refused(num_layers: int) -> None:
    with pytest.raises(ConfigError, match=r"has 2 blocks, .* expected 2 or one of 3, 4"):
        deepen_vision(tiny_model(), num_layers=num_layers)


def test_new_blocks_learn_and_are_exported(bank: SceneBank, tmp_path: Path) -> None:
    made = program(bank, tmp_path / "work", FgClip2PatchesConfig(batch_size=4, vision_layers=4))
    train(made, LoopConfig(num_steps=3, warmup_steps=1), tmp_path / "states")
    made.export(tmp_path / "out")
    again: Any = load_fgclip2_to_train(resolve(Checkpoint(source=str(tmp_path / "out"))))
    blocks = again.vision_model.encoder.layers
    assert len(blocks) == again.config.vision_config.num_hidden_layers == 4
    assert all(block.self_attn.out_proj.weight.any() for block in blocks)
