"""From a recipe over committed shards (negatives, dataset, mine) to a job that can run.

`run_unit_recipe(load_recipe(path))` is the whole job as a function: its summary is what `ovsops run` shows.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jobs.dataset_recipe import DatasetRecipe
from jobs.engines import EngineName, running_engine
from jobs.exits import PreflightError
from jobs.label import installed_versions, new_run_name, recipe_of_output
from jobs.metrics import with_metrics
from jobs.mine_recipe import MineRecipe
from jobs.named_settings import merge
from jobs.negatives_recipe import NegativesRecipe
from jobs.places import absolute_url, check_place
from jobs.recipe import LoadedUnits, recipe_from_plain, to_plain
from jobs.recipe_text import recipe_hash, split_recipe
from jobs.work_left import engine_for_units
from ovsops.backbones.checkpoint import Checkpoint, pin_checkpoints, resolve
from ovsops.errors import ConfigError, OutputError, OvsopsError
from ovsops.negatives.lexicon import LANGUAGES
from pipelines.dataset import DatasetJob, dataset_units
from pipelines.dataset_plan import SetRules
from pipelines.embedding import EmbedJob, embed_units
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.llm_batch import NEEDS_RAY, BatchError, check_vllm, gpu_shortage
from pipelines.manifest import UNIT_JOBS, job_of_manifest, read_manifest
from pipelines.mine_job import MineJob, stored_units
from pipelines.negatives import NegativesJob, negatives_commits, negatives_units
from pipelines.readers import ReaderConfig
from pipelines.runner import RayEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.summary import SUMMARY
from pipelines.unit_tools import record_failed_units
from pipelines.units import UnitJob, run_units
from pipelines.watch import Observer

logger = logging.getLogger(__name__)

UnitRecipe = NegativesRecipe | DatasetRecipe | MineRecipe
_MADE_OF = "made_of"
"""Field of the manifest's recipe for what is no field of the recipe, and decides the result all the same."""


def prepare_units(loaded: LoadedUnits) -> UnitJob:
    """A job that can run; no image is read. Raises ConfigError, OutputError, StorageError."""
    recipe = absolute(loaded.recipe)
    check_batch_stage(recipe)
    try:
        labels = open_label_run(recipe.labels, recipe.storage)
    except OutputError as error:
        raise ConfigError(f"labels: {error}") from error
    if isinstance(recipe, NegativesRecipe):
        return _negatives_job(recipe, labels)
    if isinstance(recipe, MineRecipe):
        return _mine_job(recipe, labels)
    return _dataset_job(recipe, labels)


def absolute(recipe: UnitRecipe) -> UnitRecipe:
    """Workers may run in another folder."""
    if isinstance(recipe, NegativesRecipe):
        return replace(recipe, labels=absolute_url(recipe.labels), output=absolute_url(recipe.output))
    if isinstance(recipe, MineRecipe):
        return replace(
            recipe,
            labels=absolute_url(recipe.labels),
            output=absolute_url(recipe.output),
            vectors=None if recipe.vectors is None else absolute_url(recipe.vectors),
            shards=tuple(absolute_url(pattern) for pattern in recipe.shards),
        )
    return replace(
        recipe,
        labels=absolute_url(recipe.labels),
        negatives=None if recipe.negatives is None else absolute_url(recipe.negatives),
        output=absolute_url(recipe.output),
        shards=tuple(absolute_url(pattern) for pattern in recipe.shards),
        keep_splits_of=None if recipe.keep_splits_of is None else absolute_url(recipe.keep_splits_of),
    )


def _negatives_job(recipe: NegativesRecipe, labels: LabelRun) -> NegativesJob:
    validators = None
    sources: list[Shard] = []
    reader = ReaderConfig()
    if recipe.validate is not None:
        margin = recipe.validate.margin
        if margin is not None:
            check_fgclip2(margin.fgclip2)
            recipe = replace(recipe, validate=replace(recipe.validate, margin=pin_checkpoints(margin)))
            labelled = recipe_of_output(recipe.labels, recipe.storage).recipe
            sources = expand_inputs(labelled.input.shards, recipe.storage)
            reader = labelled.input.reader
        assert recipe.validate is not None
        validators = recipe.validate.factory(labels.manifest["vocabulary"])
    made_of: dict[str, Any] = {"labels_recipe_hash": labels.recipe_hash, "lexicons": lexicon_versions()}
    if recipe.llm is not None:
        made_of["questions"] = question_versions()
        try:
            if recipe.llm.endpoint is not None:
                recipe.llm.endpoint.key()
        except ConfigError as error:
            raise PreflightError(
                f"{error}; export it before the start, on every machine that asks"
            ) from error
    return NegativesJob(
        output=recipe.output,
        units=negatives_units(labels, sources),
        reader=reader,
        manifest=_manifest(recipe, made_of, labels),
        limits=recipe.limits,
        storage=recipe.storage,
        work_on=recipe.work_on,
        labels=labels,
        negatives=recipe.negatives,
        llm=recipe.llm,
        draw=recipe.draw,
        validators=validators,
        audit=recipe.audit,
    )


