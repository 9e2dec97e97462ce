"""The CLIP program: what a window shows, what is said of it, and that the towers it exports are the trained ones."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.clip import ClipText
from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.errors import ConfigError
from ovsops.losses.infonce import infonce_loss
from ovsops.miniature.attributes import LANGUAGES, NOUNS, STUFF
from ovsops.training.clip import ClipProgram, ClipProgramConfig, contrast_with_truth, kept_tokens
from ovsops.training.loop import Progress
from ovsops.training.scenes import ABSENT, SceneBank
from tests.ovsops.training.programs import (
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = ClipProgramConfig(batch_size=4, windows_per_step=12, window_sides=(4,), windows_only_steps=1)
WEIGHTED = replace(CONFIG, caption_weight=3.0, window_weight=5.0, label_weight=7.0, translation_weight=11.0)
GRID = 16


@pytest.fixture(scope="module")
def trained(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> tuple[ClipProgram, list[Progress]]:
    folder = tmp_path_factory.mktemp("clip")
    program = ClipProgram(bank, CONFIG, folder / "work")
    return program, rows_on_one_batch(program, folder, at=1)


@pytest.fixture(scope="module")
def program(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> ClipProgram:
    """Untrained; nothing may step it."""
    return ClipProgram(bank, CONFIG, tmp_path_factory.mktemp("untrained"))


def test_the_loss_falls_on_one_batch(trained: tuple[ClipProgram, list[Progress]]) -> None:
    rows = trained[1]
    assert rows[0].losses.keys() == {"windows", "labels", "translations", "captions", "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("windows", "labels", "captions", "total"):
        assert rows[-1].losses[name] < 0.95 * rows[0].losses[name], name


def test_a_step_is_the_same_whatever_was_drawn_before(program: ClipProgram) -> None:
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again
    with torch.no_grad():
        assert values(program.losses(2)) != first


def test_captions_come_in_after_the_windows(program: ClipProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "config", WEIGHTED)
    with torch.no_grad():
        before, after = values(program.losses(0)), values(program.losses(1))
    assert before["captions"] == 0 < after["captions"]
    for losses in (before, after):
        expected = 3 * losses["captions"] + 5 * losses["windows"] + 7 * losses["labels"]
        assert losses["total"] == pytest.approx(expected + 11 * losses["translations"], rel=1e-5)


def test_a_label_head_that_says_nothing_costs_what_guessing_costs(bank: SceneBank, tmp_path: Path) -> None:
    blank = ClipProgram(bank, CONFIG, tmp_path)
    torch.nn.init.zeros_(blank.module.label_head.weight)
    torch.nn.init.zeros_(blank.module.label_head.bias)
    with torch.no_grad():
        assert values(blank.losses(0))["labels"] == pytest.approx(math.log(20), rel=1e-5)


def test_gradients_reach_every_parameter(program: ClipProgram) -> None:
    assert without_gradient(program, step=1) == set()


def test_a_window_around_a_thing_shows_it(program: ClipProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "config", replace(CONFIG, thing_share=1.0, windows_per_step=60))
    rows = torch.arange(4)
    windows = program.windows(rows, torch.Generator().manual_seed(0))
    assert windows.patches.shape == (60, 16)
    for scene, patches, about in zip(windows.rows, windows.patches, windows.about, strict=True):
        y, x = patches // GRID, patches % GRID
        assert (y.unique().numel(), x.unique().numel()) == (4, 4)
        assert int(y.max() - y.min()) == int(x.max() - x.min()) == 3  # a square without gaps, inside the grid
        mask = program.bank.instances[rows[scene]] == int(about) + 1
        top, left = int(y.min()) * 8, int(x.min()) * 8
        assert mask[top : top + 32, left : left + 32].any()


def test_what_a_window_shows_by_hand(bank: SceneBank, tmp_path: Path) -> None:
    instances = torch.zeros(2, 128, 128, dtype=torch.uint8)
    semantic = torch.full((2, 128, 128), 13, dtype=torch.uint8)  # grass
    semantic[:, 64:] = 14  # sand
    instances[0, :16, :16], semantic[0, :16, :16] = 1, 1
    hand = replace(
        bank, images=bank.images[:2], instances=instances, semantic=semantic, codes=bank.codes[:2, :1]
    )
    hand = replace(hand, things=(bank.things[0][:1], bank.things[1][:1]))
    config = replace(CONFIG, batch_size=2, window_sides=(8,), thing_share=0.0, windows_per_step=200)
    program = ClipProgram(hand, config, tmp_path)
    windows = program.windows(torch.arange(2), torch.Generator().manual_seed(0))
    seen = set()
    for scene, patches, about, shown in zip(*vars(windows).values(), strict=True):
        top, left = int(patches[0]) // GRID, int(patches[0]) % GRID
        grass = max(0, 8 - top) / 8
        has_thing = (
            scene == 0 and top <= 1 and left <= 1 and (top, left) != (1, 1)
        )  # all or half of its 2 x 2
        whole_thing = scene == 0 and (top, left) == (0, 0)
        if whole_thing or not has_thing:
            expected = {0} if whole_thing else set()
            expected |= {1} if grass >= 0.6 else {2} if grass <= 0.4 else set()
            found = set(shown.nonzero().flatten().tolist())
            assert found == expected | {int(about)}, (scene, top, left)
            seen |= found
        assert int(about) in {1, 2}
    assert {1, 2} <= seen


def test_phrases_say_what_their_windows_are_about(program: ClipProgram) -> None:
    rows = torch.tensor([0, 3, 5, 6])
    windows = program.windows(rows, torch.Generator().manual_seed(1))
    phrases, codes = program.phrases(rows, windows, torch.Generator().manual_seed(2))
    names = (*NOUNS, *STUFF)
    assert len(phrases["en"]) == len(phrases["zh"]) == len(codes) > 2
    assert len(set(map(tuple, codes.tolist()))) == len(codes)  # no phrase twice: none is its own negative
    for language in LANGUAGES:
        for text, code in zip(phrases[language], codes.tolist(), strict=True):
            assert names[code[0]].in_language(language) in text
    assert all(code[1:] == [ABSENT] * 4 for code in codes.tolist() if code[0] >= len(NOUNS))


def test_kept_tokens_are_cls_and_a_share_of_the_patches() -> None:
    tokens = torch.arange(2 * 9.0).reshape(2, 9, 1)
    found = kept_tokens(tokens, 0.5, torch.Generator().manual_seed(0))
    assert found.shape == (2, 5, 1)
    for row, kept in zip(tokens, found, strict=True):
        assert kept[0] == row[0]
        assert set(kept[1:].flatten().tolist()) < set(row[1:].flatten().tolist())
        assert kept.unique().numel() == 5
    everything = kept_tokens(tokens, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(everything.sort(dim=1).values, tokens)


def test_contrast_is_infonce_where_every_text_has_one_image() -> None:
    texts, images = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    found = contrast_with_truth(texts, images, torch.eye(6, dtype=torch.bool), logit_scale=5.0)
    torch.testing.assert_close(found, infonce_loss(texts, images, logit_scale=5.0))


def test_contrast_with_several_truths_by_hand() -> None:
    """Similarities 1 and 0: a text of two true images costs half of each one's log share."""
    texts, images = torch.eye(2), torch.eye(2)
    truth = torch.tensor([[True, True], [False, False]])  # the second text is true of nothing
    one, zero = -F.log_softmax(torch.tensor([1.0, 0.0]), dim=0)
    expected = (
        (one + zero) / 2 + (one + zero) / 2
    ) / 2  # the first text; both images by their only true text
    assert float(contrast_with_truth(texts, images, truth, logit_scale=1.0)) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_sides": ()}, r"window_sides is .* expected one side or more"),
        ({"window_sides": (0,)}, r"window_sides is .* expected one side or more"),
        ({"kept_share": 0.0}, r"must lie in \(0, 1\]"),
        ({"windows_per_step": 1}, "2 or more"),
        ({"batch_size": 1}, r"program\.batch_size is 1; it must be 2 or more"),
        ({"said_share": 1.5}, r"program\.said_share is 1\.5"),
        ({"windows_only_steps": -1}, r"program\.windows_only_steps is -1"),
        ({"window_weight": -1.0}, r"program\.window_weight is -1\.0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipProgramConfig(**changes)  # type: ignore[arg-type]


def test_a_window_over_the_grid_is_refused(bank: SceneBank, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reach over the grid of 16 patches"):
        ClipProgram(bank, replace(CONFIG, window_sides=(4, 17)), tmp_path)


def test_building_a_program_draws_nothing_from_the_global_random_state(
    bank: SceneBank, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    ClipProgram(bank, CONFIG, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_exported_checkpoint_gives_the_trained_features(
    trained: tuple[ClipProgram, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    place = resolve(Checkpoint(source=str(tmp_path / "checkpoint")))
    text = ClipText(place, device="cpu", dtype=torch.float32)
    captions = [bank.captions[language, "long"][i] for language in LANGUAGES for i in range(3)]
    assert text.tokenizer(captions) == program.tokenizer(captions)
    with torch.no_grad():
        said = program._embed(captions)
        views = normalized(bank.images[:2].float(), mean=CLIP_MEAN, std=CLIP_STD)
        whole = program.model.get_image_features(pixel_values=views).pooler_output
        pooled = program._project(program._cls(program.model.vision_model.embeddings(views)))
    assert torch.cosine_similarity(text.encode(captions).embeddings, said, dim=-1).min() > 0.9999
    torch.testing.assert_close(pooled, whole, atol=1e-5, rtol=1e-5)
