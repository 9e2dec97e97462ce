"""The command `ovsops`. Verbs import what they need when they are called, so that `--help` answers at once."""

import logging
import sys
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from jobs.audit import audit
from jobs.common_options import CommonOptions, take_common_options
from jobs.diff import diff
from jobs.exits import ExitCode, exit_code_of, is_expected, stop_on_sigterm
from jobs.nightly import nightly
from jobs.review import review

if TYPE_CHECKING:
    from jobs.recipe import Loaded, LoadedEvaluate, LoadedNightly, LoadedRecipe, LoadedTrain, LoadedUnits
    from pipelines.storage import StorageOptions

logger = logging.getLogger(__name__)

EngineChoice = Literal["ray", "inline"]

app = typer.Typer(
    name="ovsops",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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

    loaded = _load(recipe, overrides)
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

    if (units := unit_recipe_of_output(output, _storage_options(endpoint_url))) is not None:
        return _units(units, engine=engine or "ray", codes=codes)
    check_failure_codes(codes)
    loaded = recipe_of_output(output, _storage_options(endpoint_url))
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
    loaded = _load(recipe, overrides)
    if isinstance(loaded, LoadedUnits):
        if sample or out is not None:
            raise ConfigError(
                f"--sample and --out are for label recipes; {loaded.where} is of {loaded.recipe.job}"
            )
        found = make_unit_plan(loaded)
    else:
        found = make_sampled_plan(_load_label(recipe, overrides), options)
    print_plan(found, Console())
    return found.exit_code


def _nightly(loaded: "LoadedNightly", *, engine: EngineChoice) -> int:
    from jobs.nightly import command
    from jobs.nightly_run import NightOptions

    return command(lambda: loaded, NightOptions(engine=engine))


@app.command()
def status(
    output: OutputUrl,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    endpoint_url: EndpointUrl = None,
) -> int:
    """What is done, failed and why. Exit 1 if rows are missing or doubled."""
    import json

    from rich.console import Console

    from jobs.status import print_status, read_status
    from jobs.unit_status import print_unit_status, read_unit_status

    units = read_unit_status(output, _storage_options(endpoint_url))
    if units is not None:
        if as_json:
            sys.stdout.write(json.dumps(units.to_plain(), indent=1, ensure_ascii=True) + "\n")
        else:
            print_unit_status(units, Console())
        return ExitCode.INTERNAL if units.broken else ExitCode.DONE
    found = read_status(output, _storage_options(endpoint_url))
    if as_json:
        sys.stdout.write(json.dumps(found.to_plain(), indent=1, ensure_ascii=True) + "\n")
    else:
        print_status(found, Console())
    return ExitCode.INTERNAL if found.broken else ExitCode.DONE


@app.command()
def export(
    output: OutputUrl,
    out: OutFolder,
    to: Annotated[
        Literal["coco", "yolo-seg", "labelstudio", "cvat", "fiftyone", "webdataset", "hf"],
        typer.Option("--to", help="Format."),
    ] = "coco",
    segmentation: Annotated[
        Literal["rle", "polygon"], typer.Option(help="coco: how masks are written; rle is exact.")
    ] = "rle",
    merged: Annotated[
        bool, typer.Option("--merged/--per-shard", help="coco: one file, or one a shard.")
    ] = True,
    images: Annotated[
        Literal["copy", "reference"] | None,
        typer.Option(
            "--images", help="Copy the bytes, or name the inputs' files. Default: coco names, others copy."
        ),
    ] = None,
    image_prefix: Annotated[
        str, typer.Option("--image-prefix", help="labelstudio: goes before each image's path.")
    ] = "/data/local-files/?d=",
    require_license: Annotated[
        bool, typer.Option("--require-license", help="Leave out images without a licence.")
    ] = False,
    shards: Annotated[
        list[str],
        typer.Option("--shards", metavar="PATTERN", help="Where inputs are that were moved; may repeat."),
    ] = [],  # noqa: B006
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the export that --out holds.")
    ] = False,
    endpoint_url: EndpointUrl = None,
) -> int:
    """Write labels in another tool's format. What it cannot hold is counted, here and in export.json."""
    from jobs.ending import tell
    from jobs.exporting import export_files
    from pipelines.exporters.options import ExportOptions

    options = ExportOptions(
        format=to,
        images=images,
        require_license=require_license,
        replace=replace,
        segmentation=segmentation,
        merged=merged,
        image_prefix=image_prefix,
    )
    done = export_files(output, _storage_options(endpoint_url), out, options, shards=shards)
    sys.stdout.write(f"{done.line}\n")
    for line in done.losses:
        tell(line, "loss")
    return done.code


