"""The steps of a night: each is a recipe of another job, with tonight's shards and folders put in, and run as such.

    canary -> retry -> label -> negatives -> dataset -> evaluate -> audit

A step gives plain data for the night's record. It is safe to run again: the jobs themselves go on where they stopped.
"""

import logging
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.audit import CSV, draw
from jobs.engines import EngineName
from jobs.evaluate import run_evaluation
from jobs.label import recipe_of_output, run_recipe
from jobs.label_resolve import resolve
from jobs.live import make_observer
from jobs.named_settings import merge, named_as_mappings, with_named_settings
from jobs.nightly_recipe import AuditDraw, CanaryConfig, NightlyRecipe
from jobs.recipe import LoadedEvaluate, LoadedNightly, LoadedRecipe, LoadedUnits, recipe_from_plain
from jobs.recipe_text import read_recipe_file
from jobs.unit_jobs import run_unit_recipe, unit_recipe_of_output
from ovsops.errors import CheckpointError, ConfigError, OutputError
from pipelines.audit.record import RECORD
from pipelines.codes import RETRYABLE
from pipelines.dataset_plan import Plan
from pipelines.diff.canary import canary_labels
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import MANIFEST, NIGHTS
from pipelines.nightly import NightLedger, NightPlan, NightRecord
from pipelines.nightly_checks import MOST_NAMES, has_labels
from pipelines.storage import Storage, local_path, open_storage, scheme_of

logger = logging.getLogger(__name__)

NOTHING = "nothing was labelled tonight"


@dataclass(frozen=True, kw_only=True)
class Tonight:
    """What every step is told."""

    loaded: LoadedNightly
    ledger: NightLedger
    plan: NightPlan
    records: Sequence[NightRecord]
    """Committed nights, in order."""
    engine: EngineName
    console: Console

    @property
    def recipe(self) -> NightlyRecipe:
        """The nightly recipe."""
        return self.loaded.recipe

    def url(self, place: str, night: str | None = None) -> str:
        """Output of a step, tonight's or another night's."""
        return f"{self.ledger.storage.url}/{NIGHTS}/{night or self.plan.night}/{place}"

    def storage(self, place: str, night: str | None = None) -> Storage:
        """The same, opened."""
        return open_storage(self.url(place, night), self.recipe.storage)

    def commits(self) -> list[Commit]:
        """What is labelled tonight."""
        storage = self.storage("label")
        return Ledger(storage).read_all() if storage.exists(MANIFEST) else []


class NightStep(ABC):
    """One step; the seam at which further jobs join the night."""

    name: str

    @abstractmethod
    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Do it, or go on with it. Plain data: `over_limits`, and what is counted."""


def load_step(loaded: LoadedNightly, step: str, places: Mapping[str, Any]) -> Any:
    """The recipe of a step with tonight's `places` put in. Raises ConfigError that says where it stands."""
    own: Any = getattr(loaded.recipe, step)
    fields = {"use": own} if isinstance(own, str) else dict(own)
    folder, where = loaded.folder, f"{loaded.where}: {step}"
    plain = named_as_mappings({name: value for name, value in fields.items() if name != "use"})
    if "use" in fields:
        path = folder / Path(str(fields["use"])).expanduser()
        folder, where = path.resolve().parent, f"{where}: {path}"
        plain = merge(named_as_mappings(read_recipe_file(path)), plain)
    if plain.setdefault("job", step) != step:
        raise ConfigError(f"{where}: job is {plain['job']!r}; this step wants a recipe of the job {step!r}")
    plain.setdefault("storage", asdict(loaded.recipe.storage))
    recipe = recipe_from_plain(
        with_named_settings(merge(plain, {}) | dict(places), folder, where=where), where=where
    )
    kind = {"label": LoadedRecipe, "evaluate": LoadedEvaluate}.get(step, LoadedUnits)
    return kind(recipe=recipe, folder=folder, where=where)


def label_recipe(
    loaded: LoadedNightly,
    output: str,
    *,
    only: Iterable[str] = (),
    shards: Sequence[str] | None = None,
) -> LoadedRecipe:
    """The label recipe over some of its shards, or over others."""
    own: LoadedRecipe = load_step(loaded, "label", {"output": output})
    places = {"only": list(only)} | ({} if shards is None else {"shards": list(shards)})
    source = asdict(own.recipe.input) | places
    with_input: LoadedRecipe = load_step(loaded, "label", {"output": output, "input": source})
    return with_input


