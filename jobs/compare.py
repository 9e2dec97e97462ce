"""One set of shards labelled by several segmenters, a run each, and all of them scored in one table.

`python -m jobs.compare [LABEL] --segmenters NAME ... --out DIR`: the runs and the evaluation are those of `ovsops run`,
so the same command goes on where it stopped, and each run can be looked at, exported and evaluated by itself.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cli import run_command
from jobs.exits import ExitCode, exit_code_of
from ovsops.errors import ConfigError, OutputError, OvsopsError
from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from pipelines.world_shards import write_world_shards

RECIPES = Path(__file__).with_name("recipes")
MINIATURES = ("clip_miniature", "scclip_miniature", "cass_miniature", "fused_miniature", "sam3_miniature")
"""What is compared where nothing else is asked for; differences are taken to the first."""
SCENES_PER_SHARD = 12
EVALUATION = "evaluation"
"""Folder of the scores, beside the runs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is labelled, by whom, and what is true of it."""

    out: Path
    """Gets a folder a segmenter, and `evaluation/`."""
    segmenters: tuple[str, ...] = MINIATURES
    """Settings of `jobs/recipes/segmenters`, or files."""
    label: Path = RECIPES / "compare_segmenters.yaml"
    evaluate: Path = RECIPES / "evaluate_miniature.yaml"
    num_scenes: int | None = None
    """Draw so many held-out scenes of the miniature world and label those; None: the label recipe's own shards."""
    changes: tuple[str, ...] = ()
    """`a.b=c` for the label recipe, as `--set` takes them."""
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.num_scenes is not None and not 1 <= self.num_scenes <= len(seeds_of("test")):
            raise ConfigError(
                f"--scenes {self.num_scenes}: give 1 to {len(seeds_of('test'))}, the held-out scenes there are"
            )
        names = [run_name(segmenter) for segmenter in self.segmenters]
        twice = sorted({name for name in names if names.count(name) > 1} | {EVALUATION} & set(names))
        if twice or not names:
            raise ConfigError(
                f"--segmenters: {', '.join(twice) or 'none'} cannot be told apart; give one setting or more, each by a "
                f"name of its own, and none called {EVALUATION}"
            )

    @property
    def runs(self) -> dict[str, Path]:
        """Output of each run by its name in the table."""
        return {run_name(segmenter): self.out / run_name(segmenter) for segmenter in self.segmenters}


def run_name(segmenter: str) -> str:
    """What tables call a setting: its name, or that of its file."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", Path(segmenter).name.removesuffix(".yaml"))[:40]


def compare(comparison: Comparison) -> int:
    """Label with each segmenter, then score all; the worst exit code. What cannot run ends it with its own code."""
    worst = int(ExitCode.DONE)
    shards = {} if comparison.num_scenes is None else {"input.shards": str(drawn_scenes(comparison))}
    engine = [] if comparison.engine is None else ["--engine", comparison.engine]
    commands = [
        [
            *("run", str(comparison.label), *engine),
            *(word for change in comparison.changes for word in ("--set", change)),
            *_overrides({**shards, "segmenter": _resolved(segmenter), "output": str(out)}),
        ]
        for segmenter, out in zip(comparison.segmenters, comparison.runs.values(), strict=True)
    ]
    scored = {
        "labels": {name: str(out) for name, out in comparison.runs.items()},
        "output": str(comparison.out / EVALUATION),
    }
    commands.append(["run", str(comparison.evaluate), *_overrides(scored)])
    for place, command in enumerate(commands, 1):
        sys.stdout.write(f"{place}/{len(commands)}  {[*comparison.runs, EVALUATION][place - 1]}\n")
        sys.stdout.flush()
        code = run_command(command)
        if code not in (ExitCode.DONE, ExitCode.OVER_LIMITS):
            return code
        worst = max(worst, code)
    return worst


def drawn_scenes(comparison: Comparison) -> Path:
    """The folder of the scenes, drawn unless it is there.

    Raises `OutputError` where the folder of the comparison holds another number of scenes.
    """
    count = comparison.num_scenes
    assert count is not None
    folder, whole = comparison.out / "shards", comparison.out / "shards" / f".{count}-scenes"
    if whole.exists():
        return folder
    if folder.exists():
        raise OutputError(
            f"{folder} is not of {count} scenes, or was not drawn to its end: choose another --out, or remove "
            f"{comparison.out}"
        )
    write_world_shards(
        folder, seeds_of("test")[:count], scenes_per_shard=SCENES_PER_SHARD, config=SceneConfig()
    )
    whole.touch()
    return folder


def _resolved(segmenter: str) -> str:
    """A file by its whole path: `use` looks beside the recipe."""
    return str(Path(segmenter).resolve()) if Path(segmenter).is_file() else segmenter


def _overrides(values: Mapping[str, Any]) -> list[str]:
    """JSON is YAML, so any path can stand in it."""
    words = []
    for field, value in values.items():
        words += ["--set", f"{field}={json.dumps(value, ensure_ascii=False)}"]
    return words


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m jobs.compare", description=__doc__)
    parser.add_argument("label", nargs="?", type=Path, default=Comparison.label, help="label recipe")
    parser.add_argument(
        "--evaluate", type=Path, default=Comparison.evaluate, help="evaluate recipe: the truth"
    )
    parser.add_argument("--segmenters", nargs="+", default=list(MINIATURES), metavar="NAME")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--scenes", type=int, help="draw so many held-out scenes and label those")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--engine", choices=("ray", "inline"))
    given = parser.parse_args(arguments)
    try:
        comparison = Comparison(
            out=given.out,
            segmenters=tuple(given.segmenters),
            label=given.label,
            evaluate=given.evaluate,
            num_scenes=given.scenes,
            changes=tuple(given.changes),
            engine=given.engine,
        )
        return compare(comparison)
    except OvsopsError as error:
        sys.stderr.write(f"{error}\n")
        return int(exit_code_of(error))


if __name__ == "__main__":
    sys.exit(main())
