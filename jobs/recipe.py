"""A recipe: what a run shall do, as one YAML file, resolved into the dataclasses that stages and operators own.

`job` says which recipe it is; its class lies in a module of its own, which is loaded when such a recipe is read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from jobs.door import from_plain, json_schema
from jobs.label_recipe import LabelRecipe
from jobs.named_settings import named_as_mappings, with_named_settings
from jobs.recipe_text import (
    NIGHTLY_STEPS,
    apply_overrides,
    read_recipe_file,
    refuse_secrets,
    steps_as_mappings,
    with_shorthands,
)
from ovsops.errors import ConfigError

if TYPE_CHECKING:
    from jobs.dataset_recipe import DatasetRecipe
    from jobs.evaluate_recipe import EvaluateRecipe
    from jobs.mine_recipe import MineRecipe
    from jobs.negatives_recipe import NegativesRecipe
    from jobs.nightly_recipe import NightlyRecipe
    from jobs.train_recipe import TrainRecipe

    UnitRecipe: TypeAlias = NegativesRecipe | DatasetRecipe | MineRecipe
    AnyRecipe: TypeAlias = "LabelRecipe | TrainRecipe | EvaluateRecipe | UnitRecipe | NightlyRecipe"


JOBS = ("label", "negatives", "dataset", "mine", "train", "evaluate", "nightly")
"""Values of `job`."""


def recipe_class(job: str) -> "type[AnyRecipe]":
    """Recipe class by the value of `job`."""
    if job == "label":
        return LabelRecipe
    if job == "negatives":
        from jobs.negatives_recipe import NegativesRecipe  # loads the lexicons' code

        return NegativesRecipe
    if job == "dataset":
        from jobs.dataset_recipe import DatasetRecipe  # loads the writers

        return DatasetRecipe
    if job == "mine":
        from jobs.mine_recipe import MineRecipe  # loads the code of embeddings

        return MineRecipe
    if job == "evaluate":
        from jobs.evaluate_recipe import EvaluateRecipe  # loads the metrics

        return EvaluateRecipe
    if job == "nightly":
        from jobs.nightly_recipe import NightlyRecipe  # loads what nights are compared with

        return NightlyRecipe
    from jobs.train_recipe import TrainRecipe  # loads the programs, which label recipes do not need

    return TrainRecipe


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe of the label job and where it came from."""

    recipe: LabelRecipe
    folder: Path
    """A relative vocabulary is looked up here."""
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedTrain:
    """A recipe of the train job and where it came from."""

    recipe: "TrainRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedEvaluate:
    """A recipe of the evaluate job and where it came from."""

    recipe: "EvaluateRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedUnits:
    """A recipe of a job over committed shards (negatives, dataset, mine) and where it came from."""

    recipe: "UnitRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedNightly:
    """A recipe of the nightly job and where it came from."""

    recipe: "NightlyRecipe"
    folder: Path
    """Relative recipes of steps are looked up here."""
    where: str


Loaded = LoadedRecipe | LoadedTrain | LoadedEvaluate | LoadedUnits | LoadedNightly


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe file and apply `a.b=c` overrides. Raises ConfigError."""
    where = f"recipe {path}"
    plain = named_as_mappings(read_recipe_file(path))
    folder = path.resolve().parent
    if isinstance(plain.get("workers"), int):  # so that --set workers.num_threads=1 finds a mapping
        plain["workers"] = {"num_workers": plain["workers"]}
    if plain.get("job") == "nightly":
        plain = steps_as_mappings(plain)
    full = with_named_settings(apply_overrides(plain, overrides), folder, where=where)
    recipe = recipe_from_plain(full, where=where)
    if isinstance(recipe, LabelRecipe):
        return LoadedRecipe(recipe=recipe, folder=folder, where=where)
    if recipe.job == "negatives" or recipe.job == "dataset" or recipe.job == "mine":
        return LoadedUnits(recipe=recipe, folder=folder, where=where)
    if recipe.job == "evaluate":
        return LoadedEvaluate(recipe=recipe, folder=folder, where=where)
    if recipe.job == "nightly":
        return LoadedNightly(recipe=recipe, folder=folder, where=where)
    return LoadedTrain(recipe=recipe, folder=folder, where=where)


def recipe_from_plain(plain: Mapping[str, Any], *, where: str) -> "AnyRecipe":
    """Plain data to a recipe; ConfigError names every wrong field."""
    refuse_secrets(plain, where)
    job = plain.get("job", "label")
    if job not in JOBS:
        raise ConfigError(f"{where}: job is {job!r}; this version knows {', '.join(JOBS)}")
    return from_plain(recipe_class(str(job)), with_shorthands(plain), where=where)


def to_plain(recipe: "AnyRecipe") -> dict[str, Any]:
    """Every field with its value, as plain data (tuples as lists)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def to_yaml(recipe: "AnyRecipe") -> str:
    """The resolved recipe as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True, width=110)


def recipe_schema(job: str = "label") -> dict[str, Any]:
    """JSON schema for editors."""
    schema = json_schema(recipe_class(job))
    if job == "nightly":
        for step in NIGHTLY_STEPS:
            schema["properties"][step] |= {
                "anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]
            }
        _allow(schema["$defs"]["CanaryConfig"]["properties"], "shards", {"type": "string"})
    if job in ("negatives", "dataset", "mine", "nightly"):
        return schema
    if job == "evaluate":
        _allow(schema["properties"], "labels", {"type": "string"})
        _allow(schema["properties"], "objects", {"type": "string"})
    if job in ("label", "evaluate"):
        _allow(schema["$defs"]["WorldTruthConfig"]["properties"], "shards", {"type": "string"})
    if job == "evaluate":
        return schema
    source = schema["$defs"]["InputConfig" if job == "label" else "TrainInput"]["properties"]
    _allow(source, "shards", {"type": "string"})
    if job == "label":
        named = {"properties": {"use": {"type": "string"}}, "required": ["use"], "type": "object"}
        _allow(schema["properties"], "segmenter", {"anyOf": [{"type": "string"}, named]})
        schema["properties"]["vocabulary"] |= {"anyOf": [{"type": "string"}, {"type": "object"}]}
    else:
        _allow(schema["properties"], "workers", {"type": "integer", "minimum": 1})
    return schema


def _allow(properties: dict[str, Any], name: str, shorthand: Mapping[str, Any]) -> None:
    """A property that may be given in another way, too."""
    full = properties[name]
    properties[name] = {"description": full.pop("description", ""), "anyOf": [dict(shorthand), full]}