def check_steps(loaded: LoadedNightly) -> None:
    """Load every step, so that a mistake in the last one is not found at four in the morning."""
    recipe = loaded.recipe
    label_recipe(loaded, "labels")
    if recipe.negatives is not None:
        load_step(loaded, "negatives", {"labels": "labels", "output": "negatives"})
    if recipe.dataset is not None:
        load_step(
            loaded, "dataset", {"labels": "labels", "negatives": None, "output": f"{recipe.output}/dataset"}
        )
    if recipe.evaluate is not None:
        load_step(loaded, "evaluate", {"labels": {"labels": "labels"}, "output": "evaluate"})
    if recipe.audit is not None and scheme_of(recipe.output) != "file":
        raise ConfigError(
            f"{loaded.where}: audit draws into a folder, and output is {recipe.output}: leave audit out, and run"
            " `ovsops audit` on a night"
        )


def steps_of(recipe: NightlyRecipe) -> list[NightStep]:
    """The steps of a recipe, in order."""
    steps: list[NightStep] = [] if recipe.canary is None else [CanaryStep(recipe.canary)]
    if recipe.retry.nights:
        steps.append(RetryStep())
    steps.append(LabelStep())
    if recipe.negatives is not None:
        steps.append(NegativesStep())
    if recipe.dataset is not None:
        steps.append(DatasetStep())
    if recipe.evaluate is not None:
        steps.append(EvaluateStep())
    if recipe.audit is not None:
        steps.append(AuditStep(recipe.audit))
    return steps


class CanaryStep(NightStep):
    """Labels the canary as tonight's shards will be labelled, before any of them is."""

    name = "canary"

    def __init__(self, config: CanaryConfig) -> None:
        self.config = config

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Label it; the digests of its labels."""
        output = tonight.url(self.name)
        loaded = label_recipe(tonight.loaded, output, shards=self.config.shards)
        with make_observer(tonight.console) as observer:
            summary = run_recipe(loaded, engine=tonight.engine, observer=observer)
        return {**label_counts(summary), "labels": canary_labels(tonight.storage(self.name))}


class RetryStep(NightStep):
    """Tries failed rows of earlier nights again, with the recipes of those nights."""

    name = "retry"

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Try those that may go better; a night whose checkpoints or shards are gone is named, not tried."""
        nights: dict[str, Any] = {}
        recent = [record.night for record in tonight.records if record.shards][-tonight.recipe.retry.nights :]
        for night in recent:
            storage = tonight.storage("label", night)
            if not has_labels(storage):
                continue  # pruned
            codes = self._codes(storage, tonight.recipe.retry.codes)
            if codes:
                nights[night] = self._retry(tonight, night, codes)
        return {
            "nights": nights,
            "tried": sum(each.get("tried", 0) for each in nights.values()),
            "mended": sum(each.get("mended", 0) for each in nights.values()),
        }

    def _codes(self, storage: Storage, wanted: Iterable[str]) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for commit in Ledger(storage).read_all():
            counts.update(commit.codes)
        return {code: counts[code] for code in wanted if counts[code] and code in RETRYABLE}

    def _retry(self, tonight: Tonight, night: str, codes: Mapping[str, int]) -> dict[str, Any]:
        loaded = recipe_of_output(tonight.url("label", night), tonight.recipe.storage)
        try:
            resolve(loaded)
        except (CheckpointError, ConfigError, OutputError) as error:
            logger.warning(
                "night %s: its %d failed rows are not tried again: %s", night, sum(codes.values()), error
            )
            return {"codes": dict(codes), "not_tried": str(error)}
        before = sum(commit.failed for commit in Ledger(tonight.storage("label", night)).read_all())
        with make_observer(tonight.console) as observer:
            summary = run_recipe(
                loaded, engine=tonight.engine, observer=observer, retry=True, retry_codes=frozenset(codes)
            )
        mended = before - summary["images"]["failed"]
        if mended:
            self._renew_negatives(tonight, night)
        return {
            "codes": dict(codes),
            "tried": summary["this_run"]["retried_images"],
            "mended": mended,
            "failed_shards": first_of(summary["shards"]["failed"]),
        }

    def _renew_negatives(self, tonight: Tonight, night: str) -> None:
        """Negatives of labels that a retry made. That night's training set stays: it may be in use."""
        storage = tonight.storage("negatives", night)
        if not storage.exists(MANIFEST):
            return
        loaded = unit_recipe_of_output(storage.url, tonight.recipe.storage)
        if loaded is not None:
            with make_observer(tonight.console, "regions") as observer:
                run_unit_recipe(loaded, engine=tonight.engine, observer=observer)


