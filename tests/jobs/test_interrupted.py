"""What is said when a command is interrupted: true for its verb."""

from pathlib import Path

import pytest

import jobs.negate
from jobs.cli import run_command
from jobs.exits import ExitCode, after_interruption


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "recipe.yaml"], "run the same command again to go on"),
        (["retry", "out"], "run the same command again to go on"),
        (["nightly", "recipe.yaml"], "run the same command again to go on"),
        (["negate", "run", "out"], "the output was not written; the same command starts anew"),
        (["plan", "recipe.yaml"], "there is nothing to go on with; the same command starts anew"),
        (
            ["audit", "out", "--out", "new"],
            "the same command starts anew, with a new or empty folder for --out",
        ),
        ([], "there is nothing to go on with; the same command starts anew"),
    ],
)
def test_each_verb_says_what_is_true_for_it(words: list[str], said: str) -> None:
    assert after_interruption(words) == said


def test_an_interrupted_negate_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "in.jsonl").write_text('{"text": "a red car"}\n')
    monkeypatch.setattr(jobs.negate, "_answered", interrupt)
    code = run_command(["negate", str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")])
    assert code == ExitCode.INTERRUPTED
    assert "interrupted: the output was not written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ""] == ["in.jsonl"]
