"""The SigLIP 2 program: which region each phrase is true of, and that the towers it exports are the trained ones."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.siglip2 import SiglipText, SiglipVision
from ovsops.errors import ConfigError
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, NOUNS, STUFF
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.loop import LoopConfig, Progress, make_optimizer, take_step
from ovsops.training.scenes import ABSENT, SceneBank, bank_of, phrase_codes, thing_codes
from ovsops.training.siglip2 import SiglipProgram, SiglipProgramConfig
from tests.ovsops.training.programs import (
    Repeated,
    losses_whatever_was_drawn_before,
    rows_on_one_batch,
    values,
    without_gradient,
)

CONFIG = SiglipProgramConfig(batch_size=4, phrases_per_step=6)
TERMS = {"captions", "regions", "patches", "labels", "translations"}


@dataclass(frozen=True, kw_only=True)
class Told:
    """Attributes of a thing, without a picture."""

    noun: str
    colour: str
    pattern: str = "plain"
    material: str = "matte"
    size: str = "medium"


@pytest.fixture(scope="module")
def trained(
    bank: SceneBank, tmp_path_factory: pytest.TempPathFactory
) -> tuple[SiglipProgram, list[Progress]]:
    folder = tmp_path_factory.mktemp("siglip2")
    program = SiglipProgram(bank, replace(CONFIG, ramp_steps=0), folder / "work")
    return program, rows_on_one_batch(program, folder)


@pytest.fixture(scope="module")
def program(bank: SceneBank, tmp_path_factory: pytest.TempPathFactory) -> SiglipProgram:
    """Untrained; nothing may step it."""
    return SiglipProgram(bank, CONFIG, tmp_path_factory.mktemp("untrained"))


def test_the_loss_falls_on_one_batch(trained: tuple[SiglipProgram, list[Progress]]) -> None:
    rows = trained[1]
    assert rows[0].losses.keys() == {*TERMS, "total"}
    assert all(math.isfinite(value) for row in rows for value in row.losses.values())
    for name in ("captions", "regions", "patches", "labels", "total"):
        assert rows[-1].losses[name] < rows[0].losses[name], name
    assert rows[-1].losses["total"] < 0.9 * rows[0].losses["total"]


def test_a_step_is_the_same_whatever_was_drawn_before(program: SiglipProgram) -> None:
    first, again = losses_whatever_was_drawn_before(program, 1)
    assert first == again
    with torch.no_grad():
        assert values(program.losses(0)) != first


def test_gradients_reach_every_parameter(program: SiglipProgram) -> None:
    assert without_gradient(program) == set()


@pytest.mark.parametrize(
    ("ramp_steps", "step", "share"), [(4, 0, 1 / 16), (4, 1, 1 / 4), (4, 3, 1.0), (4, 5, 1.0), (0, 0, 1.0)]
)
def test_captions_and_regions_come_in_as_the_square_of_the_steps_done(
    ramp_steps: int, step: int, share: float, program: SiglipProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = {"region_weight": 3.0, "patch_weight": 5.0, "label_weight": 7.0, "translation_weight": 11.0}
    monkeypatch.setattr(program, "config", replace(CONFIG, batch_size=2, ramp_steps=ramp_steps, **weights))
    with torch.no_grad():
        losses = values(program.losses(step))
    expected = share * (losses["captions"] + 3 * losses["regions"])
    expected += 5 * losses["patches"] + 7 * losses["labels"] + 11 * losses["translations"]
    assert losses["total"] == pytest.approx(expected, rel=1e-5)


def test_towers_that_say_nothing_cost_what_guessing_costs(bank: SceneBank, tmp_path: Path) -> None:
    blank = SiglipProgram(bank, CONFIG, tmp_path)
    with torch.no_grad():
        blank.module.patch_scale.fill_(-100.0)
        blank.module.label_head.weight.zero_()
        blank.module.label_head.bias.zero_()
        losses = values(blank.losses(0))
    assert losses["patches"] == pytest.approx(math.log(20), rel=1e-5)  # 20 classes alike, in both languages
    assert losses["labels"] == pytest.approx(math.log(20), rel=1e-5)


def test_phrases_are_the_class_names_then_what_is_said_of_things(program: SiglipProgram) -> None:
    rows = torch.tensor([0, 3, 5])
    spoken, codes = program._phrases(rows, torch.Generator().manual_seed(0))
    assert spoken["en"][:20] == list(CLASS_NAMES)
    assert spoken["zh"][:20] == [word.zh for word in (*NOUNS, *STUFF)]
    assert codes[:20, 0].tolist() == list(range(20))
    assert (codes[:20, 1:] == ABSENT).all()
    assert len(spoken["en"]) == len(spoken["zh"]) == len(codes) > 20
    assert len(set(map(tuple, codes.tolist()))) == len(codes)  # no phrase twice: none is its own negative
    for language in LANGUAGES:
        assert len(set(spoken[language])) == len(codes)
    things = [thing for row in rows.tolist() for thing in program.bank.things[row]]
    for text, code in zip(spoken["en"][20:], codes[20:], strict=True):
        meant = [t for t in things if text.split()[-1] == t.noun and set(text.split()) <= full_words(t)]
        assert meant
        assert any(code.tolist() == phrase_codes(t, said_of(text, t)) for t in meant)


def full_words(thing: object) -> set[str]:
    return {getattr(thing, family) for family in ("noun", "colour", "pattern", "material", "size")}


def said_of(text: str, thing: object) -> set[str]:
    return {f for f in ("colour", "pattern", "material", "size") if getattr(thing, f) in text.split()}


def test_captions_are_those_of_their_scene(program: SiglipProgram) -> None:
    rows = torch.tensor([2, 7, 4] * 10)
    captions = program._captions(rows, torch.Generator().manual_seed(0))
    kinds = set()
    for row, caption in zip(rows.tolist(), captions, strict=True):
        kinds |= {kind for kind, of_kind in program.bank.captions.items() if of_kind[row] == caption}
        assert any(of_kind[row] == caption for of_kind in program.bank.captions.values())
    assert kinds == set(program.bank.captions)  # both languages, both lengths


HAND = (
    (
        Told(noun="ball", colour="red", pattern="striped"),
        Told(noun="ball", colour="red", size="big"),
        Told(noun="fish", colour="blue"),  # a quarter of a patch: out of sight
    ),
    (Told(noun="ball", colour="blue"),),
)
PHRASES = {"red": phrase_codes(HAND[0][0], {"colour"}), "striped": phrase_codes(HAND[0][0], {"pattern"})}


def hand_made(bank: SceneBank) -> SceneBank:
    """Two scenes on 128 px: grass above sand with two balls and a crumb of a fish; a ball on snow."""
    instances = torch.zeros(2, 128, 128, dtype=torch.uint8)
    semantic = torch.full((2, 128, 128), 13, dtype=torch.uint8)
    semantic[0, 64:] = 14
    semantic[1] = 19
    instances[0, :16, :16], instances[0, 80:96, 80:112], instances[0, 40:44, 40:48] = 1, 2, 3
    instances[1, 8:24, 8:24] = 1
    semantic[0][(instances[0] == 1) | (instances[0] == 2)] = 1
    semantic[0][instances[0] == 3] = 12
    semantic[1][instances[1] == 1] = 1
    codes = torch.full((2, 3, 5), ABSENT)
    for n, things in enumerate(HAND):
        for t, thing in enumerate(things):
            codes[n, t] = torch.tensor(thing_codes(thing))
    return replace(
        bank, images=bank.images[:2], instances=instances, semantic=semantic, codes=codes, things=HAND
    )


NAMES = [[c, *[ABSENT] * 4] for c in (0, 11, 12, 13, 18)]  # ball, fish, grass, sand, snow
TEXTS = [*NAMES, *PHRASES.values()]
REGIONS = {  # (is thing): which texts are true: ball fish grass sand snow | red ball, striped ball
    "striped red ball": (1.0, [1, 0, 0, 0, 0, 1, 1]),
    "big red ball": (1.0, [1, 0, 0, 0, 0, 1, 0]),
    "grass": (0.25, [0, 0, 1, 0, 0, 0, 0]),
    "sand": (0.25, [0, 0, 0, 1, 0, 0, 0]),
    "blue ball": (1.0, [1, 0, 0, 0, 0, 0, 0]),
    "snow": (0.25, [0, 0, 0, 0, 1, 0, 0]),
}


def test_truth_of_regions_and_phrases_by_hand(bank: SceneBank, tmp_path: Path) -> None:
    """The loss picks one text at a time: the bias is enormous, so that only false regions cost, or only true ones."""
    config = SiglipProgramConfig(batch_size=2, stuff_share=0.25)
    program = SiglipProgram(hand_made(bank), config, tmp_path)
    tokens = torch.randn(2, 256, 128, generator=torch.Generator().manual_seed(0))
    texts = torch.randn(len(TEXTS), 128, generator=torch.Generator().manual_seed(1))
    total_weight = sum(weight for weight, _ in REGIONS.values())
    for place, code in enumerate(TEXTS):
        one, said = texts[place : place + 1], torch.tensor([code])
        with torch.no_grad():
            program.module.region_scale.fill_(-100.0)  # what is similar to what does not count
            program.module.region_bias.fill_(-50.0)  # each true pair costs 50, each false one nothing
            found = float(program._region_loss(torch.tensor([0, 1]), tokens, (one, one), said))
        true_weight = sum(weight for weight, truth in REGIONS.values() if truth[place])
        assert found == pytest.approx(2 * 50 * true_weight / total_weight, rel=1e-4), code  # two languages


def test_the_region_loss_is_the_sigmoid_of_pooled_regions(bank: SceneBank, tmp_path: Path) -> None:
    config = SiglipProgramConfig(batch_size=2, stuff_share=0.25)
    program = SiglipProgram(hand_made(bank), config, tmp_path)
    head = program.module.model.vision_model.head
    tokens = torch.zeros(2, 256, 128)
    patterns = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    grid = tokens.view(2, 16, 16, 128)  # each region's patches hold one vector, so that pooling finds it
    grid[0, :8], grid[0, 8:], grid[1] = patterns[2], patterns[3], patterns[5]
    grid[0, :2, :2], grid[0, 10:12, 10:14], grid[1, 1:3, 1:3] = patterns[0], patterns[1], patterns[4]
    texts = [torch.randn(len(TEXTS), 128, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    with torch.no_grad():
        found = program._region_loss(torch.tensor([0, 1]), tokens, (texts[0], texts[1]), torch.tensor(TEXTS))
        alone = F.linear(
            patterns, *(part[256:] for part in (head.attention.in_proj_weight, head.attention.in_proj_bias))
        )
        pooled = head.attention.out_proj(alone)
        pooled = F.normalize(pooled + head.mlp(head.layernorm(pooled)), dim=-1)
    expected = 0.0
    for region, (weight, truth) in zip(pooled, REGIONS.values(), strict=True):
        for language in texts:
            for text, is_true in zip(language, truth, strict=True):
                logit = 10 * float(region @ F.normalize(text, dim=-1)) - 4
                expected += weight * math.log1p(math.exp(-logit if is_true else logit))
    total_weight = sum(weight for weight, _ in REGIONS.values())
    assert float(found) == pytest.approx(expected / total_weight, rel=1e-4)


def test_building_a_program_draws_nothing_from_the_global_random_state(
    bank: SceneBank, tmp_path: Path, program: SiglipProgram
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = SiglipProgram(bank, CONFIG, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    for (name, found), (_, expected) in zip(
        again.module.named_parameters(), program.module.named_parameters(), strict=True
    ):
        assert torch.equal(found, expected), name


def test_the_exported_checkpoint_gives_the_trained_features(
    trained: tuple[SiglipProgram, list[Progress]], bank: SceneBank, tmp_path: Path
) -> None:
    program = trained[0]
    program.export(tmp_path / "checkpoint")
    place = resolve(Checkpoint(source=str(tmp_path / "checkpoint")))
    vision = SiglipVision(place, device="cpu", dtype=torch.float32)
    text = SiglipText(place, device="cpu", dtype=torch.float32)
    pixels = bank.images[:2].float()
    captions = [bank.captions[language, "long"][0] for language in LANGUAGES]
    model = program.module.model
    with torch.no_grad():
        views = normalized(pixels, mean=SIGLIP_MEAN, std=SIGLIP_STD)
        seen = model.vision_model(pixel_values=views)
        said = model.text_model(input_ids=program.tokenizer(captions)).pooler_output
    tokens = vision.encode(pixels).patch_tokens.flatten(1, 2)
    embeddings = text.encode(captions).embeddings
    pooled = vision.pool(tokens)
    assert torch.equal(text.tokenizer(captions), program.tokenizer(captions))
    for found, expected in ((tokens, seen.last_hidden_state), (pooled, seen.pooler_output)):
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)  # weights were rounded to float16
    cosines = torch.cosine_similarity(embeddings, said, dim=-1)
    assert cosines.min() > 0.9999


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_on_cuda_learns_what_float32_learns(bank: SceneBank, tmp_path: Path) -> None:
    """Terms of the first step within the rounding of bfloat16, weights in float32, and a loss that falls."""
    found: dict[str, list[dict[str, float]]] = {}
    for precision in ("float32", "auto"):
        program = SiglipProgram(bank, replace(CONFIG, ramp_steps=0), tmp_path, device="cuda")
        loop = LoopConfig(num_steps=8, learning_rate=1e-3, warmup_steps=0, precision=precision)
        optimizer = make_optimizer(program.module, loop)
        repeated = Repeated(program)
        found[precision] = [take_step(repeated, optimizer, step, 1e-3, loop) for step in range(8)]
        assert {p.dtype for p in program.module.parameters()} == {torch.float32}
    first, mixed = found["float32"][0], found["auto"][0]
    assert mixed != first  # autocast was on
    for name, value in first.items():
        assert mixed[name] == pytest.approx(value, rel=0.05), name
    assert found["auto"][-1]["total"] < 0.9 * mixed["total"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"batch_size": 0}, r"program\.batch_size is 0; it must be 1 or more"),
        ({"phrases_per_step": -1}, r"program\.phrases_per_step is -1; it must be 0 or more"),
        ({"label_weight": -1.0}, r"program\.label_weight is -1\.0; it must be 0 or more"),
        ({"patch_weight": math.nan}, r"program\.patch_weight is nan"),
        ({"long_share": 2.0}, r"program\.long_share is 2\.0; it must lie in \[0, 1\]"),
        ({"seed": -1}, r"program\.seed is -1"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SiglipProgramConfig(**fields)  # type: ignore[arg-type]


def test_scenes_of_another_size_are_refused(tmp_path: Path) -> None:
    small = bank_of([draw_scene(seeds_of("train")[0], SceneConfig(size=96))])
    with pytest.raises(
        ConfigError, match=r"are 96x96 pixels .* learns from 128x128: set input\.world\.size to 128"
    ):
        SiglipProgram(small, SiglipProgramConfig(batch_size=1), tmp_path)
