"""`ovsops diff` as a user calls it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.diff import load_diff_config
from jobs.exits import ExitCode
from pipelines.diff.config import DiffConfig
from tests.pipelines.made_runs import Made, Picture, write_run

Command = Callable[..., tuple[int, str, str]]
RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The same three images; a label of one is new in the second run."""
    first = [Picture(f"{n}", (Made(1),)) for n in range(3)]
    second = [*first[:2], Picture("2", (Made(1), Made(2, (40, 40, 60, 60))))]
    return write_run(tmp_path / "a", {"s.tar": first}), write_run(tmp_path / "b", {"s.tar": second})


def test_text_json_and_exit_codes(ovsops: Command, runs: tuple[Path, Path], tmp_path: Path) -> None:
    code, out, _ = ovsops("diff", *runs, "--out", tmp_path / "d.json")
    assert code == ExitCode.OVER_LIMITS
    assert "25.0% of the labels of the same images changed" in out
    written = json.loads((tmp_path / "d.json").read_text())
    code, out, _ = ovsops("diff", *runs, "--json", "--set", "limits.max_changed_share=0.5")
    assert code == ExitCode.DONE
    assert json.loads(out)["labels"] == written["labels"]
    assert ovsops("diff", runs[0], runs[0])[0] == ExitCode.DONE


def test_the_commented_file_has_the_defaults() -> None:
    assert load_diff_config(RECIPES / "diff" / "default.yaml", []) == DiffConfig()
    assert load_diff_config(None, []) == DiffConfig()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--set", "limits.max_change=1"], ExitCode.USAGE, "did you mean 'max_changed_share'"),
        (["--set", "drift.alpha=2"], ExitCode.USAGE, "drift.alpha is 2"),
        (["--config", "nowhere.yaml"], ExitCode.USAGE, "nowhere.yaml: cannot be read"),
    ],
)
def test_bad_settings(
    ovsops: Command, runs: tuple[Path, Path], words: list[str], code: int, message: str
) -> None:
    found, _, err = ovsops("diff", *runs, *words)
    assert found == code
    assert message in err


def test_what_is_no_run(ovsops: Command, runs: tuple[Path, Path], tmp_path: Path) -> None:
    code, _, err = ovsops("diff", runs[0], tmp_path / "nothing")
    assert code == ExitCode.USAGE
    assert "holds no run.json" in err


def test_hostile_names_are_escaped(ovsops: Command, tmp_path: Path) -> None:
    key = "evil\x1b[31m\u202e"
    first = write_run(tmp_path / "a", {"s.tar": [Picture("1", (Made(1),), key=key)]})
    second = write_run(tmp_path / "b", {"s.tar": [Picture("1", (Made(2, (40, 40, 60, 60)),), key=key)]})
    _, out, _ = ovsops("diff", first, second)
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "evil\\x1b[31m\\u202e" in out
