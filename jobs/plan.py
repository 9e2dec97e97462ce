"""A dry run: what a recipe would do, what that needs, and what would fail. Writes nothing.

`jobs.plan_sample` goes on from here where a timed sample is wanted.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from jobs.asking import ask_facts
from jobs.exits import ExitCode, PreflightError
from jobs.label import check_devices, check_output
from jobs.label_recipe import LabelRecipe
from jobs.label_resolve import ResolvedLabel, resolve
from jobs.places import output_problem
from jobs.plan_needs import asking_problems, missing_checkpoints, presets_once
from jobs.recipe import LoadedRecipe, to_plain
from ovsops.annotators.checkpoints import planes_of_scores, weight_files
from ovsops.backbones.shipped import MINIATURE_NOTICE, names_miniature
from ovsops.errors import CheckpointError, OutputError, StorageError
from ovsops.text.prompts import class_prompts
from pipelines.counted import counted
from pipelines.keys import FOREIGN_IMAGE, IMAGE_EXTENSIONS, UNREAD_PICTURES, extension_of
from pipelines.ledger import Commit, Ledger
from pipelines.readers import read_shard
from pipelines.redact import redact
from pipelines.rows import Closing
from pipelines.runner import cpu_shortage
from pipelines.shards import Shard
from pipelines.storage import StorageOptions, open_storage
from pipelines.world_shards import is_drawn

SAMPLE_SHARDS = 2
"""Archives that are read to estimate how many images all of them hold."""
SAMPLE_BYTES = 256 * 2**20
"""No more than this is read of one archive, or of all of them, for a count."""

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run would do."""

    facts: tuple[tuple[str, str], ...]
    """Name and value, in the order they are shown."""
    problems: tuple[str, ...]
    """What would end the run, and the way out."""
    exit_code: ExitCode = ExitCode.DONE
    stages: tuple[tuple[str, ...], ...] = ()
    """Rows of a table of stages, the first one its head, where a sample was timed."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The same as numbers, for plan.json."""
    hint: str = ""
    """What could be asked for, too."""


@dataclass(frozen=True, kw_only=True)
class ImageCount:
    """How many images some shards hold."""

    number: float | None
    """None where nothing was read to count them."""
    archives: int = 0
    """Archives that the number is estimated from; 0 where it was counted."""
    are_heads: bool = False
    """Whether only their beginnings were read."""
    damages: tuple[str, ...] = ()
    """What is wrong with archives that were read."""

    @property
    def says(self) -> str:
        """In words."""
        if self.number is None:
            return f"images not counted: archives of over {readable(SAMPLE_BYTES)} are not read for that"
        if self.archives:
            whole = f"{self.archives} archives of median size"
            of = f"the beginnings of {self.archives} archives" if self.are_heads else whole
            return f"about {counted(round(self.number), 'images', f'{round(self.number):,}')} (estimated from {of})"
        return counted(round(self.number), "images")


@dataclass(frozen=True, kw_only=True)
class Look:
    """A plan without a sample, and what a sample goes on from."""

    plan: Plan
    resolved: ResolvedLabel | None
    """None where the recipe names something that is not there."""
    pending: tuple[Shard, ...] = ()
    """Shards that are still to do."""
    to_label: ImageCount = ImageCount(number=0.0)
    """Images in them."""


def make_plan(loaded: LoadedRecipe) -> Plan:
    """Look at everything that a recipe names. Raises ConfigError for the recipe itself."""
    return look_at(loaded).plan


