"""SigLIP opened up: its parts put together again are the tower as `siglip2` runs it."""

import pytest
import torch

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.clip import ClipText, ClipVision
from ovsops.backbones.siglip2 import SiglipText, load_siglip_vision
from ovsops.backbones.siglip_blocks import SiglipBlocks
from ovsops.backbones.vlm import VisionTower, load_text_tower, load_vision_tower
from ovsops.errors import CheckpointError, ShapeError


@pytest.fixture(params=["siglip_checkpoint", "naflex_checkpoint"])
def checkpoint(request: pytest.FixtureRequest) -> ResolvedCheckpoint:
    found: ResolvedCheckpoint = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def blocks(checkpoint: ResolvedCheckpoint) -> SiglipBlocks:
    return SiglipBlocks(checkpoint, device="cpu", dtype=torch.float32)


def pixels(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


@torch.inference_mode()
def test_its_blocks_end_where_the_tower_ends(blocks: SiglipBlocks, checkpoint: ResolvedCheckpoint) -> None:
    tower = load_siglip_vision(checkpoint, device="cpu", dtype=torch.float32)
    views = pixels(2, 64, 96)
    hidden = blocks.encode(views, position="native")
    tokens = tower.encode(views).patch_tokens.flatten(1, 2)
    assert (hidden.grid, hidden.num_prefix, len(hidden.blocks)) == ((4, 6), 0, 2)
    torch.testing.assert_close(blocks.model.post_layernorm(hidden.patches(2)), tokens)
    torch.testing.assert_close(blocks.project(hidden.patches(2)), tower.align(tokens))
    torch.testing.assert_close(blocks.image_embedding(hidden.blocks), tower.pool(tokens))
    assert isinstance(blocks, VisionTower)
    assert (blocks.num_heads, blocks.num_layers, blocks.width, blocks.text_width) == (2, 2, 32, 32)


@torch.inference_mode()
def test_a_patch_comes_to_text_space_as_if_it_were_the_image(blocks: SiglipBlocks) -> None:
    patches = blocks.encode(pixels(1, 32, 32), position="native").patches(2)
    alone = torch.cat([blocks.image_embedding([patches[:, i : i + 1]]) for i in range(4)])
    torch.testing.assert_close(blocks.project(patches)[0], alone)


@torch.inference_mode()
def test_the_last_block_can_be_put_together_from_its_parts(blocks: SiglipBlocks) -> None:
    before = blocks.encode(pixels(2, 48, 32), position="native", num_blocks=1).blocks[-1]
    layer = blocks.model.encoder.layers[-1]
    keys, values = blocks.last_keys_values(before)
    query = layer.self_attn.q_proj(layer.layer_norm1(before)).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = (query @ keys.mT * 16**-0.5).softmax(-1) @ values
    ours = blocks.attend_out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, layer.self_attn(layer.layer_norm1(before))[0])


def test_sides_that_are_no_multiple_of_the_patch_are_refused(blocks: SiglipBlocks) -> None:
    with pytest.raises(ShapeError, match="must be multiples of the patch of 16"):
        blocks.encode(pixels(1, 32, 40), position="native")


def test_the_config_of_a_checkpoint_chooses_its_towers(
    checkpoint: ResolvedCheckpoint, clip_checkpoint: ResolvedCheckpoint, dinov2_checkpoint: ResolvedCheckpoint
) -> None:
    run = {"device": "cpu", "dtype": torch.float32}
    assert isinstance(load_vision_tower(checkpoint, **run), SiglipBlocks)
    assert isinstance(load_text_tower(checkpoint, **run), SiglipText)
    assert isinstance(load_vision_tower(clip_checkpoint, **run), ClipVision)
    assert isinstance(load_text_tower(clip_checkpoint, **run), ClipText)
    for load in (load_vision_tower, load_text_tower):
        with pytest.raises(CheckpointError, match="model_type 'dinov2_with_registers' has no text"):
            load(dinov2_checkpoint, **run)
