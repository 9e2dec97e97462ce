"""Options and arguments that several verbs share, and what is loaded from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from jobs.recipe import Loaded, LoadedRecipe
    from pipelines.storage import StorageOptions

EngineChoice = Literal["ray", "inline"]

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file.", show_default=False)]

OutputUrl = Annotated[
    str, typer.Argument(metavar="OUT", help="Folder or s3:// of a run.", show_default=False)
]

Overrides = Annotated[
    list[str],
    typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: --set segmenter.threshold=0.4."),
]

EndpointUrl = Annotated[
    str | None,
    typer.Option("--endpoint-url", help="S3 server, where OUT is not on AWS (or AWS_ENDPOINT_URL)."),
]

Engine = Annotated[
    EngineChoice | None,
    typer.Option("--engine", help="inline: this process alone, without Ray. Default: the recipe's, or ray."),
]

OutFolder = Annotated[Path, typer.Option("--out", help="Folder that gets the files.", show_default=False)]


def load(path: Path, overrides: Sequence[str]) -> "Loaded":
    """A recipe of any job. Raises ConfigError."""
    from jobs.recipe import load_recipe

    return load_recipe(path, overrides)


def load_label(path: Path, overrides: Sequence[str]) -> "LoadedRecipe":
    """A recipe of the label job; ConfigError for another job's."""
    from jobs.recipe import LoadedRecipe
    from ovsops.errors import ConfigError

    loaded = load(path, overrides)
    if not isinstance(loaded, LoadedRecipe):
        job = loaded.recipe.job
        checks = "`ovsops nightly --dry-run`" if job == "nightly" else "`ovsops run`, before it starts,"
        raise ConfigError(
            f"{loaded.where}: job is {job}, this verb looks at label recipes; {checks} checks this one"
        )
    return loaded


def storage_options(endpoint_url: str | None) -> "StorageOptions":
    """How an output is reached that no recipe says."""
    from pipelines.storage import StorageOptions

    return StorageOptions(s3_endpoint=endpoint_url)
