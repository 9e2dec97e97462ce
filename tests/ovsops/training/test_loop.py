"""The loop: its schedule, what decays, and a stop that leaves no trace."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ovsops.errors import ConfigError, TrainingError
from ovsops.training.curve import read_curve
from ovsops.training.loop import LoopConfig, Progress, Trained, make_optimizer, take_step, train
from ovsops.training.schedule import warmup_cosine
from ovsops.training.state import states
from tests.ovsops.training.linear_program import LinearProgram

LOOP = LoopConfig(num_steps=10, learning_rate=0.05, warmup_steps=2, log_every=4, save_every=3)


def weights(program: LinearProgram) -> list[Tensor]:
    return [value.clone() for value in program.module.state_dict().values()]


def stop_after(count: int) -> Callable[[], bool]:
    calls = iter(range(1, 1000))
    return lambda: next(calls) == count


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 1 / 4),
        (3, 1.0),
        (4, 1.0),  # 0.1 + 0.9 (1 + cos 0) / 2
        (6, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the way down
        (8, 0.55),  # halfway
        (12, 0.1),
        (20, 0.1),  # and it stays there
    ],
)
def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine(step: int, expected: float) -> None:
    assert warmup_cosine(step, num_steps=12, warmup_steps=4, final_share=0.1) == pytest.approx(expected)


def test_without_warm_up_the_peak_comes_first_and_a_final_share_of_one_is_constant() -> None:
    assert warmup_cosine(0, num_steps=5, warmup_steps=0) == 1.0
    assert {warmup_cosine(s, num_steps=5, warmup_steps=2, final_share=1.0) for s in range(2, 6)} == {1.0}
    assert warmup_cosine(3, num_steps=4, warmup_steps=4) == 1.0  # all of it is warm-up: no division by zero


def test_weight_decay_touches_matrices_only() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Embedding(4, 2))
    module.scale = nn.Parameter(torch.tensor(2.0))
    module[2].weight.requires_grad_(False)
    optimizer = make_optimizer(module, LoopConfig(num_steps=1, learning_rate=0.5, weight_decay=0.1))
    before = {name: value.clone() for name, value in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in module.named_parameters():
        share = 1 - 0.5 * 0.1 if name == "0.weight" else 1.0
        torch.testing.assert_close(value, before[name] * share)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)


def test_gradients_are_clipped_to_the_norm() -> None:
    program = LinearProgram()
    config = LoopConfig(num_steps=1, learning_rate=0.1, clip_norm=0.01, weight_decay=0.0)
    sgd = torch.optim.SGD(program.module.parameters(), lr=1.0)
    before = weights(program)
    take_step(program, sgd, 0, 0.5, config)
    moved = torch.cat([(a - b).flatten() for a, b in zip(weights(program), before, strict=True)]).norm()
    assert float(moved) == pytest.approx(
        0.5 * 0.01, rel=1e-3
    )  # the rate of the step, not the optimiser's own


def test_the_loop_learns(tmp_path: Path) -> None:
    program = LinearProgram()
    config = LoopConfig(num_steps=300, learning_rate=0.1, warmup_steps=10, weight_decay=0.0, save_every=300)
    train(program, config, tmp_path)
    torch.testing.assert_close(program.module.weight, torch.tensor([[3.0, -1.0]]), atol=0.02, rtol=0)
    torch.testing.assert_close(program.module.bias, torch.tensor([0.5]), atol=0.02, rtol=0)


def test_rows_are_means_of_windows(tmp_path: Path) -> None:
    program, told = LinearProgram(), list[Progress]()
    assert train(program, LOOP, tmp_path, on_progress=told.append) == Trained(start=0, done=10)
    assert program.followed == list(range(10))
    rows = read_curve(tmp_path / "curve.csv")
    assert [row["step"] for row in rows] == [4, 8, 10] == [row.step for row in told]
    assert [row.losses["place"] for row in told] == [1.5, 5.5, 8.5]  # means of 0..3, 4..7, 8..9
    assert rows[0]["learning_rate"] == pytest.approx(0.05 * warmup_cosine(3, num_steps=10, warmup_steps=2))
    assert all(row.seconds_per_step > 0 for row in told)
    assert [place.name for place in states(tmp_path / "states")] == ["state-00000009", "state-00000010"]


@pytest.mark.parametrize("stops", [(5,), (2, 1, 4), (4,), (9,)])
def test_a_stopped_training_goes_on_to_the_same_curve_and_weights(
    stops: tuple[int, ...], tmp_path: Path
) -> None:
    whole = LinearProgram()
    train(whole, LOOP, tmp_path / "whole")
    done = 0
    for count in stops:
        result = train(LinearProgram(), LOOP, tmp_path / "parts", should_stop=stop_after(count))
        assert result == Trained(start=done, done=done + count)
        done += count
    torch.manual_seed(99)
    last = LinearProgram()
    assert train(last, LOOP, tmp_path / "parts") == Trained(start=done, done=10)
    for found, expected in zip(weights(last), weights(whole), strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "parts")]
    assert curves[0] == curves[1]


def test_a_kill_between_states_repeats_the_steps_since_the_last(tmp_path: Path) -> None:
    whole = LinearProgram()
    train(whole, LOOP, tmp_path / "whole")

    def kill(row: Progress) -> None:
        if row.step == 8:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(LinearProgram(), LOOP, tmp_path / "killed", on_progress=kill)  # the row of step 8 is written
    last = LinearProgram()
    assert train(last, LOOP, tmp_path / "killed").start == 6
    assert last.followed == [6, 7, 8, 9]
    for found, expected in zip(weights(last), weights(whole), strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert (tmp_path / "killed" / "curve.csv").read_bytes() == (tmp_path / "whole" / "curve.csv").read_bytes()


def test_at_a_constant_rate_a_longer_training_begins_with_the_shorter_one(tmp_path: Path) -> None:
    longer = replace(LOOP, final_share=1.0)
    assert longer.may_grow
    assert not LOOP.may_grow
    train(whole := LinearProgram(), longer, tmp_path / "whole")
    train(LinearProgram(), replace(longer, num_steps=8), tmp_path / "grown")
    grown = LinearProgram()
    assert train(grown, longer, tmp_path / "grown") == Trained(start=8, done=10)
    assert all(torch.equal(a, b) for a, b in zip(weights(grown), weights(whole), strict=True))
    curves = [(tmp_path / name / "curve.csv").read_bytes() for name in ("whole", "grown")]
    assert curves[0] == curves[1]


def test_steps_are_not_taken_back(tmp_path: Path) -> None:
    train(LinearProgram(), LOOP, tmp_path)
    with pytest.raises(
        ConfigError, match=r"num_steps is 8, but .* has 10 steps behind it.* set it to 10 or more"
    ):
        train(LinearProgram(), replace(LOOP, num_steps=8), tmp_path)


def test_a_training_that_is_done_does_nothing_more(tmp_path: Path) -> None:
    train(LinearProgram(), LOOP, tmp_path)
    before = (tmp_path / "curve.csv").read_bytes()
    again = LinearProgram()
    assert train(again, LOOP, tmp_path) == Trained(start=10, done=10)
    assert again.followed == []
    assert (tmp_path / "curve.csv").read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_state(tmp_path: Path) -> None:
    program = LinearProgram(fails_at=7)
    with pytest.raises(
        TrainingError, match=r"step 7: the loss is nan .*'square': nan.*lower loop.learning_rate"
    ):
        train(program, LOOP, tmp_path)
    assert [place.name for place in states(tmp_path / "states")] == ["state-00000003", "state-00000006"]
    assert program.followed == list(range(7))
    assert all(value.isfinite().all() for value in weights(program))
    assert train(LinearProgram(), LOOP, tmp_path).start == 6


@pytest.mark.parametrize("clip_norm", [1.0, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_it_reaches_the_weights(
    clip_norm: float, tmp_path: Path
) -> None:
    """The last step of a state: were it taken, the state would hold NaN and no start could go on from it."""
    program = LinearProgram(steep_at=5)
    said = (
        r"step 5: the norm of the gradient is inf .*'total': \d.*another recipe, which takes another output"
    )
    with pytest.raises(TrainingError, match=said):
        train(program, replace(LOOP, clip_norm=clip_norm), tmp_path)
    assert [place.name for place in states(tmp_path / "states")] == ["state-00000003"]
    assert program.followed == list(range(5))
    assert all(value.isfinite().all() for value in weights(program))
    assert train(LinearProgram(), LOOP, tmp_path).start == 3  # a start after it finds a state that is whole


def test_only_the_main_worker_writes_and_means_over_workers_are_used(tmp_path: Path) -> None:
    averaged: list[nn.Module] = []
    told: list[Progress] = []
    program = LinearProgram()
    train(
        program,
        LOOP,
        tmp_path,
        is_main=False,
        average_gradients=averaged.append,
        average_terms=lambda terms: {name: 10 * value for name, value in terms.items()},
        on_progress=told.append,
    )
    assert averaged == [program.module] * 10
    assert [row.losses["place"] for row in told] == [15.0, 55.0, 85.0]
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_is_autocast_and_float32_is_not() -> None:
    class Seen(LinearProgram):
        dtype = torch.float64

        def losses(self, step: int) -> dict[str, Tensor]:
            out = self.module(torch.ones(1, 2))
            self.dtype = out.dtype
            return {"total": out.float().square().mean()}

    for precision, dtype in (("auto", torch.float32), ("bfloat16", torch.bfloat16)):
        program = Seen()
        config = LoopConfig(num_steps=1, precision=precision)
        take_step(program, make_optimizer(program.module, config), 0, 0.1, config)
        assert program.dtype == dtype


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_steps": 0}, r"loop\.num_steps is 0; it must be 1 or more"),
        ({"num_steps": 1, "save_every": 0}, r"loop\.save_every is 0"),
        ({"num_steps": 1, "log_every": 0}, r"loop\.log_every is 0"),
        ({"num_steps": 1, "warmup_steps": -5}, r"loop\.warmup_steps is -5; it must be 0 or more"),
        ({"num_steps": 1, "weight_decay": -0.1}, r"loop\.weight_decay is -0\.1"),
        ({"num_steps": 1, "final_share": 1.5}, r"loop\.final_share is 1\.5; it must lie in \[0, 1\]"),
        ({"num_steps": 1, "betas": (0.9, 1.0)}, r"loop\.betas is \(0\.9, 1\.0\)"),
        ({"num_steps": 1, "clip_norm": -1.0}, r"loop\.clip_norm is -1\.0; it must be over 0"),
        ({"num_steps": 1, "clip_norm": math.nan}, r"loop\.clip_norm is nan"),
        ({"num_steps": 1, "learning_rate": math.inf}, "learning_rate is inf"),
        ({"num_steps": 1, "learning_rate": math.nan}, "learning_rate is nan"),
        ({"num_steps": 1, "precision": "float16"}, "'float16': auto, float32 or bfloat16"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LoopConfig(**fields)  # type: ignore[arg-type]