def look_at(loaded: LoadedRecipe) -> Look:
    """`make_plan`, with what it found."""
    try:
        resolved = resolve(loaded)
    except (CheckpointError, PreflightError, StorageError) as error:
        problems = missing_checkpoints(loaded.recipe)
        if not any(str(error) in problem for problem in problems):
            problems.insert(0, str(error))
        problems = presets_once(problems) + asking_problems(loaded.recipe)
        return Look(
            plan=Plan(facts=(), problems=tuple(problems), exit_code=ExitCode.PREFLIGHT), resolved=None
        )
    recipe = resolved.recipe
    problems = asking_problems(recipe)
    try:
        check_devices(recipe)
    except PreflightError as error:
        problems.insert(0, str(error))
    exit_code = ExitCode.PREFLIGHT if problems else ExitCode.DONE
    if problem := cpu_shortage(recipe.ray, recipe.placements):
        problems.append(problem)
        exit_code = ExitCode.PREFLIGHT
    if problem := output_problem(recipe.output):
        problems.append(problem)
        exit_code = ExitCode.USAGE
    else:
        try:
            check_output(resolved)
        except OutputError as error:
            problems.append(str(error))
            exit_code = ExitCode.OUTPUT
    ledger = Ledger(open_storage(recipe.output, recipe.storage))
    pending = ledger.pending(resolved.shards, recipe.storage).shards
    to_label = count_images(pending, recipe)
    if len(to_label.damages) > recipe.limits.max_damaged_shards:
        problems.append(
            f"{counted(len(to_label.damages), 'damaged shards')}, limits.max_damaged_shards is"
            f" {recipe.limits.max_damaged_shards}:"
            f" the run would label what can be read and end with 3; {redact('; '.join(to_label.damages[:3]))}"
        )
        exit_code = ExitCode.PREFLIGHT if exit_code is ExitCode.DONE else exit_code
    facts = (
        *_input_facts(resolved, ledger, pending, to_label),
        *_label_facts(resolved),
        *_miniature_facts(resolved),
        *_machine_facts(recipe),
    )
    plan = Plan(facts=tuple(facts), problems=tuple(problems), exit_code=exit_code)
    return Look(plan=plan, resolved=resolved, pending=pending, to_label=to_label)


def _input_facts(
    resolved: ResolvedLabel, ledger: Ledger[Commit], pending: Sequence[Shard], to_label: ImageCount
) -> list[tuple[str, str]]:
    recipe, shards = resolved.recipe, resolved.shards
    done = _images_done(ledger, shards, pending)
    number = None if to_label.number is None else to_label.number + done
    images = replace(to_label, number=number).says
    return [
        (
            "input",
            f"{counted(len(shards), 'shards')}, {readable(sum(shard.size for shard in shards))}, {images}",
        ),
        *_unread_facts(shards),
        (
            "done before",
            f"{counted(len(shards) - len(pending), 'shards')}; {len(pending)} to label"
            f" ({counted(done, 'images')} done, skipped now; to label: {to_label.says})",
        ),
        ("output", recipe.output),
    ]


def _unread_facts(shards: Sequence[Shard]) -> list[tuple[str, str]]:
    """Pictures of folders that are of kinds which are not read; of archives it is known when they are read."""
    number = sum(dict(shard.ignored).get(FOREIGN_IMAGE, 0) for shard in shards)
    return [("not read", f"{number} {UNREAD_PICTURES}")] if number else []


def _images_done(ledger: Ledger[Commit], shards: Sequence[Shard], pending: Sequence[Shard]) -> int:
    """Images of the input that are committed. A shard that was touched only has another id and the same slug."""
    slugs = {shard.slug for shard in shards} - {shard.slug for shard in pending}
    if not slugs:
        return 0
    return sum(commit.read for commit in ledger.read_all() if commit.shard.rpartition("-")[0] in slugs)


def count_images(shards: Sequence[Shard], recipe: LabelRecipe) -> ImageCount:
    """Images: exact for folders and for archives that are small together, else estimated from a few archives."""
    images = sum(extension_of(m) in IMAGE_EXTENSIONS for s in shards if s.kind == "folder" for m in s.members)
    damages: list[str] = []
    tars = sorted((s for s in shards if s.kind == "tar"), key=lambda s: (s.size, s.name))
    total = sum(s.size for s in tars)
    if total <= SAMPLE_BYTES:
        rows = sum(_rows_of(s, recipe, recipe.storage, damages) for s in tars)
        return ImageCount(number=images + rows, damages=tuple(damages))
    middle = len(tars) // 2
    sample = [s for s in tars[middle : middle + SAMPLE_SHARDS] if s.size <= SAMPLE_BYTES]
    if not sample:
        return ImageCount(number=None)
    rows = sum(_rows_of(s, recipe, recipe.storage, damages) for s in sample)
    estimate = images + rows * total / max(1, sum(s.size for s in sample))
    return ImageCount(number=estimate, archives=len(sample), damages=tuple(damages))


def _rows_of(shard: Shard, recipe: LabelRecipe, options: StorageOptions, damages: list[str]) -> int:
    """Rows of a shard; what is wrong with it goes to `damages`."""
    closing = ""
    for table in read_shard(shard, recipe.input.reader, options):
        closing = table.column("closing")[-1].as_py() or closing
    end = Closing.from_json(closing)
    if not end.complete:
        damages.append(f"{shard.name}: {end.failed or end.damage}")
    return end.num_rows