app.command()(diff)
app.command()(audit)
app.command()(review)
app.command()(nightly)


@app.command()
def negate(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN.jsonl", help="One object a line: `text`, if wanted `language` (en, zh)."),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUT.jsonl", help="The same with `negatives` and `types`.")
    ],
    level: Annotated[
        Literal["hard", "medium", "easy", "trivial"],
        typer.Option("--level", help="Attributes changed: 1, 2, 3; trivial: captions of other things."),
    ] = "hard",
    seed: Annotated[int, typer.Option("--seed", help="Others draw others.")] = 0,
    max_margin: Annotated[
        float | None,
        typer.Option(
            "--max-margin",
            help="Refuse captions that a model of texts alone prefers by more nats; inf refuses none.",
            show_default="0.5 at medium and easy, inf at hard",
        ),
    ] = None,
) -> int:
    """Ten negatives for each caption, or null and a reason. Ends in .gz: compressed. Needs no images."""
    from jobs.ending import tell
    from jobs.negate import negate_file
    from ovsops.negatives.config import NegativeConfig

    summary = negate_file(source, target, NegativeConfig(level=level, seed=seed, max_margin=max_margin))
    tell(summary.line())
    return 0


@app.command()
def overlay(
    output: OutputUrl,
    out: OutFolder,
    limit: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 20,
    endpoint_url: EndpointUrl = None,
) -> int:
    """Draw the masks of labelled images over them, a PNG each."""
    from rich.console import Console

    from jobs.exporting import draw_overlays

    paths = draw_overlays(output, _storage_options(endpoint_url), out=out, limit=limit)
    Console().print(f"{len(paths)} pictures in {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


@app.command()
def report(
    output: OutputUrl,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page to write. Default: report.html in the run."),
    ] = None,
    beside: Annotated[
        list[Path],
        typer.Option("--beside", metavar="DIR", help="Output of another job about this run; may repeat."),
    ] = [],  # noqa: B006
    images: Annotated[int, typer.Option("--images", min=1, help="Pictures at most.")] = 160,
    seed: Annotated[int, typer.Option("--seed", help="Others show other pictures.")] = 0,
    max_mb: Annotated[float, typer.Option("--max-mb", min=0.5, help="Size of the page at most.")] = 15.0,
    endpoint_url: EndpointUrl = None,
) -> int:
    """One self-contained HTML page about a run: what was labelled, what failed, how good, what it cost, pictures."""
    from jobs.report import write_report
    from pipelines.report.counting import GalleryConfig
    from pipelines.report.run_report import ReportConfig

    config = ReportConfig(gallery=GalleryConfig(images=images, seed=seed), max_bytes=round(max_mb * 1e6))
    line = write_report(output, _storage_options(endpoint_url), out=out, beside=beside, config=config)
    sys.stdout.write(line + "\n")
    return 0