class LabelStep(NightStep):
    """Labels the new shards."""

    name = "label"

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Label those of the plan that are still there."""
        planned = [shard.name for shard in tonight.plan.shards]
        if not planned:
            return {"skipped": "no new shard"}
        loaded = label_recipe(tonight.loaded, tonight.url(self.name), only=planned)
        with make_observer(tonight.console) as observer:
            summary = run_recipe(loaded, engine=tonight.engine, observer=observer)
        labelled = {commit.name for commit in tonight.commits()}
        left = [name for name in planned if name not in labelled]
        gone = [name for name in left if name not in summary["shards"]["failed"]]
        over = [f"{len(gone)} planned shards are gone: {', '.join(gone[:MOST_NAMES])}"] if gone else []
        counts = label_counts(summary)
        return counts | {"over_limits": counts["over_limits"] + over, "not_labelled": left[:MOST_NAMES]}


class NegativesStep(NightStep):
    """Makes negatives of tonight's labels."""

    name = "negatives"

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Run the negatives job."""
        if not tonight.commits():
            return {"skipped": NOTHING}
        places = {"labels": tonight.url("label"), "output": tonight.url(self.name)}
        loaded: LoadedUnits = load_step(tonight.loaded, self.name, places)
        with make_observer(tonight.console, "regions") as observer:
            summary = run_unit_recipe(loaded, engine=tonight.engine, observer=observer)
        return unit_counts(summary) | {"regions": summary["regions"]}


class DatasetStep(NightStep):
    """Makes tonight's training sets."""

    name = "dataset"

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Run the dataset job; what the last night's set held out stays held out."""
        if not tonight.commits():
            return {"skipped": NOTHING}
        has_negatives = tonight.recipe.negatives is not None
        places: dict[str, Any] = {
            "labels": tonight.url("label"),
            "negatives": tonight.url("negatives") if has_negatives else None,
            "output": tonight.url(self.name),
        }
        loaded: LoadedUnits = load_step(tonight.loaded, self.name, places)
        earlier = self._earlier_set(tonight)
        if getattr(loaded.recipe, "keep_splits_of", None) is None and earlier is not None:
            loaded = load_step(tonight.loaded, self.name, {**places, "keep_splits_of": earlier})
        with make_observer(tonight.console) as observer:
            summary = run_unit_recipe(loaded, engine=tonight.engine, observer=observer)
        sets = {
            name: {"valid": report["valid"], "images": report["images"], "splits": report["splits"]}
            for name, report in summary.get("sets", {}).items()
        }
        return unit_counts(summary) | {"images": summary["images"], "sets": sets}

    def _earlier_set(self, tonight: Tonight) -> str | None:
        for record in reversed(tonight.records):
            storage = tonight.storage(self.name, record.night)
            if Plan.read(storage) is not None:
                return storage.url
        return None


class EvaluateStep(NightStep):
    """Scores tonight's labels against truth."""

    name = "evaluate"

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Run the evaluate job."""
        if not tonight.commits():
            return {"skipped": NOTHING}
        places = {"labels": {"labels": tonight.url("label")}, "output": tonight.url(self.name)}
        loaded: LoadedEvaluate = load_step(tonight.loaded, self.name, places)
        summary = run_evaluation(loaded)
        figures = {
            name: figure
            for run in (*summary["figures"].values(), *summary["instances"]["figures"].values())
            for name, figure in run.items()
        }
        return {
            "over_limits": list(summary["over_limits"]),
            "figures": {name: figure["value"] for name, figure in figures.items()},
        }


class AuditStep(NightStep):
    """Draws labels for people to judge."""

    name = "audit"

    def __init__(self, config: AuditDraw) -> None:
        self.config = config

    def run(self, tonight: Tonight) -> dict[str, Any]:
        """Draw beside and rename, so that a folder with that name is whole."""
        if not any(commit.instances for commit in tonight.commits()):
            return {"skipped": "there are no labels to judge"}
        out = local_path(tonight.url(self.name))
        if not (out / RECORD).exists():
            partial = out.with_name(f"{self.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            draw(
                tonight.storage("label"),
                partial,
                self.config.sample,
                tonight.recipe.storage,
                has_pictures=self.config.pictures,
            )
            partial.replace(out)
        return {"form": str(out / CSV)}


def label_counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of a label run's summary, what a night's record holds."""
    return {
        "over_limits": list(summary["over_limits"]),
        "shards": summary["shards"]["committed"],
        "failed_shards": first_of(summary["shards"]["failed"]),
        "damaged_shards": first_of(summary["shards"]["damaged"]),
        "images": summary["images"],
        "failures_by_code": summary["failures_by_code"],
        "images_this_start": summary["this_run"]["images"],
        "images_per_second": summary["this_run"]["images_per_second"],
        **({} if "endpoint" not in summary["this_run"] else {"endpoint": summary["this_run"]["endpoint"]}),
    }


def unit_counts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Of a summary of negatives or of a set, what a night's record holds."""
    return {
        "over_limits": list(summary["over_limits"]),
        "shards": summary["shards"]["committed"],
        "failed_shards": first_of(summary["shards"]["failed"]),
    }


def first_of(messages: Mapping[str, str]) -> dict[str, Any]:
    """How many, and the first ones."""
    return {"count": len(messages), "first": dict(list(messages.items())[:MOST_NAMES])}
