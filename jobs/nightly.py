"""`ovsops nightly RECIPE`: what the command line says, and what it gets to hear.

The last line on standard output is one JSON object, whatever happens: what `night.json` holds, or why there is none.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.exits import ExitCode, exit_code_of

if TYPE_CHECKING:
    from jobs.nightly_run import NightOptions
    from jobs.recipe import LoadedNightly


def nightly(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file.", show_default=False)],
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field: --set keep.delete=true."),
    ] = [],  # noqa: B006  typer copies it
    night: Annotated[
        str | None,
        typer.Option("--night", metavar="NAME", help="Name of a new night. Default: the date (UTC)."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is new and what may be deleted; write nothing.")
    ] = False,
    give_up: Annotated[
        bool,
        typer.Option("--give-up", help="Close a night that was not finished; its shards are new again."),
    ] = False,
    engine: Annotated[
        Literal["ray", "inline"] | None,
        typer.Option("--engine", help="inline: this process alone, without Ray. Default: ray."),
    ] = None,
) -> int:
    """Label what is new since the last night, and make the rest of it. Killed: the same command ends that night."""
    from jobs.nightly_run import NightOptions

    options = NightOptions(engine=engine or "ray", night=night, give_up=give_up)
    return command(lambda: _loaded(recipe, overrides), options, dry_run=dry_run)


def _loaded(recipe: Path, overrides: list[str]) -> "LoadedNightly":
    from jobs.recipe import LoadedNightly, load_recipe
    from ovsops.errors import ConfigError

    found = load_recipe(recipe, overrides)
    if not isinstance(found, LoadedNightly):
        raise ConfigError(
            f"{found.where}: job is {found.recipe.job}, this verb wants `job: nightly`; `ovsops run` runs it"
        )
    return found


def command(load: "Callable[[], LoadedNightly]", options: "NightOptions", *, dry_run: bool = False) -> int:
    """Run a night and print its line; the exit code. An error is printed as a line, and raised."""
    from rich.console import Console

    from jobs.ending import tell
    from jobs.nightly_alert import alert_line, alert_lines, unfinished_alert
    from jobs.nightly_run import NightRun, dry_run_lines
    from pipelines.redact import redact

    console = Console(stderr=True)
    run: NightRun | None = None
    try:
        loaded = load()
        if dry_run:
            for line in dry_run_lines(loaded, options):
                sys.stdout.write(redact(line) + "\n")
            return ExitCode.DONE
        run = NightRun(loaded, options, console)
        alert = run.run()
    except BaseException as error:
        code = exit_code_of(error)
        alert = (
            unfinished_alert(state="not started", exit_code=code, output="", error=str(error))
            if run is None
            else run.alert_of(error)
        )
        sys.stdout.write(alert_line(alert))
        sys.stdout.flush()
        raise
    for line in alert_lines(alert):
        tell(line, "night", console=console)
    sys.stdout.write(alert_line(alert))
    sys.stdout.flush()
    return int(alert["exit_code"])
