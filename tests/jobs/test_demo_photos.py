"""The demo on photos, without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest

from jobs import demo_photos
from jobs.recipe import load_recipe
from pipelines.storage import open_storage


def test_the_demo_labels_exports_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_photos, "PHOTOS", ("coffee.png",))
    monkeypatch.setattr(demo_photos, "DRAWN_SCENES", 1)
    assert demo_photos.main(["--out", str(tmp_path / "demo"), "--engine", "inline"]) == 0
    document = json.loads((tmp_path / "demo" / "coco" / "instances.json").read_text())
    assert len(document["images"]) == 2
    assert document["annotations"]
    assert len(document["licenses"]) == 2
    assert len(list((tmp_path / "demo" / "overlays").glob("*.png"))) == 2
    assert "know nothing" in capsys.readouterr().out
    assert open_storage(str(tmp_path / "demo" / "run")).exists("summary.json")


def test_inputs_are_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_photos, "PHOTOS", ())
    recipe = demo_photos.write_inputs(tmp_path / "a")
    demo_photos.write_inputs(tmp_path / "b")
    assert load_recipe(recipe).recipe.output == str(tmp_path / "a" / "run")
    for path in (tmp_path / "a" / "shards").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "shards" / path.name).read_bytes()


def test_without_scikit_image_scenes_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_photos, "find_spec", lambda _: None)
    assert list(demo_photos.photos()) == []
    assert len(list(demo_photos.drawn_scenes())) == demo_photos.DRAWN_SCENES


def test_every_named_photo_is_in_the_wheel_of_scikit_image() -> None:
    pytest.importorskip("skimage")
    assert [p.key for p in demo_photos.photos()] == [Path(name).stem for name in demo_photos.PHOTOS]


def test_a_folder_name_that_yaml_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="without punctuation"):
        demo_photos.write_inputs(tmp_path / "a: b")


def test_scenes_differ_by_seed() -> None:
    first, second = (np.asarray(demo_photos.draw_scene(seed)) for seed in (0, 1))
    assert not np.array_equal(first, second)


def test_files_that_no_demo_wrote_stay(tmp_path: Path) -> None:
    precious = tmp_path / "shards" / "precious.tar"
    precious.parent.mkdir()
    precious.write_bytes(b"mine")
    with pytest.raises(SystemExit, match="no `make photos` wrote"):
        demo_photos.main(["--out", str(tmp_path)])
    assert precious.read_bytes() == b"mine"


def test_recipe_default_and_make_name_one_folder_that_is_not_the_other_demos() -> None:
    text = demo_photos.RECIPE.read_text("utf-8")
    assert "photos-out/run" in text
    assert "demo-out" not in text
    assert demo_photos.DEFAULT_OUT == Path("photos-out")
    assert all(out in text for out in ("photos-out/shards", "photos-out/checkpoints/mapper"))
