"""`ovsops validate-set`: exit codes and what is printed."""

import json
from pathlib import Path

import pytest

from jobs.cli import run_command
from pipelines.validation.rules import RULES
from pipelines.writers.finehard_json import finehard_json_writer
from tests.pipelines.made_samples import make_sample


def write(folder: Path, *, license_text: str = "cc0") -> Path:
    with finehard_json_writer(folder, "train") as writer:
        writer.add(make_sample(1, license=license_text))
        (file,) = writer.finish()
    return folder / file.path


def test_a_valid_set_is_exit_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert run_command(["validate-set", str(tmp_path), "--images", "none"]) == 0
    out = capsys.readouterr().out
    assert "finehard-json, 1 file" in out
    assert "1 image, 2 regions, 1 with negatives, 1 with masks" in out
    assert f"valid: none of {len(RULES)} rules is broken (pictures: not looked at" in out.splitlines()[-1]
    assert "\\n" not in out
    assert "not checked: images" in out


def test_a_broken_set_is_exit_3_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    items = json.loads(path.read_text())
    items[0]["bbox_info"][0]["short_expr_negs"].popitem()
    items[0]["bbox_info"][1]["bbox"] = [0.9, 0.1, 0.2, 0.3]
    items[0]["caption"] = "\x1b[31mred [bold]"
    path.write_text(json.dumps(items))
    assert run_command(["validate-set", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "negatives_count: broken 1 times" in out
    assert "train/train-00000.json: [0] img-0001: bbox_info[0].short_expr_negs: 9 negatives" in out
    assert "box_order: broken 1 times" in out
    assert "image_missing" in out
    assert "\x1b" not in out
    assert out.splitlines()[-1].startswith("not valid: 5 of")
    assert "--images whole decodes them" in out.splitlines()[-1]
    assert "\\n" not in out


def test_json_lists_every_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert run_command(["validate-set", str(tmp_path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["valid"] is False
    assert found["rules"]["image_missing"]["broken"] == 1
    assert found["rules"]["negatives_count"]["broken"] == 0
    assert found["rules"]["image_missing"]["examples"][0]["field"] == "f_path"


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    from pipelines.writers.whole_files import ImageFolder

    write(tmp_path / "set")
    ImageFolder(tmp_path / "pictures").put(make_sample(1))
    arguments = ["validate-set", str(tmp_path / "set"), "--images", "whole"]
    assert run_command(arguments) == 3
    assert run_command([*arguments, "--root", str(tmp_path / "pictures")]) == 0


@pytest.mark.parametrize(
    ("arguments", "code"), [(["none"], 4), (["."], 2), ([".", "--format", "xml"], 2), ([], 2)]
)
def test_calls_that_name_no_set(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_command(["validate-set", *arguments]) == code


def test_every_set_of_a_folder_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.pipelines.validation.test_validate import write_set

    for kind in ("coco", "finehard-json", "webdataset"):
        write_set(tmp_path / kind, kind)
    assert run_command(["validate-set", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "valid: all 3 sets"
    assert sum(line.startswith("valid: none of") for line in lines) == 3
    (path,) = (tmp_path / "finehard-json" / "train").glob("*.json")
    path.write_text('[{"broken":1}]')
    assert run_command(["validate-set", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "caption: is missing" in out
    assert f"  not valid: {tmp_path}/finehard-json (finehard-json)" in out
    assert out.splitlines()[-1] == "not valid: 1 of 3 sets"
    assert run_command(["validate-set", str(tmp_path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [one["valid"] for one in found["sets"]] == [True, False, True]
    assert found["valid"] is False


def test_a_note_is_told_and_changes_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    items = json.loads(path.read_text())
    items[0]["bbox_info"][0]["short_expr_negs"]["0"] = "a cup, red"
    path.write_text(json.dumps(items))
    assert run_command(["validate-set", str(tmp_path), "--images", "none"]) == 0
    out = capsys.readouterr().out
    assert "note, no fault: same_words: 1 time" in out
    assert out.splitlines()[-1].startswith("valid:")


def test_an_empty_set_is_exit_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("[]")
    assert run_command(["validate-set", str(tmp_path)]) == 3
    assert "empty: broken 1 times" in capsys.readouterr().out
