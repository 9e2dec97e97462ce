"""Shortcuts of the training are exact: one grid, the last token alone; and batches are those of the loader."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.backbones.fgclip2_model import TextLength
from ovsops.backbones.fgclip2_pixels import PatchBatch
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.training.fgclip2_module import (
    FgClip2Embedder,
    embed_last_token,
    embed_patches,
    load_fgclip2_to_train,
)
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from tests.ovsops.training.fgclip2_world import tiny_model


@pytest.mark.parametrize("length", ["short", "box", "long"])
def test_the_last_token_alone_gives_the_same_text_and_gradients(length: TextLength) -> None:
    model = tiny_model()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 100, (3, model.num_tokens(length)), generator=generator)
    found, whole = [], model.embed_texts(ids, length=length)
    for embedded in (whole, embed_last_token(model, ids, length=length)):
        model.zero_grad(set_to_none=True)
        embedded.square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(embed_last_token(model, ids, length=length), whole)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("grid", [(2, 3), (8, 8)])
def test_images_of_one_grid_need_no_mask(grid: tuple[int, int]) -> None:
    model = tiny_model()
    num_patches = grid[0] * grid[1]
    batch = PatchBatch(
        patches=torch.randn(2, num_patches, 768, generator=torch.Generator().manual_seed(0)),
        is_patch=torch.ones(2, num_patches, dtype=torch.bool),
        grids=torch.tensor([grid, grid]),
    )
    expected = model.embed_patches(batch.patches, batch.is_patch, batch.grids)
    for found, whole in zip(embed_patches(model, batch), expected, strict=True):
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)


def test_batches_are_seen_as_the_loader_sees_them(tmp_path: Path) -> None:
    """Images of two sizes, one of them without a region; texts of every length."""
    write_word_tokenizer(tmp_path / "words", FGCLIP2_WORDS)
    embedder = FgClip2Embedder(tiny_model(), tmp_path / "words", device="cpu")
    numbers = np.random.default_rng(0)
    images = tuple(
        numbers.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((40, 60), (50, 50), (64, 48))
    )
    boxes = torch.tensor([[3.0, 4.0, 30.0, 31.0], [0.0, 0.0, 60.0, 40.0], [5.0, 5.0, 12.0, 60.0]])
    box_images = torch.tensor([0, 0, 2])
    texts = {
        "short": ["a red ball on grass."],
        "box": ["medium red plain ball", "鱼"],
        "long": ["a fish on sand."],
    }
    embedder.export(tmp_path / "checkpoint")
    loaded = FgClip2(
        resolve(Checkpoint(source=str(tmp_path / "checkpoint"))), device="cpu", dtype=torch.float32
    )
    embedder = FgClip2Embedder(
        load_fgclip2_to_train(resolve(Checkpoint(source=str(tmp_path / "checkpoint")))),
        tmp_path / "checkpoint",
        device="cpu",
    )
    with torch.no_grad():
        pooled, tokens, batch = embedder.images(images)
        regions = embedder.regions(tokens, batch, [i.shape[:2] for i in images], boxes, box_images)
        seen = loaded.encode_images(images)
        for row, image in enumerate(seen):
            torch.testing.assert_close(F.normalize(pooled[row], dim=-1), image.pooled, atol=1e-5, rtol=1e-4)
        expected = torch.cat([loaded.region_features(seen[i], boxes[box_images == i])[0] for i in (0, 1, 2)])
        torch.testing.assert_close(F.normalize(regions, dim=-1), expected, atol=1e-5, rtol=1e-4)
        lengths: tuple[TextLength, ...] = ("short", "box", "long")
        for length in lengths:
            found = F.normalize(embedder.texts(texts[length] * 2, length=length), dim=-1)
            own = loaded.encode_text(texts[length] * 2, length=length)
            torch.testing.assert_close(found, own, atol=1e-5, rtol=1e-4)
