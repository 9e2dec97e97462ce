"""What a label recipe names, found: vocabulary, checkpoints, calibrator, shards. Writes nothing, loads no model."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from jobs.asking import asked_checkpoints, asking_of, pin_asked
from jobs.label_recipe import CalibratorFile, InputConfig, LabelRecipe
from jobs.places import absolute_url
from jobs.recipe import LoadedRecipe, to_plain
from jobs.recipe_text import split_recipe
from ovsops.annotators.captioner import captioner_classes
from ovsops.annotators.checkpoints import (
    annotator_checkpoints,
    check_annotator_licences,
    check_annotator_models,
    pin_annotator,
)
from ovsops.annotators.config import AnnotatorConfig
from ovsops.annotators.fingerprint import check_calibrator
from ovsops.backbones.shipped import fitted_file
from ovsops.errors import CheckpointError, VocabularyError
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.text.names import nearest
from ovsops.text.vocabulary import Vocabulary, load_vocabulary
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)

VOCABULARIES = Path(__file__).parents[1] / "ovsops" / "text" / "data"
"""Folder of the built-in vocabularies."""


@dataclass(frozen=True, kw_only=True)
class ResolvedLabel:
    """A recipe whose vocabulary, checkpoints and inputs are found. Nothing was written, no model loaded."""

    recipe: LabelRecipe
    """Absolute paths, vocabulary inline, no `auto`, every checkpoint with its SHA-256."""
    vocabulary: Vocabulary
    annotators: AnnotatorConfig
    """Who takes part, with the calibrator's content."""
    checkpoints: Mapping[str, str]
    """Identity by role."""
    shards: tuple[Shard, ...]

    @property
    def halves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The part of the recipe that can change a label, and the settings."""
        return split_recipe(to_plain(self.recipe))


def resolve(loaded: LoadedRecipe) -> ResolvedLabel:
    """Find everything a recipe names. Raises ConfigError (exit 2), CheckpointError or PreflightError (exit 4)."""
    recipe = loaded.recipe
    vocabulary = find_vocabulary(recipe.vocabulary, loaded.folder)
    check_annotator_licences(recipe.annotators)
    check_annotator_models(recipe.annotators, vocabulary)
    annotators = pin_annotator(recipe.annotators)
    calibrator, annotators = with_calibrator(recipe.calibrator, annotators, vocabulary)
    second = recipe.agreement
    if second is not None and annotators.other is not None:
        second = replace(second, segmenter=annotators.other)
    resolved = replace(
        recipe,
        input=replace(recipe.input, shards=tuple(absolute_url(p) for p in recipe.input.shards)),
        output=absolute_url(recipe.output),
        vocabulary=vocabulary.to_mapping(),
        segmenter=annotators.segmenter,
        detector=annotators.detector,
        expert=annotators.expert,
        captioner=annotators.captioner,
        agreement=second,
        calibrator=calibrator,
        ask=pin_asked(recipe.ask),
        model=recipe.model.resolve(num_gpus=recipe.segment_on.num_gpus),
    )
    asking_of(resolved, vocabulary)  # refuses captions that cannot be checked
    if recipe.captioner is not None:
        is_checked = recipe.expert is not None and recipe.captioner.grounding is not None
        captioner_classes(vocabulary, recipe.languages, is_checked=is_checked)  # likewise
    shards = input_shards(resolved.input, resolved.storage)
    return ResolvedLabel(
        recipe=resolved,
        vocabulary=vocabulary,
        annotators=annotators,
        checkpoints=annotator_checkpoints(annotators) | asked_checkpoints(resolved.ask),
        shards=shards,
    )


def input_shards(source: InputConfig, options: StorageOptions) -> tuple[Shard, ...]:
    """The shards that an input names. Those of `only` that are gone are left out, with a line in the log."""
    shards = expand_inputs(source.shards, options)
    if not source.only:
        return tuple(shards)
    wanted = set(source.only)
    chosen = tuple(shard for shard in shards if shard.name in wanted)
    if gone := sorted(wanted - {shard.name for shard in chosen}):
        logger.warning("%d shards of input.only are no longer there: %s", len(gone), ", ".join(gone[:5]))
    return chosen


def with_calibrator(
    file: CalibratorFile | None, annotators: AnnotatorConfig, vocabulary: Vocabulary
) -> tuple[CalibratorFile | None, AnnotatorConfig]:
    """The calibrator's file with its SHA-256, and the annotators with its content.

    Raises `CheckpointError` for a file that cannot be read, is another than the recipe expects, or was fitted on other
    models.
    """
    if file is None:
        return None, annotators
    path = fitted_file(file.source)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"calibrator {path}: cannot be read ({error.strerror}); check the path"
        ) from error
    found = sha256(data).hexdigest()
    if file.sha256 is not None and found != file.sha256:
        raise CheckpointError(
            f"calibrator {path}: SHA-256 is {found}, the recipe expects {file.sha256}; it was fitted anew"
        )
    try:
        plain = json.loads(data)
    except ValueError as error:
        raise CheckpointError(f"calibrator {path}: not JSON: {error}") from error
    full = replace(annotators, calibrator=ScoreCalibrator.from_json(plain))
    check_calibrator(full, vocabulary)
    return CalibratorFile(source=str(path.resolve()), sha256=found), full


def find_vocabulary(source: str | Mapping[str, Any], folder: Path) -> Vocabulary:
    """From a file (relative to `folder`), a built-in name, or the mapping itself."""
    if not isinstance(source, str):
        return Vocabulary.from_mapping(source)
    place = folder / Path(source).expanduser()
    if place.is_file():
        return load_vocabulary(place)
    built_in = {path.stem: path for path in sorted(VOCABULARIES.glob("*.yaml"))}
    if source in built_in:
        return load_vocabulary(built_in[source])
    raise VocabularyError(
        f"vocabulary {source!r}: no such file ({place}) and no built-in vocabulary"
        f"{nearest(source, built_in)}; built in are {', '.join(built_in)}"
    )
