"""From a recipe to a label job that can run: checks of devices and output, text features, manifest.

`prepare` finds what is wrong before any image is read; `label_resolve` is its cheap first half, which writes nothing.
"""

import json
import logging
import platform
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from jobs.asking import asking_of, check_key, questions_identity
from jobs.engines import EngineName, running_engine
from jobs.exits import PreflightError
from jobs.label_recipe import LabelRecipe, ModelConfig
from jobs.label_resolve import ResolvedLabel, resolve
from jobs.metrics import with_metrics
from jobs.named_settings import merge
from jobs.places import check_place
from jobs.recipe import LoadedRecipe, recipe_from_plain
from jobs.recipe_text import recipe_hash
from jobs.work_left import engine_for
from ovsops.annotators.annotator import Annotator
from ovsops.annotators.build import AnnotatorText, compute_annotator_text, load_annotator, one_thread_on_a_cpu
from ovsops.annotators.checkpoints import (
    box_checkpoints,
)
from ovsops.annotators.config import AnnotatorConfig
from ovsops.backbones.checkpoint import checkpoints_of
from ovsops.errors import ConfigError, OutputError, OvsopsError, VocabularyError
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.text.vocabulary import Vocabulary, check_append_only
from pipelines.label import LabelJob, record_failed_start, run_label
from pipelines.manifest import MANIFEST, differences, read_manifest
from pipelines.records import RegionClass
from pipelines.retry import run_retry
from pipelines.runner import RayEngine, cpu_shortage
from pipelines.schemas import SCHEMA_VERSION
from pipelines.storage import StorageOptions, open_storage
from pipelines.watch import Observer

logger = logging.getLogger(__name__)

_VERSIONED = ("ovsops", "torch", "transformers", "ray", "pyarrow", "numpy", "pillow", "simplejpeg")


@dataclass(frozen=True, kw_only=True)
class RecipeAnnotator:
    """Travels to the worker with configs, vocabulary and text features, and loads the weights there."""

    config: AnnotatorConfig
    vocabulary: Vocabulary
    languages: tuple[str, ...]
    text: AnnotatorText = field(repr=False)
    """Computed once, on the driver."""
    model: ModelConfig

    def build(self) -> Annotator:
        """Load the weights. On a CPU one thread an actor: two under load were ten times slower."""
        one_thread_on_a_cpu(self.model.device)
        return load_annotator(
            self.config,
            self.vocabulary,
            self.languages,
            self.text,
            device=self.model.device,
            dtype=self.model.dtype,
        )


def prepare(loaded: LoadedRecipe) -> LabelJob:
    """A job that can run; text features are computed here, once. Raises what `resolve` raises, and OutputError."""
    return prepare_resolved(resolve(loaded))


def prepare_resolved(resolved: ResolvedLabel) -> LabelJob:
    """`prepare` where everything is found already."""
    check_devices(resolved.recipe)
    check_key(resolved.recipe)
    check_output(resolved)
    recipe = resolved.recipe
    text = compute_annotator_text(
        resolved.annotators,
        resolved.vocabulary,
        recipe.languages,
        device="cuda" if recipe.model.device == "cuda" and torch.cuda.is_available() else "cpu",
        dtype="float32",
        cache_dir=recipe.cache_dir,
    )
    return LabelJob(
        output=recipe.output,
        shards=resolved.shards,
        annotator=RecipeAnnotator(
            config=resolved.annotators,
            vocabulary=resolved.vocabulary,
            languages=recipe.languages,
            text=text,
            model=recipe.model,
        ),
        segmenter_name=segmenter_name(recipe.segmenter, resolved.checkpoints),
        detector_name=detector_name(resolved.annotators),
        classes=region_classes(resolved.vocabulary, recipe.languages),
        manifest=make_manifest(resolved, text_identity=text.identity),
        reader=recipe.input.reader,
        decode=recipe.decode,
        batch=recipe.batch,
        regions=recipe.regions,
        instances=None if recipe.detector is None else recipe.instances,
        agreement=None if recipe.agreement is None else recipe.agreement.compare,
        ask=asking_of(recipe, resolved.vocabulary),
        limits=recipe.limits,
        storage=recipe.storage,
        segment_on=recipe.segment_on,
        encode_on=recipe.encode_on,
        ask_on=recipe.ask_on,
    )


def check_devices(recipe: LabelRecipe) -> None:
    """A GPU that the recipe asks for must be there, where that can be told from here."""
    steps = {"segment_on": recipe.segment_on} | ({} if recipe.ask is None else {"ask_on": recipe.ask_on})
    wanted = sum(step.actors * step.num_gpus for step in steps.values())
    if recipe.ray.address != "local" or wanted <= 0:
        return
    here = torch.cuda.device_count()
    if wanted > here:
        asks = [
            f"{name} asks for {step.actors} x {step.num_gpus}"
            for name, step in steps.items()
            if step.num_gpus
        ]
        raise PreflightError(
            f"{', '.join(asks)} GPUs, this machine has {here} that torch can use:"
            f" {' '.join(f'--set {asked.split()[0]}.num_gpus=0' for asked in asks)} runs on the CPU,"
            " --set ray.address=auto on a cluster"
        )


