"""`make miniature`: train the miniature checkpoints by their recipes, calibrate them, put them where they ship from.

What is trained already is not trained again: stop it and start it as often as you like. One core takes about
two hours (the model cards say how long each took); the five towers can be trained at once by their recipes before.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from jobs.cli import run_command
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.scenes import bank_of
from ovsops.training.shipping import calibrate, save_calibration

logger = logging.getLogger(__name__)

RECIPES = Path(__file__).with_name("recipes")
TOWERS = ("siglip2", "dinov2", "clip", "dino", "sam3", "llmdet")
_MAPPER_TOWERS = (("siglip", "siglip2"), ("dino", "dinov2"))
"""Fields of the mapper's recipe, and the training whose checkpoint each takes."""
VALIDATION_SCENES = 150
_DEFAULT_OUT = Path(__file__).parents[1] / "ovsops" / "checkpoints" / "miniature"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, calibrate, copy; the exit code of the first training that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.ship_miniature", description=__doc__)
    parser.add_argument("--train-out", type=Path, default=Path("train-out"), help="outputs of the trainings")
    parser.add_argument(
        "--out",
        type=Path,
        default=_DEFAULT_OUT,
        help="folder for siglip2/, dinov2/, clip/, dino/, sam3/, llmdet/, mapper/",
    )
    options = parser.parse_args(arguments)
    trained = {name: options.train_out / name for name in (*TOWERS, "mapper")}
    for name in TOWERS:
        recipe = RECIPES / f"train_{name}_miniature.yaml"
        if code := run_command(["run", str(recipe), "--set", f"output={trained[name].resolve()}"]):
            return code
    sources = [
        f"program.{part}.source={(trained[name] / 'checkpoint').resolve()}" for part, name in _MAPPER_TOWERS
    ]
    settings = [f"output={trained['mapper'].resolve()}", *sources]
    recipe = RECIPES / "train_mapper_regions_miniature.yaml"
    if code := run_command(["run", str(recipe), *(word for each in settings for word in ("--set", each))]):
        return code
    for name, place in trained.items():
        copy_checkpoint(place / "checkpoint", options.out / name)
    torch.set_num_threads(1)
    scenes = bank_of(draw_scene(seed) for seed in seeds_of("validation")[:VALIDATION_SCENES])
    constants = calibrate(options.out, scenes)
    save_calibration(constants, options.out)
    logger.info("%s: calibrated on %d validation scenes: %s", options.out, len(scenes), constants)
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
