"""A dry run of a job over committed shards: what it would do and what would fail. Writes nothing."""

import shutil
from collections.abc import Iterator

from jobs.dataset_recipe import DatasetRecipe
from jobs.exits import ExitCode
from jobs.mine_recipe import MineRecipe
from jobs.negatives_recipe import NegativesRecipe
from jobs.places import output_problem
from jobs.plan import Plan, readable
from jobs.recipe import LoadedUnits
from jobs.unit_jobs import UnitRecipe, absolute, prepare_units, worker_shortage
from ovsops.errors import OutputError, StorageError
from pipelines.counted import counted
from pipelines.dataset import DatasetJob, unread_shards
from pipelines.endpoint_config import EndpointConfig
from pipelines.endpoint_probe import endpoint_problem
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.ledger import Ledger
from pipelines.manifest import MANIFEST, differences, read_manifest
from pipelines.negatives_llm import LlmDraw
from pipelines.storage import local_path, open_storage
from pipelines.units import UnitJob, unit_ledger


def make_unit_plan(loaded: LoadedUnits) -> Plan:
    """Look at everything that a recipe names. Raises ConfigError for the recipe itself."""
    recipe = absolute(loaded.recipe)
    try:
        job = prepare_units(loaded)
        labels = open_label_run(recipe.labels, recipe.storage)
    except StorageError as error:
        return Plan(facts=(), problems=(str(error),), exit_code=ExitCode.PREFLIGHT)
    except OutputError as error:
        return Plan(facts=(), problems=(str(error),), exit_code=ExitCode.OUTPUT)
    problems = []
    exit_code = ExitCode.DONE
    for problem in (
        worker_shortage(recipe),
        *_missing(job),
        _unanswered(recipe),
        *_space(job, labels),
    ):
        if problem:
            problems.append(problem)
            exit_code = ExitCode.PREFLIGHT
    if problem := output_problem(recipe.output):
        problems.append(problem)
        exit_code = ExitCode.USAGE
    elif problem := changed_recipe(job):
        problems.append(problem)
        exit_code = ExitCode.OUTPUT
    facts = (*_input_facts(job, labels), *_own_facts(recipe))
    return Plan(facts=facts, problems=tuple(problems), exit_code=exit_code)


def changed_recipe(job: UnitJob) -> str:
    """Which fields differ from those that the output was made with, or nothing."""
    storage = open_storage(job.output, job.storage)
    if not storage.exists(MANIFEST):
        return ""
    changes = list(differences(read_manifest(storage)["recipe"], job.manifest["recipe"]))
    if not changes:
        return ""
    return (
        f"{storage.url} was made with another recipe; these fields differ: {'; '.join(changes[:20])}. Choose another"
        " output, or set the fields back"
    )


def _missing(job: UnitJob) -> Iterator[str]:
    if isinstance(job, DatasetJob) and (names := unread_shards(job.units)):
        yield (
            f"the images of {counted(len(names), 'labelled shards')} are not where the label run found them (the first:"
            f" {', '.join(names[:3])}): put them back, or name where they are now in `shards`"
        )


def _unanswered(recipe: UnitRecipe) -> str:
    """Why a language model would not answer, or nothing."""
    if not isinstance(recipe, NegativesRecipe) or recipe.llm is None or recipe.llm.endpoint is None:
        return ""
    return endpoint_problem(recipe.llm.endpoint)


def _space(job: UnitJob, labels: LabelRun) -> Iterator[str]:
    """Room for the images: each format has them once."""
    if not isinstance(job, DatasetJob):
        return
    needed = sum(commit.size for commit in labels.commits) * len(job.set.formats)
    place = local_path(job.output)
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        yield (
            f"output {place}: {len(job.set.formats)} formats of {readable(needed)} of images at most, {readable(free)}"
            " are free; ask for fewer formats, or choose another folder"
        )


