"""Intervals of the cards' figures, and what is said of a retraining."""

from pathlib import Path

import pytest
import torch

from benchmarks import miniature_quality
from benchmarks.miniature_quality import compare, main, markdown, recall


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def test_recall_by_hand() -> None:
    """Ranks 1, 1, 2, 7: half of the queries find theirs first, three of four among five."""
    ranks = torch.tensor([1, 1, 2, 7])
    first = recall(ranks, 1)
    assert first["value"] == 0.5
    assert 0.0 <= first["low"] < 0.5 < first["high"] <= 1.0
    assert recall(ranks, 5)["value"] == 0.75
    assert recall(torch.ones(4, dtype=torch.int64), 1) == figure(1.0, 1.0, 1.0)


def test_figures_outside_an_interval_are_named_whichever_side() -> None:
    shipped = [
        {"language": "en", "regions": 9, "top-1": figure(0.8, 0.7, 0.9), "same": figure(1.0, 1.0, 1.0)}
    ]

    def judged(value: float) -> list[dict[str, object]]:
        other = figure(value, 0.0, 1.0)
        rows = [{"language": "en", "regions": 8, "top-1": other, "same": figure(1.0, 1.0, 1.0)}]
        return list(compare("regions", shipped, rows))

    assert judged(0.7) == judged(0.85) == []
    for value in (0.69, 0.91, float("nan")):
        (row,) = judged(value)
        assert (row["table"], row["row"], row["figure"]) == ("regions", "en", "top-1")
        assert "0.800 (0.700 to 0.900)" in markdown([row])


def test_figures_that_both_lack_agree() -> None:
    nothing = figure(float("nan"), float("nan"), float("nan"))
    assert list(compare("t", [{"a": "x", "b": nothing}], [{"a": "x", "b": nothing}])) == []


@pytest.mark.parametrize(("value", "code"), [(0.8, 0), (0.5, 1)])
def test_the_exit_code_says_whether_a_retraining_is_as_good(
    value: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def table(folder: Path, *_: object) -> list[dict[str, object]]:
        found = value if folder == tmp_path else 0.8
        return [{"language": "en", "top-1": figure(found, found - 0.1, found + 0.1)}]

    monkeypatch.setattr(miniature_quality, "region_table", table)
    words = [
        "--against",
        str(tmp_path),
        "--only",
        "regions",
        "--scenes",
        "1",
        "--json",
        str(tmp_path / "f.json"),
    ]
    assert main(words) == code
    assert f"{tmp_path}: {code} figures outside" in capsys.readouterr().out
    assert str(tmp_path) in (tmp_path / "f.json").read_text()


def test_a_table_that_there_is_not_is_an_error_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "regions,probe"])
    assert ended.value.code == 2
    assert "probe is no table; there are retrieval, regions, probes" in capsys.readouterr().err