def check_output(resolved: ResolvedLabel) -> None:
    """An output that exists must have been made with this recipe; said before the text features are computed."""
    storage = open_storage(resolved.recipe.output, resolved.recipe.storage)
    if not storage.exists(MANIFEST):
        return
    earlier = read_manifest(storage)
    try:
        check_append_only(Vocabulary.from_mapping(earlier["vocabulary"]), resolved.vocabulary)
    except VocabularyError as error:
        raise OutputError(f"{storage.url} was made with another vocabulary: {error}") from error
    changes = list(differences(earlier["recipe"], resolved.halves[0]))
    if changes:
        raise OutputError(
            f"{storage.url} was made with another recipe; these fields differ: {'; '.join(changes[:20])}."
            " Choose another output, or set the fields back"
        )


def region_classes(vocabulary: Vocabulary, languages: tuple[str, ...]) -> tuple[RegionClass, ...]:
    """What records say about each class: its first prompt in the first language that prompts it."""
    classes = []
    for spec in vocabulary.classes:
        prompt, language = next(
            ((prompts[0], each) for each in languages if (prompts := vocabulary.prompts_of(spec, each))),
            (spec.name, vocabulary.name_language),
        )
        classes.append(RegionClass(id=spec.id, kind=spec.kind, prompt=prompt, language=language))
    return tuple(classes)


def segmenter_name(config: AnySegmenterConfig | None, checkpoints: Mapping[str, str]) -> str:
    """`fused/corrected/<hash of the checkpoints>`: what the `segmenter` column says."""
    if config is None:
        return ""
    own = {role: checkpoints[role] for role in checkpoints_of(config)}
    return f"{config.kind}/{config.mode}/{_hash_of_weights(own)}"


def detector_name(annotators: AnnotatorConfig) -> str:
    """`llmdet+fgclip2/<hash of both>`: what the `detector` column says; empty where nobody looked for boxes."""
    if annotators.detector is None:
        return ""
    judge = "" if annotators.expert is None else "+fgclip2"
    weights = box_checkpoints(annotators)
    return f"{annotators.detector.kind}{judge}" + (f"/{_hash_of_weights(weights)}" if weights else "")


def _hash_of_weights(checkpoints: Mapping[str, str]) -> str:
    weights = sorted(f"{role} {identity.rpartition(' ')[2]}" for role, identity in checkpoints.items())
    return sha256("; ".join(weights).encode()).hexdigest()[:12]


def make_manifest(resolved: ResolvedLabel, *, text_identity: str) -> dict[str, Any]:
    """Content of `run.json`."""
    labels, settings = resolved.halves
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": installed_versions(),
        "checkpoints": dict(resolved.checkpoints),
        "text_features": text_identity,
        **({} if resolved.recipe.ask is None else {"questions": questions_identity()}),
        "vocabulary": resolved.vocabulary.to_mapping(),
        "recipe": labels,
        "recipe_hash": recipe_hash(labels),
        "settings": settings,
    }


def installed_versions() -> dict[str, str]:
    """Of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def recipe_of_output(output: str, options: StorageOptions) -> LoadedRecipe:
    """The recipe that an output was made with, from its `run.json`."""
    storage = open_storage(output, options)
    manifest = read_manifest(storage)
    plain = merge(manifest["recipe"], manifest["settings"]) | {"output": output}
    where = f"{storage.url}/{MANIFEST}"
    recipe = recipe_from_plain(plain, where=where)
    if not isinstance(recipe, LabelRecipe):
        raise OutputError(f"{storage.url} is no output of the label job, but of {recipe.job}; check the path")
    if options != StorageOptions():
        recipe = replace(recipe, storage=options)
    return LoadedRecipe(recipe=recipe, folder=Path.cwd(), where=where)


def new_run_name() -> str:
    """Unique among starts; part file names carry it."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def run_recipe(
    loaded: LoadedRecipe,
    *,
    engine: EngineName,
    observer: Observer | None,
    retry_codes: frozenset[str] | None = None,
    retry: bool = False,
) -> dict[str, Any]:
    """Prepare and run (or retry failed rows of) a recipe's job; the summary."""
    recipe = loaded.recipe
    check_place(recipe.output)
    try:
        shortage = cpu_shortage(recipe.ray, recipe.placements)
        if engine == "ray" and shortage:
            raise PreflightError(shortage)
        job = prepare(loaded)
    except (ConfigError, OutputError):
        raise  # no usable recipe, or an output that is another run's: nothing of ours to write to
    except OvsopsError as error:
        record_failed_start(recipe.output, recipe.storage, recipe.limits, error)
        raise
    logger.info("recipe %s, output %s", json.dumps(job.manifest["recipe_hash"][:12]), job.output)
    engine = engine_for(job, engine, retry=retry, codes=retry_codes)
    record = partial(record_failed_start, recipe.output, recipe.storage, recipe.limits)
    with running_engine(engine, recipe.ray, recipe.storage, record=record) as opened:
        work, on_ray = "retry" if retry else "label", isinstance(opened, RayEngine)
        watching = with_metrics(observer, work=work, output=job.output, on_ray=on_ray)
        if retry:
            return run_retry(job, opened, run=new_run_name(), codes=retry_codes, observer=watching)
        return run_label(job, opened, run=new_run_name(), observer=watching)
