"""Checkpoints that come with the package, and their constants."""

from pathlib import Path

import pytest

from ovsops.backbones.shipped import (
    PARTS,
    miniature_calibration,
    miniature_checkpoint,
    miniature_checkpoints,
)
from ovsops.errors import CheckpointError


def test_every_part_must_be_there(tmp_path: Path) -> None:
    for part in PARTS[:2]:
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").touch()
    with pytest.raises(
        CheckpointError, match=r"mapper not found; expected the parts siglip2, dinov2, mapper"
    ):
        miniature_checkpoints(tmp_path)
    (tmp_path / "mapper").mkdir()
    (tmp_path / "mapper" / "mapper.safetensors").touch()
    assert miniature_checkpoints(tmp_path) == tmp_path


def test_one_part_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    with pytest.raises(CheckpointError, match=r"clip: no weights found; expected its \.safetensors there"):
        miniature_checkpoint("clip", tmp_path)
    (tmp_path / "clip" / "model.safetensors").touch()
    assert miniature_checkpoint("clip", tmp_path) == tmp_path / "clip"
    with pytest.raises(
        CheckpointError, match=r"no miniature checkpoint 'sam'; there are siglip2, .*, clip, dino, sam3"
    ):
        miniature_checkpoint("sam", tmp_path)


def test_constants_are_finite_numbers_or_an_error(tmp_path: Path) -> None:
    assert miniature_calibration(tmp_path) == {}
    path = tmp_path / "calibration.json"
    path.write_text('{"alpha": 1, "temperature": 0.05}')
    assert miniature_calibration(tmp_path) == {"alpha": 1.0, "temperature": 0.05}
    for text, message in (
        ('{"alpha": NaN}', "alpha is no finite number"),
        ('{"alpha": true}', "alpha is no finite number"),
        ("[1]", "found list"),
        ("{", "cannot be read as JSON"),
    ):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            miniature_calibration(tmp_path)
