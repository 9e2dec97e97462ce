"""Miniature models and their tokenizer: the real architectures, small, and the same on every machine."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovsops.backbones.miniature import (
    TEXT_LENGTH,
    miniature_clip,
    miniature_dino,
    miniature_dinov2,
    miniature_llmdet,
    miniature_sam3,
    miniature_siglip,
    save_half,
    write_bert_tokenizer,
    write_clip_tokenizer,
    write_word_tokenizer,
)
from ovsops.backbones.tokenizers import ClipTokenizer, SiglipTokenizer
from ovsops.backbones.wordpiece import END, STOP, WordPieces

WORDS = ("a", "ball", "red", "，", "色", "红", "球")
PAD, EOS, BOS, UNKNOWN = range(4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SiglipTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer") / "deep"
    write_word_tokenizer(folder, WORDS)
    return SiglipTokenizer(folder, length=8)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a red ball", [4, 6, 5]),
        ("红色球，", [9, 8, 10, 7]),  # characters stand alone, marks too
        ("a 红 ball", [4, 9, 5]),
        ("A Red BALL", [4, 6, 5]),
        ("a rèd ball", [4, UNKNOWN, 5]),  # accents are kept: another word
        ("a reddish ball", [4, UNKNOWN, 5]),  # a word is known as a whole or not at all
        ("a 大 ball!", [4, UNKNOWN, 5, UNKNOWN]),
        ("", []),
    ],
)
def test_words_and_chinese_characters(tokenizer: SiglipTokenizer, prompt: str, expected: list[int]) -> None:
    row = [*expected, EOS]
    assert tokenizer([prompt]).tolist() == [row + [PAD] * (8 - len(row))]


def test_a_text_that_is_too_long_is_cut_before_its_end_token(tokenizer: SiglipTokenizer) -> None:
    assert tokenizer(["ball " * 7]).tolist() == [[5] * 7 + [EOS]]
    assert tokenizer(["ball " * 20]).tolist() == [[5] * 7 + [EOS]]


def test_clip_reads_the_same_words_between_its_own_tokens(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path, WORDS)
    tokenizer = ClipTokenizer(tmp_path, length=8)
    start, end, unknown = range(3)
    rows = tokenizer(["a Red ball", "红色球，", "a reddish ball", "", "ball " * 20])
    assert rows == [
        [start, 3, 5, 4, end],
        [start, 8, 7, 9, 6, end],
        [start, 3, unknown, 4, end],
        [start, end],
        [start, *[4] * 6, end],
    ]
    config = miniature_clip(len(WORDS), seed=0).config.text_config
    assert (config.bos_token_id, config.eos_token_id, config.vocab_size) == (start, end, 3 + len(WORDS))


def test_clip_and_dino_have_equal_heads() -> None:
    """CASS matches them one by one."""
    clip, dino = miniature_clip(10, seed=0).config.vision_config, miniature_dino(seed=0).config
    for name in ("num_attention_heads", "hidden_size", "image_size", "patch_size"):
        assert getattr(clip, name) == getattr(dino, name), name


def test_clip_and_dino_parameters_are_counted_by_hand() -> None:
    layer = 2 * 256 + 4 * (128 * 128 + 128) + 2 * 128 * 256 + 256 + 128
    patches = 3 * 8 * 8 * 128
    vision = (
        patches + 128 + 257 * 128 + 2 * 256 + 6 * layer
    )  # no bias on patches; a norm before and one after
    text = (3 + 10) * 128 + TEXT_LENGTH * 128 + 2 * layer + 256
    clip = miniature_clip(10, seed=0)
    assert sum(p.numel() for p in clip.parameters()) == vision + text + 2 * 128 * 128 + 1
    assert float(clip.logit_scale.detach().exp()) == pytest.approx(1 / 0.07, rel=1e-4)
    dino = patches + 128 + 128 + 257 * 128 + 256 + 4 * layer
    assert sum(p.numel() for p in miniature_dino(seed=0).parameters()) == dino


def test_parameters_are_counted_by_hand() -> None:
    layer = 2 * 256 + 4 * (128 * 128 + 128)  # two norms, and query, key, value, output
    patches = 3 * 8 * 8 * 128 + 128
    siglip_mlp, text_mlp, dino_mlp = (2 * 128 * inner + inner + 128 for inner in (384, 256, 256))
    pooling = 128 + 4 * (128 * 128 + 128) + 256 + siglip_mlp  # probe, attention, norm, mlp
    vision = patches + 256 * 128 + 4 * (layer + siglip_mlp) + 256 + pooling
    text = (4 + 10) * 128 + TEXT_LENGTH * 128 + 2 * (layer + text_mlp) + 256 + (128 * 128 + 128)
    siglip = miniature_siglip(10, seed=0)
    assert sum(p.numel() for p in siglip.parameters()) == vision + text + 2  # scale and bias

    special = 128 + 128 + 4 * 128  # CLS, mask, registers
    dino = patches + special + 257 * 128 + 4 * (layer + dino_mlp + 2 * 128) + 256  # with two layer scales
    assert sum(p.numel() for p in miniature_dinov2(seed=0).parameters()) == dino
    assert siglip.training
    assert float(siglip.logit_scale.detach().exp()) == pytest.approx(10)
    assert float(siglip.logit_bias.detach()) == -10


def test_sam3_is_whole_and_small() -> None:
    """Windows of a quarter picture and whole blocks by turns; queries start at different boxes; no dropout."""
    model = miniature_sam3(10, seed=0).eval()
    assert sum(p.numel() for p in model.parameters()) < 1.6e6
    pixels, ids = torch.rand(2, 3, 128, 128), torch.tensor([[0, 4, 1]] * 2)
    with torch.no_grad():
        found = model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        again = model.train()(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
    assert found.pred_masks.shape == (2, 10, 32, 32)
    assert found.semantic_seg.shape == (2, 1, 32, 32)
    assert len({tuple(box) for box in found.pred_boxes[0].tolist()}) == 10
    assert float(found.semantic_seg.std()) > 0.05
    for name in ("pred_masks", "pred_logits", "pred_boxes", "presence_logits", "semantic_seg"):
        assert torch.equal(found[name], again[name]), name


@pytest.mark.parametrize(
    "build",
    [
        lambda seed: miniature_siglip(5, seed=seed),
        lambda seed: miniature_dinov2(seed=seed),
        lambda seed: miniature_clip(5, seed=seed),
        lambda seed: miniature_dino(seed=seed),
        lambda seed: miniature_sam3(5, seed=seed),
    ],
)
def test_a_seed_gives_the_same_weights_and_leaves_the_global_random_state(build) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build(7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build(7).state_dict(), build(8).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    matrices = [name for name, value in first.items() if value.ndim >= 2 and value.unique().numel() > 1]
    assert len(matrices) > 20
    assert not any(torch.equal(other[name], first[name]) for name in matrices)
    assert all(value.isfinite().all() for value in first.values())


def test_half_precision_keeps_every_name_and_rounds_once(tmp_path: Path) -> None:
    model = miniature_dinov2(seed=0)
    save_half(model, tmp_path / "dino")
    saved = load_file(tmp_path / "dino" / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(saved[name], value.half())
    assert model.embeddings.cls_token.dtype == torch.float32  # what is trained stays as it was
    assert {file.name for file in (tmp_path / "dino").iterdir()} == {"config.json", "model.safetensors"}


def test_llmdet_reads_the_same_words_between_the_separators_of_bert(tmp_path: Path) -> None:
    write_bert_tokenizer(tmp_path, ("a", "ball", ".", "red", "，", "色", "红", "球", "?"))
    pieces = WordPieces(tmp_path)
    first = END + 1
    expected = {
        "a Red ball": (first, first + 2, first + 1),
        "红色球": (first + 5, first + 4, first + 6),
        "ball. reddish": (first + 1, STOP, pieces.unknown),
    }
    assert {text: pieces(text).token_ids for text in expected} == expected


def test_llmdet_has_maps_of_8_and_16_pixels_and_no_shared_heads() -> None:
    model = miniature_llmdet(WORDS, seed=0)
    with torch.no_grad():
        levels, _ = model.model.backbone(
            torch.zeros(1, 3, 128, 128), torch.ones(1, 128, 128, dtype=torch.bool)
        )
    assert [tuple(level.shape[2:]) for level, _ in levels] == [(16, 16), (8, 8)]
    heads = [model.bbox_embed[layer].layers[0].weight for layer in range(2)]
    assert heads[0] is not heads[1]
    assert heads[0] is model.model.decoder.bbox_embed[0].layers[0].weight
    again = miniature_llmdet(WORDS, seed=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
