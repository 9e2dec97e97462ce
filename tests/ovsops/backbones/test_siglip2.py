"""SigLIP 2 against transformers' own forward passes: dense pooling, both families, the text tower's traps."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import Siglip2Model, SiglipModel

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.siglip2 import (
    SiglipNaflexVision,
    SiglipText,
    SiglipVision,
    load_siglip_vision,
    naflex_patches,
)
from ovsops.errors import CheckpointError, ShapeError


def pixels(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(0)) * 255


@pytest.fixture(scope="module")
def fixed(siglip_checkpoint: ResolvedCheckpoint) -> SiglipVision:
    return load_siglip_vision(siglip_checkpoint, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def naflex(naflex_checkpoint: ResolvedCheckpoint) -> SiglipNaflexVision:
    vision = load_siglip_vision(naflex_checkpoint, device="cpu", dtype=torch.float32)
    assert isinstance(vision, SiglipNaflexVision)
    return vision


@pytest.fixture(scope="module")
def text(siglip_checkpoint: ResolvedCheckpoint) -> SiglipText:
    return SiglipText(siglip_checkpoint, device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("family", ["fixed", "naflex"])
def test_a_dense_patch_is_the_pooling_head_under_a_one_patch_mask(
    family: str, request: pytest.FixtureRequest
) -> None:
    vision: SiglipVision = request.getfixturevalue(family)
    tokens = vision.encode(pixels(2, 3, 64, 96)).patch_tokens.flatten(1, 2)
    dense = vision.align(tokens)
    head, probe = vision.model.head, vision.model.head.probe.expand(2, -1, -1)
    for patch in range(tokens.shape[1]):
        blocked = torch.ones(1, tokens.shape[1], dtype=torch.bool)
        blocked[0, patch] = False
        with torch.no_grad():
            pooled = head.attention(probe, tokens, tokens, attn_mask=blocked)[0]
            expected = (pooled + head.mlp(head.layernorm(pooled)))[:, 0]
        torch.testing.assert_close(dense[:, patch], expected, atol=2e-6, rtol=1e-5)


def test_mixing_by_the_identity_changes_nothing_and_uniform_mixing_makes_all_patches_equal(
    fixed: SiglipVision,
) -> None:
    tokens = fixed.encode(pixels(2, 3, 64, 64)).patch_tokens.flatten(1, 2)
    num_patches = tokens.shape[1]
    identity = torch.eye(num_patches).expand(2, -1, -1)
    torch.testing.assert_close(fixed.align(tokens, identity), fixed.align(tokens), atol=2e-6, rtol=1e-5)
    uniform = fixed.align(tokens, torch.full((2, num_patches, num_patches), 1 / num_patches))
    torch.testing.assert_close(uniform, uniform[:, :1].expand_as(uniform), atol=1e-6, rtol=1e-5)


def test_fixed_tokens_and_pooling_are_those_of_the_whole_model(
    fixed: SiglipVision, siglip_checkpoint: ResolvedCheckpoint
) -> None:
    whole = SiglipModel.from_pretrained(str(siglip_checkpoint.folder), local_files_only=True).eval()
    image = pixels(2, 3, 128, 128)
    with torch.no_grad():
        expected = whole.vision_model(normalized(image, mean=SIGLIP_MEAN, std=SIGLIP_STD))
    tokens = fixed.encode(image).patch_tokens.flatten(1, 2)
    torch.testing.assert_close(tokens, expected.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fixed.pool(tokens), expected.pooler_output, atol=1e-5, rtol=1e-5)


def test_naflex_equals_the_padded_whole_model(
    naflex: SiglipNaflexVision, naflex_checkpoint: ResolvedCheckpoint
) -> None:
    """The whole model pads the smaller image; we group by size and pad nothing."""
    whole = Siglip2Model.from_pretrained(str(naflex_checkpoint.folder), local_files_only=True).eval()
    images = [pixels(3, 48, 80), pixels(3, 32, 32), pixels(3, 48, 80)[:, :, :].flip(2)]
    found = naflex.encode_ragged(images)
    patches = [naflex_patches(normalized(i[None], mean=SIGLIP_MEAN, std=SIGLIP_STD), 16)[0] for i in images]
    padded = torch.zeros(3, 15, patches[0].shape[-1])
    mask = torch.zeros(3, 15, dtype=torch.int64)
    for i, p in enumerate(patches):
        padded[i, : len(p)], mask[i, : len(p)] = p, 1
    shapes = torch.tensor([[3, 5], [2, 2], [3, 5]])
    with torch.no_grad():
        expected = whole.vision_model(
            padded, pixel_attention_mask=mask, spatial_shapes=shapes
        ).last_hidden_state
    for i, features in enumerate(found):
        tokens = features.patch_tokens
        assert tokens.shape[1:3] == tuple(shapes[i].tolist())
        torch.testing.assert_close(
            tokens.flatten(1, 2)[0], expected[i, : len(patches[i])], atol=1e-5, rtol=1e-4
        )


def test_naflex_patches_are_channel_last() -> None:
    image = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
    patches = naflex_patches(image, 2)
    assert patches.shape == (2, 6, 12)
    # patch (row 1, column 2): pixels (2, 4), (2, 5), (3, 4), (3, 5), each with its three channels
    expected = torch.stack([image[0, :, y, x] for y in (2, 3) for x in (4, 5)]).flatten()
    torch.testing.assert_close(patches[0, 5], expected)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused(fixed: SiglipVision) -> None:
    with pytest.raises(ShapeError, match="multiples of the patch of 16 px"):
        fixed.encode(pixels(1, 3, 60, 64))


def test_prompts_run_at_full_length_padded_right_with_one_eos(text: SiglipText) -> None:
    ids = text.tokenizer(["a CAT", "一只猫", "x" * 100])
    assert ids.shape == (3, 64)
    eos, pad = text.tokenizer.eos, text.tokenizer.pad
    assert (ids == eos).sum(dim=1).tolist() == [1, 1, 1]
    assert ids[0, 5] == eos  # a, space, c, a, t
    assert (ids[0, 6:] == pad).all()
    assert ids[2, -1] == eos  # cut, and still ended
    assert torch.equal(text.tokenizer(["A Cat"]), text.tokenizer(["a cat"]))
    assert not torch.equal(text.tokenizer(["一只猫"]), text.tokenizer(["一只狗"]))


def test_text_is_pooled_without_a_mask(text: SiglipText, siglip_checkpoint: ResolvedCheckpoint) -> None:
    whole = SiglipModel.from_pretrained(str(siglip_checkpoint.folder), local_files_only=True).eval()
    ids = text.tokenizer(["a cat", "a longer prompt of a dog"])
    with torch.no_grad():
        expected = whole.text_model(input_ids=ids).pooler_output
        masked = whole.text_model(input_ids=ids, attention_mask=(ids != 0).long()).pooler_output
    found = text.encode(["a cat", "a longer prompt of a dog"]).embeddings
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found - masked).abs().max() > 0.01  # the trap this test is here for


def test_duplicates_run_once_and_order_is_kept(text: SiglipText, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = text._embed

    def counted(prompts: list[str]) -> torch.Tensor:
        seen.extend(prompts)
        return original(prompts)

    monkeypatch.setattr(text, "_embed", counted)
    features = text.encode(["b", "a", "b", "c", "a"], batch_size=2)
    assert sorted(seen) == ["a", "b", "c"]
    assert features.prompts == ("b", "a", "b", "c", "a")
    torch.testing.assert_close(features.embeddings[0], features.embeddings[2])
    torch.testing.assert_close(features.embeddings[3:4], text.encode(["c"]).embeddings, atol=1e-5, rtol=1e-5)


def test_another_family_is_refused(dinov2_checkpoint: ResolvedCheckpoint) -> None:
    with pytest.raises(CheckpointError, match="'dinov2_with_registers'; siglip"):
        load_siglip_vision(dinov2_checkpoint, device="cpu", dtype=torch.float32)


def test_only_the_asked_tower_is_in_memory(
    fixed: SiglipVision, siglip_checkpoint: ResolvedCheckpoint
) -> None:
    stored = load_file(siglip_checkpoint.folder / "model.safetensors")
    loaded = {f"vision_model.{name}" for name, _ in fixed.model.named_parameters()}
    assert loaded == {name for name in stored if name.startswith("vision_model.")}


def test_a_folder_without_a_tokenizer_says_so(
    siglip_checkpoint: ResolvedCheckpoint, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("no_tokenizer")
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((siglip_checkpoint.folder / file).read_bytes())
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        SiglipText(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)
