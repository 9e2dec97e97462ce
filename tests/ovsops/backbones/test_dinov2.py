"""Patch tokens and CLS attention against transformers' own eager path."""

import pytest
import torch
from transformers import Dinov2WithRegistersModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.dinov2 import Dinov2, dinov2_features
from ovsops.errors import ShapeError


@pytest.fixture(scope="module")
def dino(dinov2_checkpoint: ResolvedCheckpoint) -> Dinov2:
    return Dinov2(dinov2_checkpoint, device="cpu", dtype=torch.float32)


def views(height: int, width: int, *, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(112, 112), (56, 84)])
def test_features_are_those_of_the_whole_model(
    dino: Dinov2, dinov2_checkpoint: ResolvedCheckpoint, size: tuple[int, int]
) -> None:
    eager = Dinov2WithRegistersModel.from_pretrained(
        str(dinov2_checkpoint.folder), attn_implementation="eager", local_files_only=True
    ).eval()
    pixels = views(*size)
    with torch.no_grad():
        whole = eager(pixels, output_attentions=True)
    found = dinov2_features(dino.model, pixels)
    grid = (size[0] // 14, size[1] // 14)
    torch.testing.assert_close(
        found.patch_tokens, whole.last_hidden_state[:, 5:].unflatten(1, grid), atol=1e-5, rtol=1e-5
    )
    row = whole.attentions[-1][:, :, 0, 5:]  # a softmax over all tokens, cut to the patches
    assert found.cls_patch_logits is not None
    torch.testing.assert_close(
        found.cls_patch_logits.flatten(2).softmax(-1), row / row.sum(-1, keepdim=True), atol=1e-6, rtol=1e-4
    )


def test_attention_is_left_out_when_nobody_asks(dino: Dinov2) -> None:
    pixels = views(56, 56).abs() * 50
    plain = dino.encode(pixels, with_attention=False)
    assert plain.cls_patch_logits is None
    torch.testing.assert_close(plain.patch_tokens, dino.encode(pixels, with_attention=True).patch_tokens)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused(dino: Dinov2) -> None:
    with pytest.raises(ShapeError, match="multiples of the patch of 14 px"):
        dino.encode(views(56, 60), with_attention=False)


def test_bfloat16_comes_back_as_float32_and_close(
    dinov2_checkpoint: ResolvedCheckpoint, dino: Dinov2
) -> None:
    low = Dinov2(dinov2_checkpoint, device="cpu", dtype=torch.bfloat16)
    pixels = views(56, 56).abs() * 50
    tokens = low.encode(pixels, with_attention=True).patch_tokens
    assert tokens.dtype == torch.float32
    exact = dino.encode(pixels, with_attention=True).patch_tokens
    assert torch.cosine_similarity(tokens, exact, dim=-1).min() > 0.99
