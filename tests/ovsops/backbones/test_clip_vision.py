"""CLIP's vision tower opened up: its parts put together again are the model of transformers."""

import pytest
import torch
from transformers import CLIPModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.clip import ClipVision, Position, position_embedding
from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.backbones.vlm import VisionTower
from ovsops.errors import ShapeError
from tests.golden.clip_weights import clip_vision_of, load_weights
from tests.golden.conftest import DATA

POSITIONS: tuple[Position, ...] = ("native", "upstream")


@pytest.fixture(scope="module")
def vision(clip_checkpoint: ResolvedCheckpoint) -> ClipVision:
    return ClipVision(clip_checkpoint, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def whole(clip_checkpoint: ResolvedCheckpoint) -> CLIPModel:
    return CLIPModel.from_pretrained(str(clip_checkpoint.folder), local_files_only=True).eval()


def pixels(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


def test_it_is_a_tower_and_says_its_sizes(vision: ClipVision) -> None:
    assert isinstance(vision, VisionTower)
    assert (vision.patch_size, vision.width, vision.num_heads, vision.num_layers, vision.text_width) == (
        16,
        32,
        2,
        2,
        24,
    )


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (16, 64)])
@torch.inference_mode()
def test_native_positions_give_the_model_of_transformers(
    vision: ClipVision, whole: CLIPModel, size: tuple[int, int]
) -> None:
    views = pixels(2, *size)
    hidden = vision.encode(views, position="native")
    expected = whole.vision_model(
        pixel_values=normalized(views, mean=CLIP_MEAN, std=CLIP_STD),
        output_hidden_states=True,
        interpolate_pos_encoding=True,
    ).hidden_states
    assert hidden.grid == (size[0] // 16, size[1] // 16)
    assert len(hidden.blocks) == 2
    for ours, theirs in zip(hidden.blocks, expected[1:], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(hidden.patches(2), hidden.blocks[1][:, 1:])


@torch.inference_mode()
def test_the_image_embedding_is_that_of_the_model(vision: ClipVision, whole: CLIPModel) -> None:
    views = pixels(3, 32, 32)
    expected = whole.get_image_features(pixel_values=normalized(views, mean=CLIP_MEAN, std=CLIP_STD))
    found = vision.image_embedding(vision.encode(views, position="upstream").blocks)
    torch.testing.assert_close(found, expected.pooler_output)


@torch.inference_mode()
def test_the_last_block_can_be_put_together_from_its_parts(vision: ClipVision) -> None:
    """With one's own queries, the parts give what the block's attention gives to the patches among themselves."""
    before = vision.encode(pixels(2, 48, 32), position="native").blocks[-2]
    keys, values = vision.last_keys_values(before)
    assert keys.shape == values.shape == (2, 2, 6, 16)
    attention = vision.model.vision_model.encoder.layers[-1].self_attn
    normed = vision.model.vision_model.encoder.layers[-1].layer_norm1(before[:, 1:])
    query = attention.q_proj(normed).unflatten(-1, (2, -1)).transpose(1, 2)
    mixed = (query @ keys.mT * 16**-0.5).softmax(-1) @ values
    ours = vision.attend_out(mixed.transpose(1, 2).flatten(2))
    torch.testing.assert_close(ours, attention(normed)[0])


@torch.inference_mode()
def test_blocks_that_are_not_needed_do_not_run(vision: ClipVision) -> None:
    views = pixels(1, 32, 32)
    short = vision.encode(views, position="native", num_blocks=1)
    assert len(short.blocks) == 1
    assert torch.equal(short.blocks[0], vision.encode(views, position="native").blocks[0])


@pytest.mark.parametrize("position", POSITIONS)
def test_positions_on_their_own_grid_are_untouched(position: Position) -> None:
    table = torch.randn(1 + 16, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(position_embedding(table, (4, 4), position=position), table)
    for grid in ((4, 5), (1, 9), (7, 3)):
        found = position_embedding(table, grid, position=position)
        assert found.shape == (1 + grid[0] * grid[1], 8)
        assert torch.equal(found[0], table[0])


@pytest.mark.parametrize(
    ("weights", "file", "name"),
    [
        ("cass_tiny_weights.npz", "cass_tiny_slide.npz", "whole_pos_embed"),
        ("scclip_tiny_weights.npz", "scclip_tiny_window.npz", "pos_embed_used"),
    ],
)
def test_upstream_positions_are_upstreams(weights: str, file: str, name: str) -> None:
    if not (DATA / file).is_file() or not (DATA / weights).is_file():
        pytest.skip(f"{file} is not in this checkout")
    table = torch.from_numpy(load_weights(DATA, weights)["clip.positional_embedding"])
    arrays = load_weights(DATA, file)
    expected = torch.from_numpy(arrays[name])
    patch = load_weights(DATA, weights)["clip.conv1.weight"].shape[-1]
    grid = (arrays["image"].shape[1] // patch, arrays["image"].shape[2] // patch)
    found = position_embedding(table, grid, position="upstream")
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_golden_weights_load_into_the_tower() -> None:
    arrays = load_weights(DATA, "scclip_tiny_window.npz")
    tower = clip_vision_of(load_weights(DATA, "scclip_tiny_weights.npz"), num_heads=4)
    hidden = tower.encode_views(torch.from_numpy(arrays["image"])[None], position="upstream", num_blocks=11)
    for ours, theirs in zip(hidden.blocks, arrays["feats"], strict=True):
        expected = torch.from_numpy(theirs)
        torch.testing.assert_close(ours[0], expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_sides_that_are_no_multiple_of_the_patch_are_refused(vision: ClipVision) -> None:
    with pytest.raises(ShapeError, match="CLIP view of 40x32 px: sides must be multiples of the patch of 16"):
        vision.encode(pixels(1, 32, 40), position="native")
