"""A training of FG-CLIP 2 starts from a SigLIP 2: stretched positions by hand, and what must stay as it was."""

import pytest
import torch
from transformers import Siglip2Config, Siglip2Model

from ovsops.backbones.fgclip2_start import fgclip2_from_siglip2, stretch_positions
from ovsops.backbones.untrained import randomize
from ovsops.backbones.untrained_fgclip2 import tiny_fgclip2_config
from ovsops.errors import ShapeError


def test_positions_by_hand() -> None:
    old = torch.tensor([[0.0], [1], [5], [7]])
    new = stretch_positions(old, keep_len=2)
    assert new.flatten().tolist() == [0, 1, 5, 5.5, 6, 6.5, 7, 7.5, 8, 8.5]


def test_a_line_stays_a_line() -> None:
    line = torch.arange(64.0)[:, None]
    new = stretch_positions(line)
    assert new.shape == (196, 1)
    torch.testing.assert_close(new[20:, 0], 20 + torch.arange(176) / 4)


@pytest.mark.parametrize(("num_old", "keep_len"), [(1, 0), (4, 5)])
def test_tables_that_cannot_be_stretched(num_old: int, keep_len: int) -> None:
    with pytest.raises(ShapeError, match=f"{num_old} positions of which {keep_len} are kept"):
        stretch_positions(torch.zeros(num_old, 2), keep_len=keep_len)


@pytest.fixture(scope="module")
def siglip2() -> Siglip2Model:
    config = tiny_fgclip2_config()
    model = Siglip2Model(
        Siglip2Config(text_config=config.text_config.to_dict(), vision_config=config.vision_config.to_dict())
    )
    randomize(model, seed=3)
    return model.eval().requires_grad_(False)


def test_it_begins_as_the_siglip_it_comes_from(siglip2: Siglip2Model) -> None:
    model = fgclip2_from_siglip2(siglip2).eval()
    ids = torch.randint(5, 90, (2, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        short, box = (model.embed_texts(ids, length=length) for length in ("short", "box"))
        torch.testing.assert_close(short, siglip2.text_model(input_ids=ids).pooler_output)
        torch.testing.assert_close(box, short)
        assert model.embed_texts(ids.repeat(1, 4)[:, :196], length="long").shape == short.shape
        patches = torch.randn(1, 12, 768, generator=torch.Generator().manual_seed(1))
        is_patch, grids = torch.ones(1, 12, dtype=torch.bool), torch.tensor([[3, 4]])
        pooled, _ = model.embed_patches(patches, is_patch, grids)
        expected = siglip2.vision_model(patches, is_patch.long(), grids).pooler_output
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(
        model.long_positions(),
        stretch_positions(siglip2.text_model.embeddings.position_embedding.weight),
    )


def test_gradients_reach_every_parameter_but_the_stored_probe(siglip2: Siglip2Model) -> None:
    model = fgclip2_from_siglip2(siglip2)
    ids = torch.randint(5, 90, (1, 196), generator=torch.Generator().manual_seed(0))
    texts = [
        model.embed_texts(ids[:, : model.num_tokens(length)], length=length)
        for length in ("short", "box", "long")
    ]
    is_patch = torch.ones(1, 12, dtype=torch.bool)
    pooled, tokens = model.embed_patches(torch.randn(1, 12, 768), is_patch, torch.tensor([[3, 4]]))
    total = sum(text.sum() for text in texts) + pooled.sum() + model.dense_features(tokens, is_patch).sum()
    total.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"dense_feature_head.probe", "logit_scale", "logit_bias"}


def test_lengths_must_agree(siglip2: Siglip2Model) -> None:
    with pytest.raises(ShapeError, match="give longtext_len=226"):
        fgclip2_from_siglip2(siglip2, keep_len=10)
