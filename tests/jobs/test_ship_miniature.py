"""What `make miniature` trains, in which order, and from what each training starts."""

from pathlib import Path

import pytest

from jobs.recipe import LoadedTrain, load_recipe
from jobs.ship_miniature import FGCLIP2, RECIPES, training_command, trainings


def test_each_training_starts_from_an_earlier_one() -> None:
    done: set[str] = set()
    for name, starts in trainings():
        assert set(starts.values()) <= done, name
        done.add(name)
    assert FGCLIP2[-1] in done


@pytest.mark.parametrize("training", trainings(), ids=lambda each: each[0])
def test_every_start_is_a_field_of_its_recipe(training: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    name, starts = training
    _, recipe, *settings = training_command(name, tmp_path / "out", starts, tmp_path)
    loaded = load_recipe(Path(recipe), settings[1::2])
    assert isinstance(loaded, LoadedTrain)
    program = loaded.recipe.program
    for field, before in starts.items():
        value: object = program
        for part in field.split(".")[1:]:
            value = getattr(value, part)
        assert value == str(tmp_path / before / "checkpoint")


def test_every_recipe_of_a_miniature_training_is_run_or_named_elsewhere() -> None:
    """A recipe that no chain runs is an alternative that a card or a page shows."""
    run = {name for name, _ in trainings()}
    alternatives = {"dinov2_selfsup", "fgclip2_set", "mapper", "mapper_stages"}
    there = {
        path.stem.removeprefix("train_").removesuffix("_miniature") for path in RECIPES.glob("train_*.yaml")
    }
    assert there == run | alternatives
