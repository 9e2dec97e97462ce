"""The curve: rows beyond the state go, the rest stays to the byte, and a picture is drawn of it."""

from pathlib import Path

from PIL import Image

from ovsops.training.curve import Curve, draw_curve, read_curve


def written(path: Path) -> Path:
    curve = Curve(path, keep_until=0)
    for step in (5, 10, 15):
        curve.add(step, {"total": 1 / step, "learning_rate": 0.1 * step})
    return path


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    rows = read_curve(written(tmp_path / "run" / "curve.csv"))
    assert [row["step"] for row in rows] == [5, 10, 15]
    assert [row["total"] for row in rows] == [1 / 5, 1 / 10, 1 / 15]  # every digit
    assert list(rows[0]) == ["step", "total", "learning_rate"]


def test_rows_beyond_the_state_are_dropped(tmp_path: Path) -> None:
    path = written(tmp_path / "curve.csv")
    whole = path.read_bytes()
    Curve(path, keep_until=12).add(15, {"total": 1 / 15, "learning_rate": 0.1 * 15})
    assert path.read_bytes() == whole
    Curve(path, keep_until=10)
    assert [row["step"] for row in read_curve(path)] == [5, 10]
    assert [file.name for file in tmp_path.iterdir()] == ["curve.csv"]


def test_a_start_from_nothing_empties_the_file_and_may_bring_other_terms(tmp_path: Path) -> None:
    path = written(tmp_path / "curve.csv")
    Curve(path, keep_until=0).add(5, {"other": 2.0})
    assert read_curve(path) == [{"step": 5.0, "other": 2.0}]


def test_a_row_that_was_cut_short_is_beyond_the_state(tmp_path: Path) -> None:
    path = written(tmp_path / "curve.csv")
    whole = path.read_bytes()
    path.write_bytes(whole + b"20,0.0")
    Curve(path, keep_until=15)
    assert path.read_bytes() == whole


def test_the_picture_has_a_line_per_term(tmp_path: Path) -> None:
    few, many = written(tmp_path / "few.csv"), tmp_path / "many.csv"
    curve = Curve(many, keep_until=0)
    for step in (5, 10):
        curve.add(step, {"total": 1.0, "regions": 2.0 / step, "patches": 3.0, "learning_rate": 50.0})
    seen = {}
    for path in (few, many):
        draw_curve(path, path.with_suffix(".png"))
        with Image.open(path.with_suffix(".png")) as picture:
            assert picture.size == (800, 450)
            seen[path] = {rgb for _, rgb in picture.convert("RGB").getcolors(1 << 20) or []}
    blue, orange, green, red = (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40)
    assert seen[few] & {blue, orange, green, red} == {blue}  # the learning rate is no loss
    assert seen[many] & {blue, orange, green, red} == {blue, orange, green}


def test_a_curve_without_rows_is_drawn_empty(tmp_path: Path) -> None:
    Curve(tmp_path / "curve.csv", keep_until=0)
    draw_curve(tmp_path / "curve.csv", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
