"""What `make miniature` trains, in which order, and from what each training starts."""

from pathlib import Path

import pytest

from jobs.recipe import LoadedTrain, load_recipe
from jobs.ship_miniature import FGCLIP2, RECIPES, TOWERS, Training, trainings


def test_each_training_starts_from_an_earlier_one() -> None:
    done: set[str] = set()
    for training in trainings():
        assert set(training.starts.values()) <= done, training
        assert training.output not in done
        done.add(training.output)
    assert {FGCLIP2[-1][1], "mapper", *TOWERS} <= done


@pytest.mark.parametrize("training", trainings(), ids=lambda each: each.output)
def test_every_start_is_a_field_of_its_recipe(training: Training, tmp_path: Path) -> None:
    _, recipe, *settings = training.command(tmp_path)
    loaded = load_recipe(Path(recipe), settings[1::2])
    assert isinstance(loaded, LoadedTrain)
    assert loaded.recipe.output == str(tmp_path / training.output)
    for name, before in training.starts.items():
        value: object = loaded.recipe.program
        for part in name.split(".")[1:]:
            value = getattr(value, part)
        assert value == str(tmp_path / before / "checkpoint")


def test_every_recipe_of_a_miniature_training_is_run_or_an_alternative() -> None:
    run = {training.recipe for training in trainings()}
    alternatives = {"dinov2_selfsup", "fgclip2_set", "mapper", "mapper_stages"}
    paths = RECIPES.glob("train_*.yaml")
    there = {path.stem.removeprefix("train_").removesuffix("_miniature") for path in paths}
    assert there == run | alternatives
