"""What a label recipe needs and is not there: every missing checkpoint at once, and the endpoint."""

from collections.abc import Iterator, Sequence
from typing import Any

from jobs.asking import check_key
from jobs.exits import PreflightError
from jobs.label_recipe import LabelRecipe
from ovsops.backbones.checkpoint import checkpoints_of, resolve
from ovsops.backbones.presets import PRESETS
from ovsops.errors import CheckpointError
from ovsops.segmenters.build import mapper_file
from pipelines.endpoint_probe import endpoint_problem


def missing_checkpoints(recipe: LabelRecipe) -> list[str]:
    """Why each checkpoint that is not there, or has other content, cannot be used, with the field that names it."""
    problems = []
    for field, part in _parts(recipe):
        for role, checkpoint in checkpoints_of(part).items():
            try:
                resolve(mapper_file(checkpoint) if role == "mapper" else checkpoint)
            except CheckpointError as error:
                problems.append(f"{field}.{role}: {error}")
    return problems


def presets_once(problems: Sequence[str]) -> list[str]:
    """The same with the long list of presets in the first problem alone that has it."""
    known = f"one of the presets {', '.join(PRESETS)}"
    first = next((place for place, problem in enumerate(problems) if known in problem), None)
    return [
        problem if place == first else problem.replace(known, "one of the presets above")
        for place, problem in enumerate(problems)
    ]


def asking_problems(recipe: LabelRecipe) -> list[str]:
    """Why nobody would answer: the key is missing, or the endpoint is not there or refuses it."""
    if recipe.ask is None:
        return []
    try:
        check_key(recipe)
    except PreflightError as error:
        return [str(error)]
    problem = endpoint_problem(recipe.ask.endpoint)
    return [problem] if problem else []


def _parts(recipe: LabelRecipe) -> Iterator[tuple[str, Any]]:
    """Configs that name checkpoints, by their place in the recipe."""
    yield from (
        (name, part)
        for name, part in (
            ("segmenter", recipe.segmenter),
            ("detector", recipe.detector),
            ("expert", recipe.expert),
            ("captioner", recipe.captioner),
            ("agreement.segmenter", None if recipe.agreement is None else recipe.agreement.segmenter),
            ("ask.ground", None if recipe.ask is None else recipe.ask.ground),
        )
        if part is not None
    )
