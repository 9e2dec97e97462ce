"""Keys of the last block against transformers' whole models, by a hook on the projection."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import Dinov2WithRegistersModel, ViTModel

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.dino import DinoKeys, Dinov2Keys, VfmKeys, dinov2_last_keys, load_vfm, vit_last_keys
from ovsops.errors import CheckpointError, ShapeError
from tests.tiny import checkpoints as tiny


@pytest.fixture(scope="module")
def vit_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(tiny.write_vit(tmp_path_factory.mktemp("vit")))))


def views(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def keys_by_hook(model: Any, projection: Any, **call: Any) -> Tensor:
    seen = []
    handle = projection.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(**call)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("size", [(96, 96), (48, 72), (8, 80)])
def test_dino_keys_are_those_of_the_whole_model(
    vit_checkpoint: ResolvedCheckpoint, size: tuple[int, int]
) -> None:
    whole = ViTModel.from_pretrained(str(vit_checkpoint.folder), add_pooling_layer=False).eval()
    pixels = views(*size)
    projected = keys_by_hook(
        whole,
        whole.layers[-1].attention.k_proj,
        pixel_values=pixels,
        interpolate_pos_encoding=True,
    )
    found = vit_last_keys(whole, pixels)
    assert found.shape == (2, 3, size[0] // 8, size[1] // 8, 16)
    flat = found.flatten(2, 3).transpose(1, 2).flatten(2)  # B P D
    torch.testing.assert_close(flat, projected[:, 1:], atol=1e-5, rtol=1e-5)


def test_dinov2_keys_are_those_of_the_whole_model(dinov2_checkpoint: ResolvedCheckpoint) -> None:
    whole = Dinov2WithRegistersModel.from_pretrained(str(dinov2_checkpoint.folder)).eval()
    pixels = views(56, 84)
    projected = keys_by_hook(whole, whole.encoder.layer[-1].attention.k_proj, pixel_values=pixels)
    flat = dinov2_last_keys(whole, pixels).flatten(2, 3).transpose(1, 2).flatten(2)
    torch.testing.assert_close(flat, projected[:, 5:], atol=1e-5, rtol=1e-5)


def test_positions_as_published_differ_from_the_native_ones_off_the_trained_grid(
    vit_checkpoint: ResolvedCheckpoint,
) -> None:
    vfm = DinoKeys(vit_checkpoint, device="cpu", dtype=torch.float32)
    trained, other = torch.rand(1, 3, 96, 96) * 255, torch.rand(1, 3, 64, 64) * 255
    torch.testing.assert_close(
        vfm.last_keys(trained, position="upstream"), vfm.last_keys(trained, position="native"), atol=0, rtol=0
    )
    moved = (vfm.last_keys(other, position="upstream") - vfm.last_keys(other, position="native")).abs().max()
    assert moved > 1e-4


def test_the_config_says_which_model_a_checkpoint_is(
    vit_checkpoint: ResolvedCheckpoint, dinov2_checkpoint: ResolvedCheckpoint
) -> None:
    dino = load_vfm(vit_checkpoint, device="cpu", dtype=torch.float32)
    dinov2 = load_vfm(dinov2_checkpoint, device="cpu", dtype=torch.float32)
    assert isinstance(dino, DinoKeys)
    assert isinstance(dinov2, Dinov2Keys)
    for vfm, patch in ((dino, 8), (dinov2, 14)):
        assert isinstance(vfm, VfmKeys)
        assert (vfm.patch_size, vfm.num_heads, vfm.head_width) == (patch, 3, 16)
        assert vfm.last_keys(torch.rand(1, 3, 2 * patch, 3 * patch) * 255).shape == (1, 3, 2, 3, 16)


def test_another_model_is_refused_with_the_way_out(clip_checkpoint: ResolvedCheckpoint) -> None:
    with pytest.raises(CheckpointError, match=r"model_type 'clip'.*facebook/dino-vitb8"):
        load_vfm(clip_checkpoint, device="cpu", dtype=torch.float32)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused(vit_checkpoint: ResolvedCheckpoint) -> None:
    vfm = load_vfm(vit_checkpoint, device="cpu", dtype=torch.float32)
    with pytest.raises(ShapeError, match="multiples of the patch of 8 px"):
        vfm.last_keys(torch.zeros(1, 3, 20, 16))


def test_bfloat16_comes_back_as_float32_and_close(vit_checkpoint: ResolvedCheckpoint) -> None:
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1)) * 255
    exact = DinoKeys(vit_checkpoint, device="cpu", dtype=torch.float32).last_keys(pixels)
    low = DinoKeys(vit_checkpoint, device="cpu", dtype=torch.bfloat16).last_keys(pixels)
    assert low.dtype == torch.float32
    assert torch.cosine_similarity(low, exact, dim=-1).min() > 0.98


def test_the_tiny_checkpoint_has_no_pooler_as_the_published_one_has_none(
    vit_checkpoint: ResolvedCheckpoint,
) -> None:
    with safe_open(str(Path(vit_checkpoint.folder) / "model.safetensors"), "pt") as file:
        names = list(file.keys())
    assert not [name for name in names if "pooler" in name]
    assert any("encoder.layer.0.attention" in name for name in names), names[:5]
