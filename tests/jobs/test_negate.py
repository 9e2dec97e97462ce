"""`ovsops negate`: what is written for good lines, bad lines and hostile ones."""

import gzip
import json
import os
from pathlib import Path

import pytest

from jobs.cli import run_command
from jobs.negate import LINE_REASONS, MAX_LINE_BYTES

GOOD = ["a small red ceramic bowl", "一个红色的塑料杯子", "two black dogs running"]


def negate(tmp_path: Path, data: bytes, *options: str, name: str = "out.jsonl") -> tuple[int, list[dict]]:
    (tmp_path / "in.jsonl").write_bytes(data)
    target = tmp_path / name
    code = run_command(["negate", str(tmp_path / "in.jsonl"), str(target), *options])
    if not target.exists():
        return code, []
    raw = target.read_bytes()
    return code, [
        json.loads(line) for line in (gzip.decompress(raw) if name.endswith(".gz") else raw).splitlines()
    ]


def lines_of(rows: list) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_rows_come_back_with_ten_negatives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, rows = negate(
        tmp_path, lines_of([{"text": text, "id": i, "reason": "old"} for i, text in enumerate(GOOD)])
    )
    assert code == 0
    assert [row["id"] for row in rows] == [0, 1, 2]
    for row, text in zip(rows, GOOD, strict=True):
        assert row["text"] == text
        assert "reason" not in row
        assert len(set(row["negatives"])) == len(row["types"]) == 10
        assert text not in row["negatives"]
    assert "3 lines: 3 with ten hard negatives (seed 0), 0 without" in capsys.readouterr().err


def test_the_positive_looks_as_its_negatives_do(tmp_path: Path) -> None:
    texts = ["a  small\tred bowl. .", "a red bowl", "a red or blue bowl"]
    _, rows = negate(tmp_path, lines_of([{"text": text, "positive": "old"} for text in texts]))
    assert [row["text"] for row in rows] == texts
    assert [row["positive"] for row in rows] == ["a small red bowl.", "a red bowl", None]
    assert all(text.endswith(".") and "  " not in text for text in rows[0]["negatives"])
    assert rows[2]["reason"] == "R_ALTERNATIVE"


def test_what_is_no_regular_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe, good, out = tmp_path / "pipe", tmp_path / "good.jsonl", tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    good.write_bytes(lines_of([{"text": "a red car"}]))
    for source, target, word in (
        (pipe, out, "a pipe: it is to be read twice"),
        (Path("/dev/null"), out, "a device: it is to be read twice"),
        (tmp_path, out, "a folder: it is to be read twice"),
        (good, pipe, "a pipe: it cannot become the output"),
        (good, Path("/dev/null"), "a device: it cannot become the output"),
        (good, tmp_path, "a folder: it cannot become the output"),
    ):
        assert run_command(["negate", str(source), str(target)]) == 2
        assert word in capsys.readouterr().err
    assert not out.exists()
    assert pipe.is_fifo()


def test_hostile_lines_are_counted_and_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        (b'{"text": "a red car"}', None),
        (b"{bad", "R_INVALID_JSON"),
        (b'{"text": NaN}', "R_INVALID_JSON"),
        (b'{"text": "a red car", "x": 1e999}', "R_INVALID_JSON"),
        (b'{"text": "\xff"}', "R_INVALID_JSON"),
        (b"[" * 100_000, "R_INVALID_JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "R_INVALID_JSON"),
        (b'["a red car"]', "R_NOT_AN_OBJECT"),
        (b"   ", ""),
        (b'{"other": 1}', "R_NO_TEXT"),
        (b'{"text": "\\ud800 red"}', "R_CONTROL"),
        (b'{"text": "' + b"x" * 100_000 + b'"}', "R_TOO_LONG"),
        (b'{"text": "' + b"x" * MAX_LINE_BYTES + b'"}', "R_LINE_TOO_LONG"),
        ('{"text": "😀😀", "negatives": ["old"]}'.encode(), "R_EMPTY"),
        (b'{"text": "<script>red</script>"}', "R_MARKUP"),
        ('{"text": "a red car 红色的车"}'.encode(), "R_LANGUAGE"),
        (b'{"text": "a red car", "language": "zh"}', "R_LANGUAGE_MISMATCH"),
        (b'{"text": "a thing"}', "R_NO_ATTRIBUTE"),
    ]
    code, rows = negate(tmp_path, b"\n".join(line for line, _ in lines))
    expected = [reason for _, reason in lines if reason != ""]
    assert code == 0
    assert [row.get("reason") for row in rows] == expected
    assert all((row["negatives"] is None) == (row["types"] is None) == ("reason" in row) for row in rows)
    assert all((row["negatives"] is None) == (row["positive"] is None) for row in rows)
    assert set(filter(None, expected)) <= LINE_REASONS.keys()
    assert "1 with ten hard negatives (seed 0), 16 without" in (err := capsys.readouterr().err)
    assert "R_INVALID_JSON 6" in err
    assert "1 blank" in err


def test_the_seed_decides_and_compression_does_not_matter(tmp_path: Path) -> None:
    data = lines_of([{"text": text} for text in GOOD])
    _, plain = negate(tmp_path, data)
    _, again = negate(tmp_path, gzip.compress(data), name="again.jsonl.gz")
    first = (tmp_path / "again.jsonl.gz").read_bytes()
    negate(tmp_path, data, name="again.jsonl.gz")
    _, other = negate(tmp_path, data, "--seed", "1", name="other.jsonl")
    assert plain == again != other
    assert (tmp_path / "again.jsonl.gz").read_bytes() == first


@pytest.mark.parametrize(("level", "changes"), [("medium", 2), ("easy", 3), ("trivial", 1)])
def test_levels(tmp_path: Path, level: str, changes: int) -> None:
    _, rows = negate(tmp_path, lines_of([{"text": "a small red striped ceramic bowl"}]), "--level", level)
    assert {len(kinds.split("+")) for kinds in rows[0]["types"]} == {changes}


def test_what_cannot_be_read_or_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(lines_of([{"text": text} for text in GOOD]))
    code, rows = negate(tmp_path, whole[:-12])
    assert (code, rows) == (4, [])
    assert "cannot be read" in capsys.readouterr().err
    source = str(tmp_path / "in.jsonl")
    assert run_command(["negate", str(tmp_path / "none"), str(tmp_path / "o")]) == 4
    (tmp_path / "in.jsonl").write_bytes(b'{"text": "a red car"}')
    assert run_command(["negate", source, str(tmp_path / "no" / "o")]) == 4
    assert run_command(["negate", source, source]) == 2
    assert run_command(["negate", source, str(tmp_path / "o"), "--level", "harder"]) == 2
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["in.jsonl"]


def test_an_empty_file_makes_an_empty_file(tmp_path: Path) -> None:
    assert negate(tmp_path, b"") == (0, [])
    assert (tmp_path / "out.jsonl").exists()