def _input_facts(job: UnitJob, labels: LabelRun) -> Iterator[tuple[str, str]]:
    commits = labels.commits
    regions = sum(commit.instances for commit in commits)
    images = sum(commit.labelled for commit in commits)
    yield (
        "labels",
        f"{labels.url}: {counted(len(commits), 'committed shards')},"
        f" {counted(images, 'labelled images')}, {counted(regions, 'regions')}",
    )
    storage = open_storage(job.output, job.storage)
    ledger: Ledger = unit_ledger(storage, job.kinds)
    pending = ledger.pending([unit.shard for unit in job.units], job.storage).shards
    yield "done before", f"{counted(len(job.units) - len(pending), 'shards')}; {len(pending)} to do"
    yield "output", job.output


def _own_facts(recipe: UnitRecipe) -> Iterator[tuple[str, str]]:
    if isinstance(recipe, NegativesRecipe):
        return _negatives_facts(recipe)
    return _mine_facts(recipe) if isinstance(recipe, MineRecipe) else _set_facts(recipe)


def _mine_facts(recipe: MineRecipe) -> Iterator[tuple[str, str]]:
    made = "" if recipe.embed is None else f"by {recipe.embed.fgclip2.source} on {recipe.embed.device}"
    yield "vectors", made or f"those of {recipe.vectors}"
    kinds = [*recipe.kinds, *(["exclusive"] if recipe.exclusive else [])]
    yield (
        "pairs",
        f"{', '.join(kinds)}; {recipe.mining.k} nearest with a cosine of {recipe.mining.min_score:g} or more",
    )


def _negatives_facts(recipe: NegativesRecipe) -> Iterator[tuple[str, str]]:
    yield (
        "negatives",
        f"{recipe.negatives.level}, seed {recipe.negatives.seed}, of {', '.join(recipe.draw.texts)}",
    )
    checks = (
        []
        if recipe.validate is None
        else [n for n in ("texts", "labels", "margin") if getattr(recipe.validate, n)]
    )
    yield "checked by", ", ".join(checks) or "nobody"
    if recipe.llm is not None:
        yield from _model_facts(recipe.llm, workers=recipe.work_on.actors)


def _model_facts(llm: LlmDraw, *, workers: int) -> Iterator[tuple[str, str]]:
    """Who is asked, and for what."""
    if llm.endpoint is not None:
        yield "endpoint", _endpoint_fact(llm.endpoint, workers=workers)
    if llm.vllm is not None:
        vllm = llm.vllm
        gpus = f"{counted(vllm.replicas * vllm.gpus_per_replica, 'GPUs')} ({vllm.accelerator_type or 'any'})"
        yield "vllm", f"{vllm.model} on {gpus}, asked about all shards before the first one is worked on"
    rest = "rules fill up" if llm.otherwise == "rule" else "none without it"
    yield "is asked for", f"{llm.most} of ten negatives of {llm.share:.0%} of the regions; {rest}"


def _endpoint_fact(endpoint: EndpointConfig, *, workers: int) -> str:
    """Where questions go; shows no key."""
    key = f"key from {endpoint.key_from_env}" if endpoint.key_from_env else "no key"
    cost = "no limit on its cost" if endpoint.max_cost is None else f"{endpoint.max_cost:g} a worker at most"
    at_once = f"{counted(endpoint.concurrency, 'questions')} at a time a worker"
    if workers:
        at_once = f"{counted(workers * endpoint.concurrency, 'questions')} at a time"
    return f"{endpoint.model} at {endpoint.completions_url}, {at_once}, {key}, {cost}"


def _set_facts(recipe: DatasetRecipe) -> Iterator[tuple[str, str]]:
    yield "negatives", recipe.negatives or "none: a set without negatives"
    yield "formats", ", ".join(recipe.set.formats)
    yield (
        "splits",
        f"val {recipe.splits.val:g}, test {recipe.splits.test:g}, the rest train (shares of groups)",
    )
