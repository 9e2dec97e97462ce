"""What leaves an output: the formats of other tools, and overlay pictures. Everything needed is in `run.json`, the
tables and the inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.exits import ExitCode
from jobs.label import recipe_of_output
from ovsops.errors import ConfigError
from ovsops.text.vocabulary import Vocabulary
from pipelines.counted import counted
from pipelines.exporters.options import ExportOptions
from pipelines.exporters.run import export_run
from pipelines.exporters.sources import Inputs
from pipelines.ledger import Ledger
from pipelines.report.overlay import write_overlays
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What to say of an export, and how it ended."""

    line: str
    losses: list[str]
    """What was left out, and what the format could not hold, one sentence a line."""
    code: ExitCode


def export_files(
    output: str,
    storage_options: StorageOptions,
    out: Path,
    options: ExportOptions,
    *,
    shards: Sequence[str] = (),
) -> Exported:
    """Write an output in the format of another tool. `shards` are patterns of inputs that are elsewhere now."""
    recipe = recipe_of_output(output, storage_options).recipe
    storage = open_storage(output, storage_options)
    inputs = Inputs(reader=recipe.input.reader, options=recipe.storage, moved={})
    if shards:
        names = {commit.name for commit in Ledger(storage).read_all()}
        moved = {shard.name: shard.url for shard in expand_inputs(shards, recipe.storage)}
        if not names & moved.keys():
            raise ConfigError(
                f"--shards: {', '.join(sorted(moved)[:3])}: no shard of that name was labelled; those of the output are"
                f" called {', '.join(sorted(names)[:3])}: give the folder that these names are below"
            )
        inputs = Inputs(reader=recipe.input.reader, options=recipe.storage, moved=moved)
    report = export_run(storage, out, options, inputs)
    images, regions = counted(report.images, "images"), counted(report.annotations, "annotations")
    line = f"{images} and {regions} as {options.format} in {out}"
    code = ExitCode.OVER_LIMITS if report.is_incomplete else ExitCode.DONE
    return Exported(line=line, losses=report.sentences(), code=code)


def draw_overlays(output: str, options: StorageOptions, *, out: Path, limit: int) -> list[Path]:
    """Pictures of the first `limit` labelled images, from the inputs that the output's `run.json` names."""
    recipe = recipe_of_output(output, options).recipe
    names = {spec.id: spec.name for spec in Vocabulary.from_mapping(recipe.vocabulary).classes}
    return write_overlays(
        open_storage(output, options),
        expand_inputs(recipe.input.shards, recipe.storage),
        names,
        out,
        limit=limit,
        reader=recipe.input.reader,
        decode=recipe.decode,
        options=recipe.storage,
    )