def check_batch_stage(recipe: UnitRecipe, engine: EngineName = "ray") -> None:
    """ConfigError where a recipe's language model is a batch stage that cannot run here, before anything is read."""
    if isinstance(recipe, NegativesRecipe) and recipe.llm is not None and recipe.llm.vllm is not None:
        if engine != "ray":
            raise ConfigError(NEEDS_RAY)
        check_vllm()


def check_fgclip2(checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` for what is no FG-CLIP 2, before a worker does."""
    from ovsops.backbones.fgclip2_model import read_fgclip2_config  # loads transformers

    read_fgclip2_config(resolve(checkpoint))


def lexicon_versions() -> dict[str, str]:
    """SHA-256 of the words that negatives are made with, by language."""
    return {language: _digest(f"{language}.yaml") for language in LANGUAGES}


def question_versions() -> dict[str, str]:
    """SHA-256 of the words that a language model is asked with, by language."""
    return {language: _digest(f"llm_{language}.yaml") for language in LANGUAGES}


def _digest(name: str) -> str:
    data = resources.files("ovsops.negatives").joinpath("data", name).read_bytes()
    return hashlib.sha256(data).hexdigest()


def _dataset_job(recipe: DatasetRecipe, labels: LabelRun) -> DatasetJob:
    made_of = {"labels_recipe_hash": labels.recipe_hash, "negatives_recipe_hash": ""}
    by_unit = {}
    if recipe.negatives is not None:
        storage = open_storage(recipe.negatives, recipe.storage)
        manifest = _manifest_of_job(recipe.negatives, recipe.storage, "negatives")
        made_of["negatives_recipe_hash"] = manifest["recipe_hash"]
        by_unit = negatives_commits(storage)
    labelled = recipe_of_output(recipe.labels, recipe.storage).recipe
    patterns = recipe.shards or labelled.input.shards
    return DatasetJob(
        output=recipe.output,
        units=dataset_units(
            labels,
            expand_inputs(patterns, recipe.storage),
            negatives=recipe.negatives,
            negatives_by_unit=by_unit,
        ),
        manifest=_manifest(recipe, made_of, labels),
        limits=recipe.limits,
        storage=recipe.storage,
        work_on=recipe.work_on,
        rules=SetRules(
            categories={spec.id: spec.name for spec in labels.vocabulary.classes},
            build=recipe.build,
            filters=recipe.filters,
            duplicates=recipe.duplicates,
            splits=recipe.splits,
        ),
        set=recipe.set,
        vocabulary=labels.vocabulary,
        reader=labelled.input.reader,
        keep_splits_of=recipe.keep_splits_of,
    )


def _mine_job(recipe: MineRecipe, labels: LabelRun) -> MineJob:
    made_of = {"labels_recipe_hash": labels.recipe_hash, "vectors_recipe_hash": ""}
    if recipe.embed is not None:
        check_fgclip2(recipe.embed.fgclip2)
        recipe = replace(recipe, embed=pin_checkpoints(recipe.embed))
        labelled = recipe_of_output(recipe.labels, recipe.storage).recipe
        patterns = recipe.shards or labelled.input.shards
        units = embed_units(labels, expand_inputs(patterns, recipe.storage))
    elif recipe.vectors is not None:
        manifest = _manifest_of_job(recipe.vectors, recipe.storage, "mine", field="vectors")
        made_of["vectors_recipe_hash"] = manifest["recipe_hash"]
        units = stored_units(labels, recipe.vectors, recipe.storage)
    common: dict[str, Any] = {
        "output": recipe.output,
        "units": units,
        "manifest": _manifest(recipe, made_of, labels),
        "limits": recipe.limits,
        "storage": recipe.storage,
        "work_on": recipe.work_on,
        "labels": labels,
    }
    embed = None
    if recipe.embed is not None:
        embed = EmbedJob(
            checkpoint=recipe.embed.fgclip2,
            config=recipe.embed,
            reader=labelled.input.reader,
            decode=labelled.decode,
            **common,
        )
    return MineJob(
        embed=embed,
        vectors=recipe.vectors,
        looks=recipe.kinds,
        mining=recipe.mining,
        exclusive=recipe.exclusive,
        mine_on=recipe.mine_on,
        **common,
    )


def _manifest_of_job(url: str, options: StorageOptions, job: str, *, field: str = "") -> dict[str, Any]:
    """The manifest of an output of that job, or ConfigError that names the recipe's field (the job's name, unless
    said)."""
    field = field or job
    try:
        manifest = read_manifest(open_storage(url, options))
    except OutputError as error:
        raise ConfigError(f"{field}: {error}") from error
    found = job_of_manifest(manifest)
    if found != job:
        raise ConfigError(f"{field}: {url} is an output of the {found} job; name one of the {job} job")
    return manifest


def _manifest(recipe: UnitRecipe, made_of: Mapping[str, Any], labels: LabelRun) -> dict[str, Any]:
    """Content of `run.json`."""
    decides, settings = split_recipe(
        to_plain(recipe), is_setting=partial(_is_setting, settings=recipe.settings)
    )
    decides[_MADE_OF] = dict(made_of)
    return {
        "schema_version": SCHEMA_VERSION,
        "versions": installed_versions(),
        "checkpoints": labels.manifest.get("checkpoints", {}),
        "recipe": decides,
        "recipe_hash": recipe_hash(decides),
        "settings": settings,
    }


def _is_setting(path: str, *, settings: tuple[str, ...]) -> bool:
    return any(path == setting or path.startswith(f"{setting}.") for setting in settings)


def unit_recipe_of_output(output: str, options: StorageOptions) -> LoadedUnits | None:
    """The recipe that an output of these jobs was made with; None for an output of another job."""
    storage = open_storage(output, options)
    manifest = read_manifest(storage)
    if job_of_manifest(manifest) not in UNIT_JOBS:
        return None
    plain = merge(manifest["recipe"], manifest["settings"]) | {"output": output}
    plain.pop(_MADE_OF)
    where = f"{storage.url}/run.json"
    recipe = recipe_from_plain(plain, where=where)
    assert isinstance(recipe, UnitRecipe)
    if options != StorageOptions():
        recipe = replace(recipe, storage=options)
    return LoadedUnits(recipe=recipe, folder=Path.cwd(), where=where)


def run_unit_recipe(
    loaded: LoadedUnits,
    *,
    engine: EngineName = "ray",
    observer: Observer | None = None,
    codes: Sequence[str] = (),
) -> dict[str, Any]:
    """Do what a recipe says, or go on with it; the summary.

    With `codes` only shards that failed with one of them in the last start; what is committed is never made again.
    """
    recipe = loaded.recipe
    check_place(recipe.output)
    check_batch_stage(recipe, engine)
    only = failed_shards(recipe, codes) if codes else None
    try:
        if engine == "ray" and (problem := worker_shortage(recipe)):
            raise PreflightError(problem)
        job = prepare_units(loaded)
    except (ConfigError, OutputError):
        raise  # no usable recipe: nothing of ours to write to
    except OvsopsError as error:
        record_failed_units(absolute_url(recipe.output), recipe.storage, error)
        raise
    logger.info("recipe %s, output %s", job.manifest["recipe_hash"][:12], job.output)
    engine = engine_for_units(job, engine)
    record = partial(record_failed_units, job.output, job.storage)
    with running_engine(engine, recipe.ray, recipe.storage, record=record) as opened:
        on_ray = isinstance(opened, RayEngine)
        watching = with_metrics(observer, work=recipe.job, output=job.output, on_ray=on_ray)
        try:
            return run_units(job, opened, run=new_run_name(), observer=watching, only=only)
        except BatchError as error:
            raise PreflightError(str(error)) from error


def failed_shards(recipe: UnitRecipe, codes: Sequence[str]) -> frozenset[str]:
    """Names of shards that failed with one of the codes in the last start. ConfigError where there is none."""
    storage = open_storage(absolute_url(recipe.output), recipe.storage)
    failed: dict[str, str] = {}
    if storage.exists(SUMMARY):
        failed = json.loads(storage.read(SUMMARY)).get("shards", {}).get("failed", {})
    found = {message.partition(":")[0] for message in failed.values()}
    if unknown := [code for code in codes if code not in found]:
        raise ConfigError(
            f"--code {unknown[0]}: no shard of {storage.url} failed with it in the last start"
            f" ({', '.join(sorted(found)) or 'none failed at all'}); `ovsops status` shows them"
        )
    return frozenset(name for name, message in failed.items() if message.partition(":")[0] in codes)


def worker_shortage(recipe: UnitRecipe) -> str:
    """Why a private Ray could never run the workers at once, or nothing."""
    placements = {"work_on": recipe.work_on}
    if isinstance(recipe, MineRecipe):
        placements["mine_on"] = recipe.mine_on
    present = recipe.ray.num_cpus or os.cpu_count() or 1
    for name, placement in placements.items():
        needed = max(1, placement.actors) * placement.num_cpus
        if recipe.ray.address == "local" and needed > present:
            return (
                f"ray: {name} asks for {needed:g} CPU shares at once, there are {present}: lower {name}.num_cpus or"
                f" {name}.actors, or raise ray.num_cpus (shares may be more than there are cores)"
            )
    if isinstance(recipe, NegativesRecipe) and recipe.llm is not None and recipe.llm.vllm is not None:
        return gpu_shortage(recipe.llm.vllm, recipe.ray)
    return ""