def _label_facts(resolved: ResolvedLabel) -> list[tuple[str, str]]:
    recipe, vocabulary = resolved.recipe, resolved.vocabulary
    table = class_prompts(vocabulary, recipe.languages)
    things = sum(spec.kind == "thing" for spec in vocabulary.classes)
    facts = [
        (
            "vocabulary",
            f"{vocabulary.name}: {counted(len(vocabulary.classes), 'classes')} ({counted(things, 'things')}),"
            f" {counted(len(table.entries), 'prompts')},"
            f" {counted(len(table.sentences), 'sentences')} in {', '.join(recipe.languages)}",
        ),
        *_part_facts(recipe),
    ]
    return facts + [(f"checkpoint {role}", identity) for role, identity in resolved.checkpoints.items()]


def _miniature_facts(resolved: ResolvedLabel) -> list[tuple[str, str]]:
    """What the checkpoints that come with the package are no good for, where there may be photographs."""
    if all(is_drawn(shard.name) for shard in resolved.shards) or not names_miniature(
        to_plain(resolved.recipe)
    ):
        return []
    return [("miniature", MINIATURE_NOTICE)]


def _part_facts(recipe: LabelRecipe) -> list[tuple[str, str]]:
    """Who takes part."""
    facts = []
    if recipe.segmenter is not None:
        facts.append(("segmenter", f"{recipe.segmenter.kind}, mode {recipe.segmenter.mode}"))
    if recipe.detector is not None:
        facts.append(("detector", recipe.detector.kind))
    if recipe.expert is not None:
        joined = recipe.expert.recalibration
        facts.append(("expert", f"FG-CLIP 2, {'not joined' if joined is None else joined.mode}"))
    if recipe.captioner is not None:
        checked = recipe.expert is not None and recipe.captioner.grounding is not None
        facts.append(("captioner", f"Florence-2, {'checked by the expert' if checked else 'not checked'}"))
    if recipe.agreement is not None:
        facts.append(("second segmenter", recipe.agreement.segmenter.kind))
    return facts + ask_facts(recipe)


def _machine_facts(recipe: LabelRecipe) -> list[tuple[str, str]]:
    memory = memory_per_actor(recipe)
    actors = recipe.segment_on.actors
    there = psutil.virtual_memory()
    where = "this machine" if recipe.ray.address == "local" else f"Ray at {recipe.ray.address}"
    return [
        ("runs on", f"{where}: {counted(actors, 'actors')} on {recipe.model.device} in {recipe.model.dtype}"),
        (
            "memory",
            f"about {readable(memory)} an actor, {readable(memory * actors)} in all (estimate);"
            f" {readable(there.available)} of {readable(there.total)} free here",
        ),
    ]


def memory_per_actor(recipe: LabelRecipe) -> int:
    """Bytes, estimated: weights, pixels decoded ahead, score maps of one image, and 1 GiB for torch itself."""
    weights = (
        sum(num_parameters(path) for path in weight_files(recipe.annotators))
        * _DTYPE_BYTES[recipe.model.dtype]
    )
    pixels = 6e6 * recipe.batch.max_megapixels
    largest = min(recipe.decode.max_pixels, 16_000_000)
    scores = 4 * planes_of_scores(recipe.annotators) * largest
    return int(weights + pixels + scores + 2**30)


def num_parameters(path: Path) -> int:
    """Numbers in a safetensors file, from its header. Raises `CheckpointError` for a file that has none."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header: dict[str, Any] = json.loads(file.read(min(size, path.stat().st_size)))
    except (struct.error, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {path}: damaged, or no safetensors file ({error}); fetch it again"
        ) from error
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for side in entry["shape"]:
                count *= side
            total += count
    return total


def readable(num_bytes: float) -> str:
    """`12.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def print_plan(plan: Plan, console: Console) -> None:
    """Facts, the stages of a sample, then problems."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in plan.facts:
        table.add_row(name, value)
    console.print(table, markup=False)
    if plan.stages:
        console.print(_stage_table(plan.stages), markup=False)
    for problem in plan.problems:
        console.print(f"would fail: {problem}", style="red", markup=False, highlight=False, soft_wrap=True)
    if not plan.problems:
        console.print("nothing was found that would stop it", highlight=False)
    if plan.hint:
        console.print(plan.hint, markup=False, highlight=False, soft_wrap=True)


def _stage_table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    for row in rows[1:]:
        table.add_row(*row)
    return table
