"""What `ovsops plan` says of input that a run would not read, or not to its end."""

import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ovsops.backbones.shipped import MINIATURE_NOTICE
from tests.pipelines.chat_server import chat_server, sends

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
    assert "1 damaged shard, limits.max_damaged_shards is 0" in " ".join((out + err).split())
    assert shard.name in " ".join((out + err).split())
    assert ovsops("plan", recipe, "--set", "limits.max_damaged_shards=1")[0] == 0


def test_everything_that_is_missing_is_named_at_once(
    write_recipe: Write, ovsops: Call, checkpoints: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = {"url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1", "model": "tiny"}
        recipe = write_recipe(
            detector={"kind": "llmdet", "llmdet": {"source": "no/detector"}},
            expert={"fgclip2": {"source": "no/expert"}},
            agreement={
                "segmenter": {
                    "kind": "scclip",
                    "clip": {"source": "no/clip"},
                }
            },
            ask={"endpoint": endpoint},
        )
        words = (
            "--set",
            "segmenter.dino.source=no/such/dino",
            "--set",
            "segmenter.mapper.source=no/such/mapper",
        )
        code, out, err = ovsops("plan", recipe, *words)
    said = " ".join((out + err).split())
    assert code == 4, said
    for field, source in (
        ("segmenter.dino", "no/such/dino"),
        ("segmenter.mapper", "no/such/mapper"),
        ("detector.llmdet", "no/detector"),
        ("expert.fgclip2", "no/expert"),
        ("agreement.segmenter.clip", "no/clip"),
    ):
        assert said.count(f"would fail: {field}: checkpoint {source}") == 1, said
    assert "segmenter.siglip" not in said, "it is there"
    assert said.count("siglip2-base-patch16-naflex") == 1, "the list of presets is long"
    assert f"endpoint {endpoint['url']}: cannot be reached" in said


def test_miniature_checkpoints_over_other_pictures_than_drawn_ones(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    shipped = {"siglip": "siglip2", "dino": "dinov2", "mapper": "mapper"}
    recipe = write_recipe(segmenter={role: {"source": f"miniature:{part}"} for role, part in shipped.items()})
    _, out, _ = ovsops("plan", recipe)
    assert MINIATURE_NOTICE in " ".join(out.split())
    for number, shard in enumerate(sorted((tmp_path / "in").glob("*.tar"))):
        shard.rename(shard.with_name(f"world-{number:06d}.tar"))
    _, out, _ = ovsops("plan", recipe)
    assert "drawn scenes only" not in " ".join(out.split())


def test_a_dead_endpoint_is_a_problem_and_a_plan_asks_nothing_else(write_recipe: Write, ovsops: Call) -> None:
    with chat_server() as chat:
        recipe = write_recipe(ask={"endpoint": {"url": chat.url, "model": "tiny"}}, ray={"num_cpus": 3})
        code, out, err = ovsops("plan", recipe)
        assert code == 0, out + err
        chat.models = sends(401)
        code, out, _ = ovsops("plan", recipe)
        assert (code, "a key is wanted" in out) == (4, True), out
    code, out, _ = ovsops("plan", recipe)
    assert (code, "cannot be reached" in out) == (4, True), out
    assert not chat.bodies


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
