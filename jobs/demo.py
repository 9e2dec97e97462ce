"""`ovsops demo`: draw held-out scenes, label them with the shipped checkpoints, score them, write a report.

The scenes are those of the miniature world, so their truth is exact, and no network is needed.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.ending import say, tell_summary
from jobs.engines import EngineName
from jobs.evaluate import evaluate_table, run_evaluation
from jobs.label import run_recipe
from jobs.live import make_observer
from jobs.own_folder import claim_folder
from jobs.progress import duration, exit_code_of_summary, summary_table
from jobs.recipe import LoadedEvaluate, LoadedRecipe, load_recipe, to_yaml
from jobs.report import PAGE as RUN_PAGE
from jobs.report import write_report
from ovsops.backbones.shipped import PARTS, miniature_calibration, miniature_checkpoints
from ovsops.errors import ConfigError
from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from ovsops.segmenters.config import SegmenterConfig
from pipelines.evaluate import PAGE
from pipelines.storage import StorageOptions
from pipelines.world_shards import write_world_shards

NOTICE = (
    "The checkpoints of this demo are miniatures that were trained on drawn scenes. They know the drawn world only and"
    " nothing of photographs; the figures say that the way from pictures to scored labels works, not how well real"
    " pictures are labelled."
)

RECIPES = Path(__file__).with_name("recipes")
SCENES_PER_SHARD = 12
NUM_PICTURES, NUM_WORST = 12, 4
_OWN = ("shards", "cache", "run", "report", "label.yaml", "evaluate.yaml")
"""What a demo writes into its folder, and replaces there."""
_MARKER = ".ovsops-demo"
"""A folder with this file is a demo's own."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What a demo draws and where."""

    out: Path
    seed: int = 0
    """Other seeds draw other held-out scenes."""
    num_scenes: int = 48
    engine: EngineName = "ray"
    checkpoints: Path | None = None
    """Other checkpoints in the layout of the shipped ones."""

    def __post_init__(self) -> None:
        most = len(seeds_of("test"))
        if not 1 <= self.num_scenes <= most:
            raise ConfigError(f"--scenes {self.num_scenes}: give 1 to {most}, the held-out scenes there are")
        if not 0 <= self.seed < most // self.num_scenes:
            raise ConfigError(
                f"--seed {self.seed}: with {self.num_scenes} scenes each, give 0 to {most // self.num_scenes - 1}"
            )

    @property
    def scene_seeds(self) -> Sequence[int]:
        """Seeds of the scenes: of the test split, in disjoint runs."""
        return seeds_of("test")[self.seed * self.num_scenes :][: self.num_scenes]

    @property
    def command(self) -> str:
        """What a document says it was made by."""
        return f"ovsops demo --seed {self.seed} --scenes {self.num_scenes}"


def run_demo(config: DemoConfig, *, started: float) -> int:
    """Run the demo and say where the report is; the exit code. `started`: when the command was, by the monotonic clock.

    Raises `CheckpointError` where the checkpoints are missing, `OutputError` for a folder that is not a demo's.
    """
    checkpoints = miniature_checkpoints(config.checkpoints)
    claim_folder(config.out, _OWN, marker=_MARKER, command="ovsops demo")
    say(f"1/4  drawing {config.num_scenes} held-out scenes into {config.out / 'shards'}")
    write_world_shards(
        config.out / "shards", config.scene_seeds, scenes_per_shard=SCENES_PER_SHARD, config=SceneConfig()
    )
    say(f"2/4  labelling them: ovsops run {config.out / 'label.yaml'}")
    console = Console(stderr=True)
    with make_observer(console) as observer:
        labelled = run_recipe(label_recipe(config.out, checkpoints), engine=config.engine, observer=observer)
    tell_summary(console, labelled, summary_table(labelled))
    say(f"3/4  scoring them against their truth: ovsops run {config.out / 'evaluate.yaml'}")
    scored = run_evaluation(evaluate_recipe(config), command=config.command)
    tell_summary(console, scored, evaluate_table(scored))
    say(f"4/4  a page about the run: ovsops report {config.out / 'run'}")
    say(write_report(str(config.out / "run"), StorageOptions(), out=None, beside=[config.out / "report"]))
    say(_closing(scored, config, time.monotonic() - started))
    return max(exit_code_of_summary(labelled), exit_code_of_summary(scored))


def label_recipe(out: Path, checkpoints: Path) -> LoadedRecipe:
    """The demo's label recipe with its folders and the fitted constants, kept as `label.yaml`."""
    values: dict[str, Any] = {
        "input.shards": str(out / "shards"),
        "output": str(out / "run"),
        "cache": str(out / "cache"),
    }
    for role, part in zip(("siglip", "dino", "mapper"), PARTS, strict=True):
        values[f"segmenter.{role}.source"] = str(checkpoints / part)
    known = {f.name for f in fields(SegmenterConfig)}
    fitted = miniature_calibration(checkpoints)
    values |= {f"segmenter.{name}": value for name, value in fitted.items() if name in known}
    loaded = _load("demo.yaml", values)
    assert isinstance(loaded, LoadedRecipe)
    (out / "label.yaml").write_text(to_yaml(loaded.recipe), "utf-8")
    return loaded


def evaluate_recipe(config: DemoConfig) -> LoadedEvaluate:
    """The demo's evaluate recipe, kept as `evaluate.yaml`."""
    loaded = _load(
        "evaluate_miniature.yaml",
        {
            "labels": str(config.out / "run"),
            "output": str(config.out / "report"),
            "title": f"ovsops demo: {config.num_scenes} held-out scenes of the drawn world",
            "notice": NOTICE,
            "pictures.first": NUM_PICTURES,
            "pictures.worst": NUM_WORST,
        },
    )
    assert isinstance(loaded, LoadedEvaluate)
    (config.out / "evaluate.yaml").write_text(to_yaml(loaded.recipe), "utf-8")
    return loaded


def _load(name: str, values: Mapping[str, Any]) -> Any:
    """A recipe of the package with fields changed; JSON is YAML, so any path can stand in it."""
    overrides = [f"{field}={json.dumps(value, ensure_ascii=False)}" for field, value in values.items()]
    return load_recipe(RECIPES / name, overrides)


def _closing(scored: Mapping[str, Any], config: DemoConfig, seconds: float) -> str:
    figures = next(iter(scored["figures"].values()))
    mean_iou = figures["mean_iou"]
    return (
        f"\nmIoU {mean_iou['value']:.3f} (95 % interval {mean_iou['low']:.3f} to {mean_iou['high']:.3f}) over"
        f" {scored['images']['counted']} held-out scenes, in {duration(seconds)} with everything from"
        " loading to the report\n"
        f"Scores: {(config.out / 'report' / PAGE).resolve()}\n"
        f"The run: {(config.out / 'run' / RUN_PAGE).resolve()}\n\n{NOTICE}"
    )
