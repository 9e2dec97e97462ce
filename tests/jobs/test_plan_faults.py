"""What `ovsops plan` says of input that a run would not read, or not to its end."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


def test_a_cut_archive_is_a_problem_unless_the_limits_allow_it(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe()
    shard = min((tmp_path / "in").glob("*.tar"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    code, out, err = ovsops("plan", recipe)
    assert code == 4
    assert "1 damaged shards, limits.max_damaged_shards is 0" in " ".join((out + err).split())
    assert shard.name in " ".join((out + err).split())
    assert ovsops("plan", recipe, "--set", "limits.max_damaged_shards=1")[0] == 0


def test_pictures_of_kinds_that_are_not_read_are_counted(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe()
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(folder / "a.png")
    for name in ("b.heic", "c.gif"):
        shutil.copy(folder / "a.png", folder / name)
    words = ("--set", f"input.shards={folder}")
    code, out, _ = ovsops("plan", recipe, *words)
    assert code == 0
    assert "2 pictures of other kinds" in " ".join(out.split())
    code, _, err = ovsops("run", recipe, *words, "--engine", "inline")
    assert code == 0
    assert "2 pictures of other kinds" in " ".join(err.split()) or "pictures of other kinds" in err
