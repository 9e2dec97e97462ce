"""The mapper program: Talk2DINO by default, every other term by its weight, the teacher out of the gradient's way."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import CheckpointError, ConfigError, TrainingError
from ovsops.losses.infonce import symmetric_infonce
from ovsops.mapper.alignment import head_embeddings, text_head_similarity
from ovsops.mapper.model import load_mapper
from ovsops.training.curve import read_curve
from ovsops.training.loop import LoopConfig, train
from ovsops.training.mapper import MapperProgram
from ovsops.training.mapper_config import TERMS, MapperProgramConfig
from ovsops.training.mapper_module import CONSTANTS_FILE, MapperConstants, MapperModule, load_constants
from ovsops.training.mapper_terms import patch_loss, region_loss, weighted_mean
from ovsops.training.scenes import ABSENT, batch_indices
from tests.ovsops.training.mapper_world import NUM_SCENES, World

TALK2DINO = MapperProgramConfig(batch_size=8, grids=(4,))
EVERYTHING = MapperProgramConfig(
    batch_size=6,
    grids=(4, 6),
    learn_fusion=True,
    distilled_scenes=6,
    num_crops=2,
    crop_grid=3,
    **{f"{term}_weight": 0.5 for term in TERMS},
)
LOOP = LoopConfig(num_steps=30, learning_rate=3e-3, warmup_steps=2, log_every=5, save_every=10)


def build(world: World, config: MapperProgramConfig, **fields: object) -> MapperProgram:
    views = world.views(with_siglip=config.learn_fusion) if config.is_distilled else None
    return MapperProgram(world.features, config, views=views, **fields)  # type: ignore[arg-type]


def gradients(program: MapperProgram, step: int = 0) -> dict[str, Tensor]:
    program.module.zero_grad(set_to_none=True)
    program.losses(step)["total"].backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in program.module.named_parameters() if p.grad is not None}


def test_with_every_extra_weight_zero_it_is_symmetric_infonce_of_the_same_pairs(world: World) -> None:
    config = replace(TALK2DINO, languages=("en",), long_share=1.0)
    program = build(world, config)
    losses = program.losses(3)
    rows = batch_indices(3, num_scenes=24, batch_size=8, seed=0)
    grid = world.features.grid(4)
    heads = head_embeddings(grid.patch_tokens[rows].float(), grid.cls_logits[rows].float())
    captions = world.text.encode([world.bank.captions["en", "long"][row] for row in rows.tolist()]).embeddings
    with torch.no_grad():
        similarity = text_head_similarity(program.module.student.psi(captions.clone()), heads)
    expected = symmetric_infonce(similarity, logit_scale=1 / 0.07)
    torch.testing.assert_close(losses["total"].detach(), expected, atol=2e-4, rtol=1e-4)
    assert losses.keys() == {"infonce", "total"}
    upstream = build(world, replace(config, reduction="upstream")).losses(3)["total"]
    torch.testing.assert_close(upstream * 64, losses["total"])


def planted(world: World) -> World:
    """Captions are a linear image of what the first head of their scene looks at: a map that psi can learn."""
    random = torch.Generator().manual_seed(0)
    grid = replace(
        world.features.grid(4),
        patch_tokens=torch.randn(NUM_SCENES, 16, 48, generator=random).half(),
        cls_logits=(4 * torch.randn(NUM_SCENES, 3, 16, generator=random)).half(),
    )
    heads = head_embeddings(grid.patch_tokens.float(), grid.cls_logits.float())[:, 0]
    texts = F.normalize(heads, dim=-1) @ torch.randn(48, world.features.text_width, generator=random)
    table = replace(world.features.texts, captions=dict.fromkeys(world.features.texts.captions, texts))
    return replace(world, features=replace(world.features, grids={4: grid}, texts=table))


def test_it_learns_which_head_a_text_means(world: World, tmp_path: Path) -> None:
    program = build(planted(world), TALK2DINO)
    assert program.losses(0)["infonce"].item() > 1.8  # chance is log 8 = 2.08
    train(program, replace(LOOP, num_steps=150, learning_rate=1e-2), tmp_path)
    rows = read_curve(tmp_path / "curve.csv")
    assert rows[-1]["infonce"] < 0.1


def test_a_resumed_run_gives_the_same_curve_and_weights(world: World, tmp_path: Path) -> None:
    straight = build(world, EVERYTHING)
    train(straight, LOOP, tmp_path / "straight")
    train(build(world, EVERYTHING), LOOP, tmp_path / "killed", should_stop=lambda: True)  # after one step
    steps = iter(range(12))
    train(build(world, EVERYTHING), LOOP, tmp_path / "killed", should_stop=lambda: next(steps) == 11)
    resumed = build(world, EVERYTHING)
    train(resumed, LOOP, tmp_path / "killed")
    assert read_curve(tmp_path / "straight" / "curve.csv") == read_curve(tmp_path / "killed" / "curve.csv")
    for name, value in straight.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


@pytest.mark.parametrize("config", [TALK2DINO, EVERYTHING], ids=["talk2dino", "everything"])
def test_gradients_reach_the_trainable_part_and_nothing_else(
    world: World, config: MapperProgramConfig
) -> None:
    program = build(world, config)
    found = gradients(program)
    wanted = {name for name, p in program.module.named_parameters() if p.requires_grad}
    assert set(found) == wanted
    assert all(gradient.any() for gradient in found.values())
    assert not any(name.startswith("teacher") for name in found)
    scales = {name for name in wanted if not name.startswith("student")}
    assert len(scales) == (5 if config is EVERYTHING else 0)
    for tower in (world.dino, world.siglip, world.text):
        assert all(p.grad is None for p in tower.model.parameters())


def test_the_teacher_follows_with_its_momentum(world: World) -> None:
    program = build(world, replace(EVERYTHING, teacher_momentum=0.75))
    before = program.module.teacher.psi.linears[0].weight.clone()
    with torch.no_grad():
        program.module.student.psi.linears[0].weight.add_(1.0)
    program.after_step(0)
    torch.testing.assert_close(program.module.teacher.psi.linears[0].weight, before + 0.25)
    plain = build(world, TALK2DINO)
    with torch.no_grad():
        plain.module.student.psi.linears[0].weight.add_(1.0)
    plain.after_step(0)
    torch.testing.assert_close(plain.module.teacher.psi.linears[0].weight, before)


@pytest.mark.parametrize("term", TERMS)
def test_switching_a_term_off_leaves_the_others_as_they_were(world: World, term: str) -> None:
    """An ablation of one field: same scenes, same captions, same crops."""
    everything = build(world, EVERYTHING).losses(2)
    without = build(world, replace(EVERYTHING, **{f"{term}_weight": 0.0})).losses(2)  # type: ignore[arg-type]
    assert without.keys() == everything.keys() - {term}
    for name, value in without.items():
        if name != "total":
            torch.testing.assert_close(value, everything[name])
    torch.testing.assert_close(everything["total"] - 0.5 * everything[term], without["total"])


def test_a_zero_fusion_residual_changes_nothing(world: World) -> None:
    config = replace(EVERYTHING, learn_fusion=False)
    plain, fused = build(world, config).losses(1), build(world, EVERYTHING).losses(1)
    for name, value in plain.items():
        torch.testing.assert_close(value, fused[name])


def test_grids_are_drawn_for_each_batch_and_the_same_when_resumed(world: World) -> None:
    program = build(world, replace(TALK2DINO, grids=(4, 6)))
    drawn = [program._batch(step).grid for step in range(12)]
    assert set(drawn) == {4, 6}
    assert drawn == [program._batch(step).grid for step in range(12)]


class _Half:
    """Rank `rank` of two, with what the other one sent at hand: all-gather without processes."""

    def __init__(self, rank: int, others: list[Tensor]) -> None:
        self.rank, self.others = rank, others
        self.sent: list[Tensor] = []

    def __call__(self, tensor: Tensor) -> Tensor:
        other = self.others[len(self.sent)] if self.others else tensor.detach()
        self.sent.append(tensor.detach())
        return torch.cat([tensor, other] if self.rank == 0 else [other, tensor])


def _shares_of_two(world: World, config: MapperProgramConfig) -> list[dict[str, float]]:
    """Three rounds: what is sent may itself depend on what was received."""
    sent: list[list[Tensor]] = [[], []]
    for _ in range(3):
        halves = [_Half(rank, sent[1 - rank]) for rank in (0, 1)]
        losses = [build(world, config, gather=half, world_size=2).losses(1) for half in halves]
        sent = [half.sent for half in halves]
    return [{name: float(value.detach()) for name, value in terms.items()} for terms in losses]


def test_two_workers_share_the_loss_of_one_with_the_doubled_batch(world: World) -> None:
    """Every term: the mean of the two shares is the loss of the whole batch."""
    config = replace(EVERYTHING, grids=(4,), languages=("en", "zh"))
    one = build(world, replace(config, batch_size=12, distilled_scenes=12)).losses(1)
    two = _shares_of_two(world, config)
    for name, value in one.items():
        assert (two[0][name] + two[1][name]) / 2 == pytest.approx(float(value.detach()), abs=1e-5), name


def test_export_is_what_the_segmenter_loads_and_a_next_program_starts_from(
    world: World, tmp_path: Path
) -> None:
    program = build(world, EVERYTHING)
    train(program, replace(LOOP, num_steps=3), tmp_path / "run")
    program.export(tmp_path / "export")
    mapper = load_mapper(tmp_path / "export")
    texts = world.features.texts.names[0]
    torch.testing.assert_close(mapper(texts), program.module.student.psi(texts))
    constants = load_constants(tmp_path / "export")
    assert constants == program.constants()
    assert constants.sigmoid_temperature == pytest.approx(math.exp(-program.module.sigmoid_log_scale.item()))
    assert constants.siglip_scale is not None
    assert constants.siglip_scale > 0
    assert not (tmp_path / "export" / "calibration.json").exists()  # that is the segmenter's
    following = build(world, EVERYTHING, start=tmp_path / "export").module
    for name in ("student.psi.linears.0.weight", "student.fusion.weight", "teacher.psi.linears.1.bias"):
        wanted = program.module.state_dict()[name.replace("teacher", "student")]
        torch.testing.assert_close(following.state_dict()[name], wanted)
    torch.testing.assert_close(following.sigmoid_log_scale, program.module.sigmoid_log_scale)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('{"alpha": 0.5, "temperature": 0.04}', "expected siglip_scale, siglip_shift, sigmoid_bias"),
        (
            '{"sigmoid_temperature": "0.1", "sigmoid_bias": null, "siglip_scale": null, "siglip_shift": null}',
            "sigmoid_temperature: expected numbers or null",
        ),
    ],
)
def test_constants_of_something_else_are_refused(text: str, said: str, tmp_path: Path) -> None:
    assert load_constants(tmp_path) == MapperConstants()
    (tmp_path / CONSTANTS_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=said):
        load_constants(tmp_path)


def test_a_start_of_another_shape_is_refused(world: World, tmp_path: Path) -> None:
    build(world, replace(TALK2DINO, num_hidden=2)).export(tmp_path / "deep")
    with pytest.raises(CheckpointError, match="same towers and the same shape"):
        build(world, TALK2DINO, start=tmp_path / "deep")
    build(world, replace(TALK2DINO, learn_fusion=True)).export(tmp_path / "fused")
    with pytest.raises(CheckpointError, match="set learn_fusion in both"):
        build(world, TALK2DINO, start=tmp_path / "fused")


def test_what_cannot_be_trained_says_why(world: World) -> None:
    with pytest.raises(ConfigError, match="pass LiveViews"):
        MapperProgram(world.features, replace(TALK2DINO, masked_weight=0.1))
    with pytest.raises(ConfigError, match="no features of a grid of 9x9"):
        build(world, replace(TALK2DINO, grids=(9,)))
    with pytest.raises(ConfigError, match="every weight is 0"):
        MapperProgramConfig(infonce_weight=0.0)
    with pytest.raises(ConfigError, match="masked_weight is -1"):
        MapperProgramConfig(masked_weight=-1.0)
    with pytest.raises(TrainingError, match="do not fill one batch of 128"):
        build(world, MapperProgramConfig(grids=(4,))).losses(0)


def test_the_published_projection() -> None:
    assert MapperProgramConfig().batch_size == 128
    module = MapperModule(MapperProgramConfig(), text_width=512, dino_width=768)
    trained = [p for p in module.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 984_576  # the released ViT-B projection


def test_region_loss_by_hand() -> None:
    """One region over patches (1,0) and (0,1): its mean has cosine 0.7071 with either; one phrase true, one false."""
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    shares = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    codes = torch.tensor([[[3], [ABSENT]]])
    truth = torch.tensor([[[True, False], [False, False]]])
    loss = region_loss(
        tokens,
        shares,
        codes,
        torch.eye(2),
        truth,
        scale=torch.tensor(2.0),
        bias=torch.tensor(-1.0),
        stuff_share=0.3,
    )
    logit = 2 * math.sqrt(0.5) - 1
    expected = math.log(1 + math.exp(-logit)) + math.log(1 + math.exp(logit))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_patch_loss_by_hand() -> None:
    """A thing patch that is right (weight 1) and a stuff patch that is even (weight 0.5), over 20 classes."""
    names = torch.eye(20)
    tokens = torch.stack([names[0], torch.ones(20)])[None]
    shares = torch.zeros(1, 2, 20)
    shares[0, 0, 0] = shares[0, 1, 15] = 1.0
    loss = patch_loss(tokens, shares, names, scale=torch.tensor(1.0), stuff_share=0.5)
    expected = (math.log(1 + 19 / math.e) + 0.5 * math.log(20)) / 1.5
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert weighted_mean(torch.ones(3), torch.zeros(3)).item() == 0
