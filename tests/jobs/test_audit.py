"""`ovsops audit` and `ovsops review` as a user calls them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.exits import ExitCode
from tests.pipelines.made_runs import Made, Picture, write_run

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    pictures = [Picture(f"{n}", (Made(1 + n % 2, score=0.55 + n / 300),)) for n in range(80)]
    return write_run(tmp_path / "run", {"s.tar": pictures})


def fill(form: Path, verdict: str) -> None:
    """Write a verdict into every row, as a spreadsheet would."""
    with form.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    with form.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row | {"verdict": verdict} for row in rows)


def test_draw_fill_read(ovsops: Command, run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    code, out, _ = ovsops("audit", run, "--out", folder, "--rows", "70", "--no-pictures")
    assert code == ExitCode.DONE
    assert "70 of 80 labels drawn" in out
    assert {path.name for path in folder.iterdir()} == {"audit.csv", "audit.jsonl", "sample.json"}
    code, _, err = ovsops("audit", run, "--filled", folder / "audit.csv")
    assert code == ExitCode.USAGE
    assert "no row has a verdict that counts" in err
    fill(folder / "audit.csv", "right")
    code, out, _ = ovsops("audit", run, "--filled", folder / "audit.csv")
    assert code == ExitCode.DONE
    assert "ACCEPTED  wanted 95.0% right" in out
    assert json.loads((folder / "result.json").read_text())["acceptance"]["decision"] == "accepted"
    fill(folder / "audit.csv", "wrong")
    code, out, _ = ovsops("audit", run, "--filled", folder / "audit.csv", "--json", "--quality", "0.9")
    assert code == ExitCode.AUDIT
    assert json.loads(out)["acceptance"] | {"at_least": 0, "at_most": 0} == {
        "decision": "rejected",
        "at_least": 0,
        "at_most": 0,
        "rows_more": None,
        "quality": 0.9,
        "alpha": 0.05,
    }


def test_answers_are_never_overwritten(ovsops: Command, run: Path, tmp_path: Path) -> None:
    ovsops("audit", run, "--out", tmp_path / "audit", "--rows", "5", "--no-pictures")
    before = (tmp_path / "audit" / "audit.csv").read_bytes()
    code, _, err = ovsops("audit", run, "--out", tmp_path / "audit", "--rows", "6", "--no-pictures")
    assert code == ExitCode.OUTPUT
    assert "holds something already, answers perhaps" in err
    assert (tmp_path / "audit" / "audit.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --out DIR to draw a sample, or --filled FILE"),
        (["--out", "x", "--filled", "y"], "one of the two"),
        (["--out", "x", "--calibrator", "c.json"], "give it with --filled"),
        (["--out", "x", "--rows", "0"], "sample.rows is 0"),
        (["--filled", "nothing.csv"], "sample.json: cannot be read"),
        (["--filled", "f.csv", "--quality", "95"], "acceptance.quality is 95"),
    ],
)
def test_bad_command_lines(ovsops: Command, run: Path, words: list[str], message: str) -> None:
    code, _, err = ovsops("audit", run, *words)
    assert code == ExitCode.USAGE
    assert message in err


def test_a_calibrator_needs_boxes(ovsops: Command, run: Path, tmp_path: Path) -> None:
    ovsops("audit", run, "--out", tmp_path / "audit", "--rows", "70", "--no-pictures")
    fill(tmp_path / "audit" / "audit.csv", "right")
    code, out, err = ovsops(
        "audit", run, "--filled", tmp_path / "audit" / "audit.csv", "--calibrator", tmp_path / "c.json"
    )
    assert code == ExitCode.USAGE
    assert "ACCEPTED" in out  # the audit itself stands
    assert "scores of boxes" in err
    assert not (tmp_path / "c.json").exists()


def test_review_queue(ovsops: Command, run: Path, tmp_path: Path) -> None:
    code, out, _ = ovsops("review", run, "--budget", "7", "--out", tmp_path / "queue.csv")
    assert code == ExitCode.DONE
    assert out.startswith("7 of 80 labels in")
    with (tmp_path / "queue.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(n) for n in range(1, 8)]
    code, out, _ = ovsops("review", run, "--budget", "500", "--out", tmp_path / "queue.jsonl")
    assert code == ExitCode.DONE
    assert "fewer than the budget of 500" in out
    code, _, err = ovsops("review", run, "--out", tmp_path / "queue.xlsx")
    assert code == ExitCode.USAGE
    assert "ends in .csv or .jsonl" in err
    code, _, err = ovsops("review", run, "--out", tmp_path / "q.csv", "--set", "class_values.cta=2.0")
    assert code == ExitCode.USAGE
    assert "did you mean 'cat'" in err
