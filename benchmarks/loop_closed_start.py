"""Where the arms of `benchmarks.loop_closed` start from: a model that sees attributes, and has no words for regions.

python -m benchmarks.loop_closed_start OUT --text STAGE1 [--vision miniature:fgclip2] [--steps 100] [--seed 12]

The vision tower and region head of one FG-CLIP 2, the text towers of another of the same width after stage 1 (as
`train_fgclip2_stage1_miniature.yaml` exports it), then whole captions alone, every term of regions at 0. What differs
after the arms is what their sets taught the texts: negatives teach nothing about a pattern that the tower cannot see.

Prints the checkpoint for `--start`. What is there already is not made again.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from jobs.recipe import LoadedTrain, load_recipe
from jobs.train import LineTrainObserver, run_training
from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.errors import ConfigError, TrainingError

RECIPE = Path(__file__).parents[1] / "jobs/recipes/train_fgclip2_stage2_miniature.yaml"
SEEING = ("vision_model.", "dense_feature_head.")
"""Beginnings of the names of the tensors that an image goes through."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", required=True, help="an FG-CLIP 2 after stage 1")
    parser.add_argument("--vision", default="miniature:fgclip2", help="an FG-CLIP 2 that sees attributes")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=12)
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    joined = joined_checkpoint(options.vision, options.text, options.out / "joined")
    fields = {
        "output": options.out,
        "program.start.source": joined,
        "program.term_weights": "{fgv: 0, fgt: 0, tic: 0, cmr: 0}",
        "program.seed": options.seed,
        "loop.num_steps": options.steps,
        "loop.learning_rate": 0.0005,
        "loop.warmup_steps": min(10, options.steps // 2),
    }
    loaded = load_recipe(RECIPE, [f"{name}={value}" for name, value in fields.items()])
    assert isinstance(loaded, LoadedTrain)
    summary = run_training(loaded, engine="inline", observer=LineTrainObserver())
    if not summary["checkpoint"]:
        raise TrainingError(f"{summary['over_limits']}; see {options.out}/summary.json")
    print(summary["checkpoint"])
    return 0


def joined_checkpoint(vision: str, text: str, folder: Path) -> Path:
    """What an image goes through from one checkpoint, all else from the other. ConfigError where they do not fit."""
    seeing, saying = (resolve(Checkpoint(source=source)) for source in (vision, text))
    towers, texts = (load_file(str(place.folder / "model.safetensors")) for place in (seeing, saying))
    odd = [
        name
        for name, value in towers.items()
        if not name.startswith(SEEING) and (name not in texts or texts[name].shape != value.shape)
    ]
    if odd:
        raise ConfigError(
            f"{vision} and {text} differ in {len(odd)} tensors of their texts, the first is {odd[0]}: "
            "only checkpoints of one width and depth of texts can be joined"
        )
    state = {name: value if name.startswith(SEEING) else texts[name] for name, value in towers.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    shutil.copyfile(seeing.folder / "config.json", folder / "config.json")
    shutil.copyfile(saying.folder / "tokenizer.json", folder / "tokenizer.json")
    return folder


if __name__ == "__main__":
    sys.exit(main())
