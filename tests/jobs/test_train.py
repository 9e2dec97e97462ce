"""The train job through the command: recipe to checkpoint, and the exit codes on the way."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.named_settings import merge
from jobs.recipe import LoadedTrain, load_recipe, recipe_from_plain, recipe_schema, to_plain
from jobs.recipe_text import split_recipe
from jobs.train import resolve
from jobs.train_recipe import TrainRecipe, is_train_setting
from ovsops.errors import ConfigError
from tests.pipelines.training.tiny_program import NUM_SCENES, broken_members, write_scenes

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
Command = Callable[..., tuple[int, str, str]]


def plain_recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    recipe = {
        "job": "train",
        "input": {"world": {"scenes": 8}},
        "output": str(folder / "out"),
        "program": {"kind": "dinov2", "batch_size": 4},
        "loop": {"num_steps": 2, "log_every": 1},
        "engine": "inline",
    }
    return recipe | changes


def recipe(**changes: Any) -> TrainRecipe:
    made = recipe_from_plain(plain_recipe(Path("f"), **changes), where="recipe r")
    assert isinstance(made, TrainRecipe)
    return made


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(plain_recipe(tmp_path, **changes)))
        return path

    return write


def test_a_recipe_becomes_a_checkpoint_and_is_finished_the_second_time(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    path = write_recipe()
    code, _, told = ovsops("run", path)
    assert (code, "checkpoint:" in told) == (0, True), told
    out = tmp_path / "out"
    for name in ("run.json", "data.json", "curve.csv", "curve.png", "checkpoint/config.json"):
        assert (out / name).is_file(), name
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["state"], summary["steps"]) == ("done", {"done": 2, "asked": 2})
    assert summary["this_run"]["worker"]["peak_memory_mib"] > 100
    assert len(list((tmp_path / "cache" / "world").iterdir())) == 1  # drawn once, kept

    assert ovsops("run", path)[0] == 0
    code, _, told = ovsops("run", path, "--set", "loop.learning_rate=0.5")
    assert (code, "loop.learning_rate: 0.001 -> 0.5" in told) == (5, True)
    assert ovsops("run", path, "--set", "loop.save_every=1")[0] == 0  # a setting may change
    code, _, told = ovsops("retry", out)
    assert (code, "no output of the label job" in told) == (5, True)


def test_a_training_may_be_lengthened_where_its_rate_is_constant(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    loop = {"num_steps": 2, "log_every": 1, "warmup_steps": 0}
    assert ovsops("run", write_recipe(loop=loop))[0] == 0
    code, _, told = ovsops("run", tmp_path / "recipe.yaml", "--set", "loop.num_steps=3")
    assert code == 5
    assert "loop.num_steps: 2 -> 3" in told
    assert "where the rate is constant (loop.final_share: 1) num_steps may grow" in " ".join(told.split())

    constant = loop | {"final_share": 1.0}
    path = write_recipe(loop=constant, output=str(tmp_path / "constant"))
    assert ovsops("run", path)[0] == 0
    assert ovsops("run", path, "--set", "loop.num_steps=3")[0] == 0
    summary = json.loads((tmp_path / "constant" / "summary.json").read_text())
    assert (summary["state"], summary["steps"]) == ("done", {"done": 3, "asked": 3})
    assert summary["this_run"]["worker"]["start"] == 2
    code, _, told = ovsops("run", path)
    assert (code, "loop.num_steps is 2, but" in told, "set it to 3 or more" in told) == (2, True, True), told


def test_broken_scenes_over_the_limit_are_exit_3(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    shards = tmp_path / "in"
    write_scenes(shards, broken=broken_members())
    code, _, told = ovsops("run", write_recipe(input={"shards": str(shards)}))
    assert (code, f"5 of {NUM_SCENES + 5} images failed" in told, "E_TRUTH" in told) == (3, True, True)


def test_shards_that_do_not_fill_a_batch_are_exit_2(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    write_scenes(tmp_path / "in")
    code, _, told = ovsops(
        "run",
        write_recipe(input={"shards": str(tmp_path / "in")}, program={"kind": "dinov2", "batch_size": 32}),
    )
    assert (code, f"{NUM_SCENES} scenes do not fill one batch of 32" in told) == (2, True), told


def test_a_checkpoint_that_is_missing_is_exit_4_with_a_summary(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    towers = {"siglip": {"source": str(tmp_path / "no")}, "dino": {"source": str(tmp_path / "none")}}
    code, _, told = ovsops("run", write_recipe(program={"kind": "mapper", "batch_size": 4, **towers}))
    assert code == 4
    assert "train the towers first (ovsops run jobs/recipes/train_siglip2_miniature.yaml" in told
    assert "--set program.siglip.source=miniature:siglip2" in told
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "not started"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": {"kind": "dinov3"}}, r"program\.kind is \"dinov3\"; did you mean 'dinov2'"),
        ({"program": {"batch_size": 3}}, r"program\.kind is missing"),
        (
            {"program": {"kind": "siglip2", "bach_size": 3}},
            r"program\.bach_size .* did you mean 'batch_size'",
        ),
        ({"program": {"kind": "siglip2", "batch_size": "3"}}, r"program\.batch_size is \"3\""),
        ({"loop": {"num_steps": 2, "save_evry": 1}}, "did you mean 'save_every'"),
        ({"loop": {"num_steps": 0}}, r"loop\.num_steps is 0; it must be 1 or more"),
        ({"program": {"kind": "dinov2", "batch_size": 0}}, r"program\.batch_size is 0; it must be 1 or more"),
        (
            {"program": {"kind": "dinov2", "batch_size": 9}},
            r"scenes is 8, which does not fill one batch of 9",
        ),
        ({"workers": 3, "engine": "ray"}, r"scenes is 8, which does not fill one batch of 12"),
        ({"input": {"world": {"scenes": 8, "size": 100}}}, "which patches of 8 do not fill"),
        (
            {"input": {"world": {"scenes": 64, "size": 96}}, "program": {"kind": "siglip2"}},
            r"are 96x96 pixels .* learns from 128x128",
        ),
        ({"input": {}}, "either shards"),
        ({"input": {"shards": ["a"], "world": {"scenes": 1}}}, "either shards"),
        ({"input": {"set": "a", "world": {"scenes": 1}}}, "either shards .* or set"),
        ({"input": {"world": {"scenes": 8}, "split": "val"}}, r"about input\.set, which is not given"),
        (
            {"input": {"set": "a"}},
            r"input\.set is for program\.kind fgclip2_stage1 .* dinov2 learns from scenes",
        ),
        ({"input": {"set": "a", "format": "coco"}}, r"input\.format is \"coco\""),
        ({"input": {"world": {"scenes": 0}}}, r"input\.world\.scenes is 0"),
        ({"workers": 2}, "workers over 1 need Ray"),
        ({"workers": 0}, "num_workers 0"),
        ({"segmenter": {}}, "segmenter is not a known field"),
    ],
)
def test_recipes_that_cannot_run_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_swapped_towers_are_noticed_before_scenes_are_drawn(
    write_recipe: Callable[..., Path], ovsops: Command, tmp_path: Path
) -> None:
    towers = {"siglip": {"source": "miniature:dinov2"}, "dino": {"source": "miniature:siglip2"}}
    code, _, told = ovsops("run", write_recipe(program={"kind": "mapper", "batch_size": 4, **towers}))
    assert code == 4
    assert "model_type 'dinov2_with_registers'; expected siglip or siglip2" in told
    assert "it is one for program.dino: are the two swapped?" in told
    assert not (tmp_path / "cache").exists()


def test_a_field_of_workers_may_be_set_where_they_are_a_number(write_recipe: Callable[..., Path]) -> None:
    loaded = load_recipe(write_recipe(workers=1), ["workers.num_threads=1"])
    assert isinstance(loaded, LoadedTrain)
    assert (loaded.recipe.workers.num_workers, loaded.recipe.workers.num_threads) == (1, 1)
    again = load_recipe(write_recipe(workers=1, engine="ray"), ["workers=2"])
    assert isinstance(again, LoadedTrain)
    assert again.recipe.workers.num_workers == 2


def test_workers_may_be_a_number() -> None:
    made = recipe(workers=2, engine="ray")
    assert made.workers.num_workers == 2
    assert made == recipe(workers={"num_workers": 2}, engine="ray")


def test_a_bucket_cannot_hold_states() -> None:
    with pytest.raises(ConfigError, match="are folders"):
        resolve(recipe(output="s3://bucket/x"))


def test_what_is_learned_and_the_settings_make_the_recipe_whole_again() -> None:
    plain = to_plain(recipe(workers=2, engine="ray"))
    learned, settings = split_recipe(plain, is_setting=partial(is_train_setting, loop=recipe().loop))
    assert merge(learned, settings) == plain
    assert learned["workers"] == {"num_workers": 2}
    assert set(learned) == {"input", "program", "loop", "workers", "decode"}


def test_the_schema_knows_every_program_and_its_fields() -> None:
    schema = recipe_schema("train")
    kinds = set(schema["properties"]["program"]["discriminator"]["mapping"])
    of_towers = {"siglip2", "dinov2", "dinov2_selfsup", "clip", "dino", "sam3", "llmdet"}
    of_regions = {"fgclip2_stage1", "fgclip2_stage2", "fgclip2_patches"}
    assert kinds == {*of_towers, *of_regions, "mapper", "mapper_stages"}
    assert "description" in schema["$defs"]["Siglip2Recipe"]["properties"]["batch_size"]
    assert schema["$defs"]["LoopConfig"]["additionalProperties"] is False


@pytest.mark.parametrize("path", sorted(RECIPES.glob("train_*.yaml")), ids=lambda p: p.stem)
def test_shipped_train_recipes_load(path: Path) -> None:
    assert isinstance(load_recipe(path), LoadedTrain)


def test_the_recipe_of_talk2dino_has_the_published_optimiser() -> None:
    """Adam (AdamW without decay) at a constant 1e-4, no warm-up, no clipping, batches of 128."""
    loaded = load_recipe(RECIPES / "train_mapper_miniature.yaml")
    assert isinstance(loaded, LoadedTrain)
    loop = loaded.recipe.loop
    assert (loop.learning_rate, loop.weight_decay, loop.betas) == (1e-4, 0.0, (0.9, 0.999))
    assert (loop.warmup_steps, loop.final_share, loop.clip_norm) == (0, 1.0, math.inf)
    assert loaded.recipe.program.batch_size == 128


def test_where_a_set_lies_may_change_and_which_split_is_learned_from_may_not() -> None:
    loop = recipe().loop
    assert [is_train_setting(f"input.{name}", loop) for name in ("set", "images", "split", "format")] == [
        True,
        True,
        False,
        False,
    ]
    program = {"kind": "fgclip2_stage1", "batch_size": 4}
    given = recipe(input={"set": "sets/a", "images": "pictures"}, program=program)
    resolved = resolve(given)
    assert resolved.input.set == str(Path("sets/a").absolute())
    assert resolved.input.training_set is not None
    assert resolved.input.training_set.images == str(Path("pictures").absolute())
