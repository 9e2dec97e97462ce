"""What this machine can do: versions, devices, memory, checkpoints, storage. One line a check, with the way out."""

import platform
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.asking import ask_facts, asked_checkpoints, asking_of, check_key, pin_asked
from jobs.label import check_devices, installed_versions
from jobs.label_resolve import find_vocabulary
from jobs.logs import escape_controls
from jobs.plan import memory_per_actor, readable
from jobs.recipe import LoadedRecipe
from ovsops.annotators.checkpoints import (
    annotator_checkpoints,
    check_annotator_licences,
    check_annotator_models,
    pin_annotator,
)
from ovsops.errors import OvsopsError, StorageError
from pipelines.redact import redact
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import Storage, StorageOptions, local_path, open_storage, scheme_of, split_url

MIN_SHM_BYTES = 600 * 2**20
"""Ray keeps blocks in /dev/shm; below this it falls back to disk, which is many times slower."""
MIN_FREE_DISK = 5 * 2**30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    says: str


def examine(loaded: LoadedRecipe | None) -> list[Check]:
    """All checks; those of a recipe where one is given."""
    checks = [*_versions(), *_machine()]
    if loaded is not None:
        checks += _recipe_checks(loaded)
    return checks


def _versions() -> Iterator[Check]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check(name="python", ok=supported, says=f"{platform.python_version()} (3.11 to 3.13 are supported)")
    for name, number in installed_versions().items():
        if name != "python":
            yield Check(name=name, ok=number != "not installed", says=number)


def _machine() -> Iterator[Check]:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    yield Check(
        name="GPUs", ok=True, says=", ".join(names) or "none that torch can use: labels are made on the CPU"
    )
    memory = psutil.virtual_memory()
    yield Check(
        name="memory",
        ok=memory.available > 2 * 2**30,
        says=f"{readable(memory.available)} of {readable(memory.total)} free, {psutil.cpu_count()} CPUs",
    )
    shm = Path("/dev/shm")
    if shm.is_dir():
        free = shutil.disk_usage(shm).free
        way_out = "" if free >= MIN_SHM_BYTES else "; start the container with --shm-size=2g or more"
        yield Check(name="/dev/shm", ok=free >= MIN_SHM_BYTES, says=f"{readable(free)} free{way_out}")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    yield Check(name="temporary disk", ok=free >= MIN_FREE_DISK, says=f"{readable(free)} free in {folder}")


def _recipe_checks(loaded: LoadedRecipe) -> Iterator[Check]:
    recipe = loaded.recipe

    def vocabulary() -> str:
        found = find_vocabulary(recipe.vocabulary, loaded.folder)
        return f"{found.name}: {len(found.classes)} classes"

    def checkpoints() -> str:
        check_annotator_licences(recipe.annotators)
        check_annotator_models(recipe.annotators, find_vocabulary(recipe.vocabulary, loaded.folder))
        identities = annotator_checkpoints(pin_annotator(recipe.annotators))
        identities |= asked_checkpoints(pin_asked(recipe.ask))
        return "; ".join(f"{role} {identity}" for role, identity in identities.items())

    def endpoint() -> str:
        check_key(recipe)
        asking_of(recipe, find_vocabulary(recipe.vocabulary, loaded.folder))
        return "; ".join(f"{name} {says}" for name, says in ask_facts(recipe)) + " (not tried)"

    def devices() -> str:
        check_devices(recipe)
        return f"{recipe.segment_on.actors} actors with {recipe.segment_on.num_gpus} GPUs each"

    def inputs() -> str:
        shards = expand_inputs(recipe.input.shards, recipe.storage)
        return f"{len(shards)} shards; {shards[0].name} opens ({_first_bytes(shards[0], recipe.storage)} bytes read)"

    def memory() -> str:
        resolved = replace(recipe, model=recipe.model.resolve(num_gpus=recipe.segment_on.num_gpus))
        return f"about {readable(memory_per_actor(resolved))} (estimate)"

    yield _attempt("vocabulary", vocabulary)
    yield _attempt("checkpoints", checkpoints)
    if recipe.ask is not None:
        yield _attempt("endpoint", endpoint)
    yield _attempt("devices", devices)
    yield _attempt("memory an actor", memory)
    yield _attempt("input", inputs)
    yield from storage_checks(_probe_place(recipe.output, recipe.storage))


def _first_bytes(shard: Shard, options: StorageOptions) -> int:
    """Bytes that the start of a shard gives when it is opened."""
    folder, name = (shard.url, shard.members[0]) if shard.members else split_url(shard.url)
    with open_storage(folder, options).open(name) as file:
        return len(file.read(512))


def _probe_place(output: str, options: StorageOptions) -> Storage:
    """Where storage is tried: the bucket's prefix, or the nearest folder that exists, so that none is left behind."""
    if scheme_of(output) != "file":
        return open_storage(output, options)
    place = local_path(output)
    return open_storage(str(next(folder for folder in (place, *place.parents) if folder.is_dir())), options)


def storage_checks(storage: Storage) -> Iterator[Check]:
    """Write, read back, create-if-absent, delete: what the commit protocol stands on."""
    path = f"_doctor-{secrets.token_hex(6)}"

    def write_and_read() -> str:
        storage.put(path, b"first")
        if storage.read(path) != b"first":
            raise StorageError(f"{storage.url}: what was written reads back differently")
        storage.delete(path)
        return f"{storage.url} can be written, read and deleted"

    def create_if_absent() -> str:
        try:
            first, second = storage.create(path, b"first"), storage.create(path, b"second")
        finally:
            storage.delete(path)
        if not first or second:
            raise StorageError(
                f"{storage.url}: the server ignores If-None-Match, so two runs could both commit a shard;"
                " use a server that honours conditional writes, or take care that one run alone writes there"
            )
        return "a second writer is refused"

    yield _attempt("output", write_and_read)
    yield _attempt("create-if-absent", create_if_absent)


def _attempt(name: str, look: Callable[[], str]) -> Check:
    """A check that holds unless `look` raises."""
    try:
        return Check(name=name, ok=True, says=look())
    except (OvsopsError, OSError, ImportError) as error:
        return Check(name=name, ok=False, says=redact(str(error)))


def print_checks(checks: Sequence[Check], console: Console) -> None:
    """One line a check."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("FAILED", style="red")
        table.add_row(mark, check.name, Text(escape_controls(check.says)))
    console.print(table)
