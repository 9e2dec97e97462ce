"""The command `ovsops`. Verbs import what they need when they are called, so that `--help` answers at once."""

import logging
import sys
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.audit import audit
from jobs.common_options import CommonOptions, take_common_options
from jobs.diff import diff
from jobs.exits import ExitCode, after_interruption, exit_code_of, is_expected, stop_on_sigterm
from jobs.nightly import nightly
from jobs.options import (
    EndpointUrl,
    Engine,
    EngineChoice,
    OutputUrl,
    Overrides,
    RecipePath,
    load,
    load_label,
    storage_options,
)
from jobs.review import review
from jobs.verbs_outputs import export, overlay, report, status
from jobs.verbs_tools import convert_mapper, doctor, fit, negate, schema, validate_training_set

if TYPE_CHECKING:
    from jobs.recipe import LoadedEvaluate, LoadedNightly, LoadedRecipe, LoadedTrain, LoadedUnits

logger = logging.getLogger(__name__)


app = typer.Typer(
    name="ovsops",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        sys.stdout.write(f"ovsops {version('ovsops')}\n")
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Labels large image corpora offline.

    Options of every verb: --debug, -v, --log-format text|json, --metrics-file FILE.prom.
    """


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path("demo-out"),
    seed: Annotated[int, typer.Option("--seed", help="Others draw other held-out scenes.")] = 0,
    scenes: Annotated[int, typer.Option("--scenes", help="How many are drawn.")] = 48,
    checkpoints: Annotated[
        Path | None,
        typer.Option("--checkpoints", metavar="DIR", help="Others with siglip2/, dinov2/ and mapper/."),
    ] = None,
    engine: Engine = None,
) -> int:
    """Draw scenes, label them, score them, write a report. Needs no network and no other files."""
    started = time.monotonic()
    from jobs.ending import say

    say(f"ovsops demo into {out}: loading PyTorch and Ray, some seconds")
    from jobs.demo import DemoConfig, run_demo

    config = DemoConfig(
        out=out, seed=seed, num_scenes=scenes, engine=engine or "ray", checkpoints=checkpoints
    )
    return run_demo(config, started=started)


@app.command()
def run(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006  typer copies it
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show the resolved recipe and stop.")
    ] = False,
    engine: Engine = None,
) -> int:
    """Run a recipe's job. The same recipe again goes on where it stopped."""
    from jobs.recipe import LoadedEvaluate, LoadedNightly, LoadedTrain, LoadedUnits, to_yaml

    loaded = load(recipe, overrides)
    if print_config:
        sys.stdout.write(to_yaml(loaded.recipe))
        return 0
    if isinstance(loaded, LoadedTrain):
        return _train(loaded, engine=engine)
    if isinstance(loaded, LoadedEvaluate):
        return _evaluate(loaded)
    if isinstance(loaded, LoadedUnits):
        return _units(loaded, engine=engine or "ray")
    if isinstance(loaded, LoadedNightly):
        return _nightly(loaded, engine=engine or "ray")
    return _run(loaded, engine=engine or "ray")


@app.command()
def retry(
    output: OutputUrl,
    codes: Annotated[
        list[str], typer.Option("--code", metavar="E_...", help="Only failures with this code; may repeat.")
    ] = [],  # noqa: B006
    engine: Engine = None,
    endpoint_url: EndpointUrl = None,
) -> int:
    """Run failed images of an output again."""
    from jobs.label import recipe_of_output
    from jobs.unit_jobs import unit_recipe_of_output
    from pipelines.codes import check_failure_codes

    if (units := unit_recipe_of_output(output, storage_options(endpoint_url))) is not None:
        return _units(units, engine=engine or "ray", codes=codes)
    check_failure_codes(codes)
    loaded = recipe_of_output(output, storage_options(endpoint_url))
    return _run(loaded, engine=engine or "ray", retry=True, codes=frozenset(codes) or None)


def _run(
    loaded: "LoadedRecipe", *, engine: EngineChoice, retry: bool = False, codes: frozenset[str] | None = None
) -> int:
    from rich.console import Console

    from jobs.ending import tell_summary
    from jobs.label import run_recipe
    from jobs.live import make_observer
    from jobs.progress import exit_code_of_summary, next_steps, summary_table

    console = Console(stderr=True)
    with make_observer(console) as observer:
        summary = run_recipe(loaded, engine=engine, observer=observer, retry=retry, retry_codes=codes)
    tell_summary(console, summary, summary_table(summary), next_steps(summary, loaded.recipe.output))
    return exit_code_of_summary(summary)


def _train(loaded: "LoadedTrain", *, engine: EngineChoice | None) -> int:
    from rich.console import Console

    from jobs.ending import tell_summary
    from jobs.progress import exit_code_of_summary
    from jobs.train import make_train_observer, run_training, train_next_steps, train_table

    console = Console(stderr=True)
    with make_train_observer(console) as observer:
        summary = run_training(loaded, engine=engine, observer=observer)
    tell_summary(console, summary, train_table(summary), train_next_steps(summary, loaded.recipe.output))
    return exit_code_of_summary(summary)


def _evaluate(loaded: "LoadedEvaluate") -> int:
    from rich.console import Console

    from jobs.ending import tell_summary
    from jobs.evaluate import evaluate_next_steps, evaluate_table, run_evaluation
    from jobs.progress import exit_code_of_summary

    console = Console(stderr=True)
    summary = run_evaluation(loaded)
    steps = evaluate_next_steps(summary, loaded.recipe.output)
    tell_summary(console, summary, evaluate_table(summary), steps)
    return exit_code_of_summary(summary)


def _units(loaded: "LoadedUnits", *, engine: EngineChoice, codes: Sequence[str] = ()) -> int:
    from rich.console import Console

    from jobs.ending import tell_summary
    from jobs.live import make_observer
    from jobs.progress import exit_code_of_summary
    from jobs.unit_jobs import run_unit_recipe
    from jobs.unit_shown import unit_next_steps, unit_table

    console = Console(stderr=True)
    rows = "images" if loaded.recipe.job == "dataset" else "regions"
    with make_observer(console, rows) as observer:
        summary = run_unit_recipe(loaded, engine=engine, observer=observer, codes=codes)
    tell_summary(console, summary, unit_table(summary), unit_next_steps(summary, loaded))
    return exit_code_of_summary(summary)


@app.command()
def plan(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006
    sample: Annotated[
        int,
        typer.Option(
            "--sample", metavar="N", help="Try N images for a forecast; 64 is a good number.", min=0
        ),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the plan's own: plan.json, overlays of the sample."
        ),
    ] = None,
    engine: Engine = None,
    price_gpu_hour: Annotated[float | None, typer.Option(help="Money for a GPU hour.")] = None,
    price_cpu_hour: Annotated[float | None, typer.Option(help="Money for an hour of one core.")] = None,
    price_gb_month: Annotated[float | None, typer.Option(help="Money for a GB stored a month.")] = None,
    price_review_minute: Annotated[float | None, typer.Option(help="Money for a person's minute.")] = None,
    review_seconds: Annotated[
        float | None, typer.Option(help="What a person needs for a label that is for review.")
    ] = None,
) -> int:
    """Dry run: what would be done, what it needs, what would fail. Writes nothing, or into --out alone."""
    from rich.console import Console

    from jobs.plan import print_plan
    from jobs.plan_sample import SampleOptions, make_sampled_plan
    from jobs.recipe import LoadedUnits
    from jobs.unit_plan import make_unit_plan
    from ovsops.errors import ConfigError
    from pipelines.forecast import Prices

    options = SampleOptions(
        images=sample,
        out=out,
        engine=engine or "ray",
        prices=Prices(
            gpu_hour=price_gpu_hour,
            cpu_hour=price_cpu_hour,
            gb_month=price_gb_month,
            review_minute=price_review_minute,
        ),
        review_seconds=review_seconds,
    )
    loaded = load(recipe, overrides)
    if isinstance(loaded, LoadedUnits):
        if sample or out is not None:
            raise ConfigError(
                f"--sample and --out are for label recipes; {loaded.where} is of {loaded.recipe.job}"
            )
        found = make_unit_plan(loaded)
    else:
        found = make_sampled_plan(load_label(recipe, overrides), options)
    print_plan(found, Console())
    return found.exit_code


