"""`make miniature`: train the miniature checkpoints by their recipes, calibrate them, put them where they ship from.

What is trained already is not trained again: stop it and start it as often as you like. One core takes about
seven hours (the model cards say how long each took); the towers can be trained at once by their recipes before.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from jobs.cli import run_command
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.scenes import bank_of
from ovsops.training.shipping import calibrate, save_calibration
from pipelines.world_shards import write_world_shards

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).with_name("recipes")
TOWERS = ("siglip2", "dinov2", "clip", "dino", "sam3", "llmdet")
_MAPPER_TOWERS = (("siglip", "siglip2"), ("dino", "dinov2"))
"""Fields of the mapper's recipe, and the training whose checkpoint each takes."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A recipe that is run, with what it is told beside it."""

    recipe: str
    """`train_RECIPE_miniature.yaml`."""
    output: str
    """Folder below that of all trainings."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Fields of the recipe, and outputs of the earlier trainings whose checkpoints they take."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Further fields that differ from the recipe."""

    def command(self, folder: Path) -> list[str]:
        """Words of `ovsops run`; all outputs lie in `folder`."""
        settings = {"output": (folder / self.output).resolve(), **self.settings} | {
            name: (folder / before / "checkpoint").resolve() for name, before in self.starts.items()
        }
        words = (word for name, value in settings.items() for word in ("--set", f"{name}={value}"))
        return ["run", str(RECIPES / f"train_{self.recipe}_miniature.yaml"), *words]


_FRESH_SCENES = {"input.world.scenes": 32_000, "input.world.skip": 400_000}
"""So many that each is seen but two or three times: 9,000 were learned by heart."""
FGCLIP2: tuple[tuple[str, str, Mapping[str, object]], ...] = (
    ("fgclip2_stage1", "fgclip2_stage1", {}),
    ("fgclip2_stage2", "fgclip2_stage2", {}),
    ("fgclip2_stage2_more", "fgclip2_stage2_more", {}),
    ("fgclip2_stage2_again", "fgclip2_stage2_again", {}),
    ("fgclip2_patches", "fgclip2_patches", {}),
    ("fgclip2_stage2_last", "fgclip2_stage2_last", {}),
    ("fgclip2_patches", "fgclip2_patches_again", {"program.seed": 5, "loop.num_steps": 1700}),
    ("fgclip2_stage2_last", "fgclip2_end", {"program.seed": 6, "loop.num_steps": 900}),
    (
        "fgclip2_patches",
        "fgclip2_patches_deep",
        {"program.seed": 7, "program.vision_layers": 6, "loop.num_steps": 4800, **_FRESH_SCENES},
    ),
    ("fgclip2_stage2_last", "fgclip2_deep", {"program.seed": 8, "loop.num_steps": 1500, **_FRESH_SCENES}),
    (
        "fgclip2_stage2_last",
        "fgclip2_deep_end",
        {
            "program.seed": 10,
            "loop.num_steps": 1000,
            "loop.learning_rate": 0.0007,
            "input.world.scenes": 16_000,
            "input.world.skip": 100_000,
        },
    ),
)
"""Recipe, output and settings of FG-CLIP 2's trainings: each starts from the one before, the first from SigLIP 2."""
VALIDATION_SCENES = 150
FITTED_SCENES = 400
"""Scenes whose boxes give the chances of box scores."""
_DEFAULT_OUT = Path(__file__).parents[1] / "ovsops" / "checkpoints" / "miniature"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, calibrate, copy; the exit code of the first training that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.ship_miniature", description=__doc__)
    parser.add_argument("--train-out", type=Path, default=Path("train-out"), help="outputs of the trainings")
    parser.add_argument(
        "--out",
        type=Path,
        default=_DEFAULT_OUT,
        help="folder for siglip2/, dinov2/, clip/, dino/, sam3/, llmdet/, mapper/, fgclip2/",
    )
    options = parser.parse_args(arguments)
    trained = {name: options.train_out / name for name in (*TOWERS, "mapper")}
    for training in trainings():
        if code := run_command(training.command(options.train_out)):
            return code
    trained["fgclip2"] = options.train_out / FGCLIP2[-1][1]
    for name, place in trained.items():
        copy_checkpoint(place / "checkpoint", options.out / name)
    torch.set_num_threads(1)
    scenes = bank_of(draw_scene(seed) for seed in seeds_of("validation")[:VALIDATION_SCENES])
    constants = calibrate(options.out, scenes)
    save_calibration(constants, options.out)
    logger.info("%s: calibrated on %d validation scenes: %s", options.out, len(scenes), constants)
    if options.out.resolve() != _DEFAULT_OUT:
        logger.warning(
            "%s: boxes.json was not made, since it belongs to the checkpoints that `miniature:` names; "
            "ovsops fit makes one for a recipe that names these",
            options.out,
        )
        return 0
    return fit_boxes(options.out)


def trainings() -> list[Training]:
    """In an order in which each finds what it starts from."""
    befores = ("siglip2", *(output for _, output, _ in FGCLIP2))
    return [
        *(Training(recipe=name, output=name) for name in TOWERS),
        Training(
            recipe="mapper_regions",
            output="mapper",
            starts={f"program.{part}.source": name for part, name in _MAPPER_TOWERS},
        ),
        *(
            Training(recipe=recipe, output=output, starts={"program.start.source": before}, settings=settings)
            for (recipe, output, settings), before in zip(FGCLIP2, befores, strict=False)
        ),
    ]


def fit_boxes(out: Path) -> int:
    """Chances of the shipped detector's and expert's boxes, on validation scenes; the exit code of `ovsops fit`."""
    with TemporaryDirectory() as place:
        shards, fitted = Path(place, "shards"), Path(place, "fit")
        seeds = seeds_of("validation")[:FITTED_SCENES]
        write_world_shards(shards, seeds, scenes_per_shard=100, config=SceneConfig())
        recipe = str(RECIPES / "label_instances_miniature.yaml")
        settings = (f"input.shards={shards}/*.tar", "calibrator=null")
        words = (word for each in settings for word in ("--set", each))
        images = str(FITTED_SCENES)
        if code := run_command(["fit", recipe, "--out", str(fitted), "--images", images, *words]):
            return code
        shutil.copyfile(fitted / "calibrator.json", out / "boxes.json")
    return 0


def copy_checkpoint(source: Path, target: Path) -> None:
    """Weights, config and tokenizer; a model card that lies in the target stays."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.suffix in (".safetensors", ".json"):
            old.unlink()
    for path in sorted(source.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json"):
            shutil.copyfile(path, target / path.name)


if __name__ == "__main__":
    sys.exit(main())
