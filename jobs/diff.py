"""`ovsops diff A B`: what became of labels, what drifted, and what may be why. Writes nothing but `--out`."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipelines.diff.config import DiffConfig


def diff(
    first: Annotated[
        str, typer.Argument(metavar="A", help="Earlier run: folder or s3://.", show_default=False)
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="Later run.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.json", help="Write everything as JSON, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE.yaml", help="Limits; jobs/recipes/diff/default.yaml has all."),
    ] = None,
    overrides: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Change a limit: --set limits.max_changed_share=0."
        ),
    ] = [],  # noqa: B006  typer copies it
    endpoint_url: Annotated[
        str | None, typer.Option("--endpoint-url", help="S3 server, where the runs are not on AWS.")
    ] = None,
) -> int:
    """Compare two labelled runs: labels of the same images, drift, and why. Exit 3 where a limit is passed."""
    import json

    from jobs.exits import ExitCode
    from pipelines.diff.compare import diff_runs
    from pipelines.diff.text import diff_lines
    from pipelines.storage import StorageOptions, open_storage
    from pipelines.writers.whole_files import write_whole

    options = StorageOptions(s3_endpoint=endpoint_url)
    found = diff_runs(
        open_storage(first, options), open_storage(second, options), load_diff_config(config, overrides)
    )
    text = json.dumps(found.to_plain(), indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    if out is not None:
        write_whole(out, text.encode())
    if as_json:
        sys.stdout.write(text)
    else:
        say(diff_lines(found))
    return ExitCode.OVER_LIMITS if found.alarms else ExitCode.DONE


def say(lines: Iterable[str]) -> None:
    """Print lines whose names come from archives: control characters escaped, secrets taken out."""
    from jobs.logs import escape_controls
    from pipelines.redact import redact

    for line in lines:
        sys.stdout.write(escape_controls(redact(line)) + "\n")


def load_diff_config(path: Path | None, overrides: list[str]) -> "DiffConfig":
    """Limits from a YAML file, with fields changed. Raises `ConfigError` that names every wrong field."""
    from pipelines.diff.config import DiffConfig

    return load_settings(DiffConfig, path, overrides)


def load_settings(kind: type[Any], path: Path | None, overrides: list[str]) -> Any:
    """A dataclass from a YAML file (none: defaults) and `--set` overrides."""
    if path is None and not overrides:
        return kind()
    from jobs.door import from_plain
    from ovsops.errors import ConfigError
    from ovsops.text.yaml_file import parse_yaml

    plain: Any = {}
    where = "--set"
    if path is not None:
        where = str(path)
        try:
            plain = parse_yaml(path.read_bytes().decode("utf-8-sig"), where=where) or {}
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
        if not isinstance(plain, dict):
            raise ConfigError(f"{where}: expected fields such as `limits:`, found {type(plain).__name__}")
    if overrides:
        from jobs.recipe_text import apply_overrides  # seconds: it knows the label recipe

        plain = apply_overrides(plain, overrides)
    return from_plain(kind, plain, where=where)