def _nightly(loaded: "LoadedNightly", *, engine: EngineChoice) -> int:
    from jobs.nightly import command
    from jobs.nightly_run import NightOptions

    return command(lambda: loaded, NightOptions(engine=engine))


app.command()(status)
app.command()(export)
app.command()(diff)
app.command()(audit)
app.command()(review)
app.command()(nightly)
app.command()(negate)
app.command()(overlay)
app.command()(report)
app.command(name="validate-set")(validate_training_set)
app.command()(fit)
app.command()(doctor)
app.command()(schema)
app.command(name="convert-mapper")(convert_mapper)


_USAGE_ERROR = typer.BadParameter.__base__ or typer.BadParameter
"""Every mistake on the command line, wherever this typer keeps click."""


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and turn whatever happens into an exit code: the only place that does."""
    words, common = take_common_options(sys.argv[1:] if arguments is None else arguments)
    code = _run_words(words, common)
    if common.metrics_file is not None:
        from jobs.metrics import close_metrics_file

        close_metrics_file(code)
    return code


def _run_words(words: list[str], common: CommonOptions) -> int:
    try:
        stop_on_sigterm()
        if common.metrics_file is not None:
            from jobs.metrics import open_metrics_file

            open_metrics_file(common.metrics_file)
        code = int(app(args=words, prog_name="ovsops", standalone_mode=False) or 0)
        if code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt  # newer versions of typer answer Ctrl-C with its code
        return code
    except BaseException as error:  # noqa: BLE001  the last one who can say anything
        return _report(error, words, debug=common.debug)


def _report(error: BaseException, words: Sequence[str], *, debug: bool) -> int:
    """One screen about an error, and its exit code."""
    from jobs.ending import tell_error
    from jobs.logs import escape_controls, is_json
    from pipelines.redact import redact

    if isinstance(error, _USAGE_ERROR):
        if is_json():
            tell_error(error.format_message(), code=ExitCode.USAGE, what="error")  # type: ignore[attr-defined]
        else:
            shown = StringIO()
            error.show(shown)  # type: ignore[attr-defined]
            sys.stderr.write(redact(shown.getvalue()))  # it repeats the words that were given
        return ExitCode.USAGE
    if isinstance(error, SystemExit):
        return int(error.code) if isinstance(error.code, int) else ExitCode.INTERNAL
    if isinstance(error, typer.Abort):
        error = KeyboardInterrupt()
    code = exit_code_of(error)
    if debug:
        logger.error("%s", type(error).__name__, exc_info=error)
    if code == ExitCode.INTERRUPTED:
        tell_error(after_interruption(words), code=code, what="interrupted")
        return code
    text = "\n".join(escape_controls(line) for line in redact(str(error)).splitlines()[:40])
    if is_expected(error):
        tell_error(text, code=code, what="error")
    else:
        hint = "" if debug else " (--debug shows where)"
        tell_error(f"{type(error).__name__}: {text[:2000]}", code=code, what=f"internal error{hint}")
    return code


def main() -> None:
    """Entry point of the command."""
    sys.exit(run_command())


if __name__ == "__main__":
    main()