@app.command(name="validate-set")
def validate_training_set(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of a training set, or one of its files.")
    ],
    format_name: Annotated[
        Literal["auto", "finehard-json", "finehard-parquet", "webdataset", "coco", "hf"],
        typer.Option("--format", help="auto looks at the files."),
    ] = "auto",
    images: Annotated[
        Literal["none", "there", "whole"],
        typer.Option(
            "--images", help="Look at no image, at the first bytes, or at every byte and its SHA-256."
        ),
    ] = "there",
    root: Annotated[
        Path | None, typer.Option("--root", help="Image paths are below it. Default: the set's folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> int:
    """Prove that a training set, of anybody, keeps its contract; exit 3 and say what is wrong where it does not."""
    import json

    from rich.console import Console

    from jobs.validate_set import print_report
    from pipelines.validation.validate import validate_set

    report = validate_set(path, None if format_name == "auto" else format_name, images=images, root=root)
    if as_json:
        sys.stdout.write(json.dumps(report.to_plain(), indent=1, ensure_ascii=True) + "\n")
    else:
        print_report(report, Console())
    return ExitCode.DONE if report.is_valid else ExitCode.OVER_LIMITS


@app.command()
def fit(
    recipe: RecipePath,
    out: OutFolder,
    images: Annotated[int, typer.Option(min=2, help="Images at most.")] = 500,
    overrides: Overrides = [],  # noqa: B006
) -> int:
    """Fit the numbers of a label recipe's expert and of its scores on images whose boxes are known."""
    from rich.console import Console

    from jobs.fitting import fit_recipe, print_fit

    found = fit_recipe(_load_label(recipe, overrides), out, num_images=images)
    print_fit(found, out, Console())
    return 0


@app.command()
def doctor(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Checks what it names, too.")
    ] = None,
    overrides: Overrides = [],  # noqa: B006
) -> int:
    """Check this machine: versions, devices, memory, checkpoints, storage."""
    from rich.console import Console

    from jobs.doctor import examine, print_checks

    checks = examine(_load_label(recipe, overrides) if recipe else None)
    print_checks(checks, Console())
    return ExitCode.DONE if all(check.ok for check in checks) else ExitCode.PREFLIGHT


@app.command()
def schema(job: Annotated[str, typer.Argument(help="Which job's recipe.")] = "label") -> int:
    """JSON schema of a recipe, for editors."""
    import json

    from jobs.recipe import JOBS, recipe_schema
    from ovsops.errors import ConfigError

    if job not in JOBS:
        raise ConfigError(f"job {job!r} is not known; this version has {', '.join(JOBS)}")
    sys.stdout.write(json.dumps(recipe_schema(job), indent=1, ensure_ascii=False) + "\n")
    return 0


@app.command(name="convert-mapper")
def convert_mapper(
    source: Annotated[Path, typer.Argument(metavar="FILE.pth", help="Talk2DINO projection as published.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="File to write.")],
) -> int:
    """Convert a published Talk2DINO projection to safetensors, once. Runs no code of the file."""
    from ovsops.mapper.convert import convert_talk2dino

    convert_talk2dino(source, target)
    sys.stdout.write(f"{target}\n")
    return 0


def _load(path: Path, overrides: Sequence[str]) -> "Loaded":
    from jobs.recipe import load_recipe

    return load_recipe(path, overrides)


def _load_label(path: Path, overrides: Sequence[str]) -> "LoadedRecipe":
    from jobs.recipe import LoadedRecipe
    from ovsops.errors import ConfigError

    loaded = _load(path, overrides)
    if not isinstance(loaded, LoadedRecipe):
        raise ConfigError(
            f"{loaded.where}: job is {loaded.recipe.job}, this verb looks at label recipes; `ovsops run` checks it"
            " before it starts"
        )
    return loaded


def _storage_options(endpoint_url: str | None) -> "StorageOptions":
    from pipelines.storage import StorageOptions

    return StorageOptions(s3_endpoint=endpoint_url)


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
        return _report(error, debug=common.debug)


def _report(error: BaseException, *, debug: bool) -> int:
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
        tell_error("run the same command again to go on", code=code, what="interrupted")
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
