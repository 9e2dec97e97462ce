"""What each of the mapper's five stages brings: a recipe's plan with the stage's part and without, on held-out scenes.

A stage is trained twice from the same state, over the same batches; the frozen towers run once. All figures are of the
mapper alone (DINO's share is 1) and about the drawn world; they say nothing about photographs. An interval is a paired
bootstrap over test scenes (1000 resamples, 95 %), counts of all seeds added; it does not hold what another seed would
change, so the difference of each seed stands beside it.

python -m benchmarks.mapper_stages [--checkpoints FOLDER] [--scenes-train 600] [--scenes-test 150] [--seeds 2]
    [--set FIELD=VALUE] [--json FILE]
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch.nn import functional as F

from benchmarks.miniature_quality import Row, all_classes, interval, markdown
from jobs.recipe import LoadedTrain, load_recipe
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.shipped import miniature_checkpoints
from ovsops.mapper.model import load_mapper
from ovsops.metrics.bootstrap import bootstrap, paired_bootstrap
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.segmenters.config import fused_config_from_folder
from ovsops.training.loop import LoopConfig, train
from ovsops.training.mapper_features import MapperFeatures
from ovsops.training.mapper_setup import MapperInputs, MapperTowers, prepare_mapper
from ovsops.training.quality import segmentation, share_right
from ovsops.training.scenes import NUM_THING_CLASSES, SceneBank, bank_of
from ovsops.training.shipping import GEOMETRY, world_vocabulary
from ovsops.training.stages import PARTS, MapperStagesConfig, MapperStagesProgram, Part
from pipelines.training.programs import MapperStagesRecipe

RECIPE = Path(__file__).parents[1] / "jobs" / "recipes" / "train_mapper_stages_miniature.yaml"
VIEWS = {"nouns": ("en", 16), "nouns zh": ("zh", 16), "nouns on 24 x 24": ("en", 24)}
"""Patch accuracy of nouns: language of the class names, patches on a side."""
Case = tuple[str, tuple[Part, ...]]
"""A stage, and what is switched off in it."""
UNTRAINED: Case = ("untrained", ())


@dataclass(frozen=True, kw_only=True)
class Found:
    """Counts of every test scene, and what the training cost."""

    areas: Int64[np.ndarray, "I 3 C"]
    nouns: dict[str, Int64[np.ndarray, "I 2"]]
    """By view: patches of nouns that are named right, and all of them."""
    cpu_s: float
    """Of this stage alone."""


@dataclass(frozen=True)
class Judge:
    """Test scenes, and what the towers say of them."""

    folder: Path
    bank: SceneBank
    features: MapperFeatures

    def __call__(self, mapper: Path, cpu_s: float) -> Found:
        """The counts of an exported mapper."""
        config = fused_config_from_folder(
            self.folder, mapper=Checkpoint(source=str(mapper)), alpha=1.0, threshold=0.0, **GEOMETRY
        )
        states = segmentation(self.bank, world_vocabulary(), {"mapper": config})["mapper"]
        return Found(
            areas=states.areas,
            nouns={name: noun_patches(mapper, self.features, *view) for name, view in VIEWS.items()},
            cpu_s=cpu_s,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, help="siglip2/, dinov2/; the shipped ones by default")
    parser.add_argument("--scenes-train", type=int, help="as many as the recipe draws by default")
    parser.add_argument("--scenes-test", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="a field of the recipe, as of ovsops run")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.checkpoints or miniature_checkpoints()
    overrides = list(arguments.set)
    if arguments.scenes_train:
        overrides.append(f"input.world.scenes={arguments.scenes_train}")
    loaded = load_recipe(RECIPE, overrides)
    assert isinstance(loaded, LoadedTrain)
    program, world = loaded.recipe.program, loaded.recipe.input.world
    assert isinstance(program, MapperStagesRecipe)
    assert world is not None
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="mapper-stages-") as place:
        work = Path(place)
        towers = MapperTowers(
            dino=Checkpoint(source=str(folder / "dinov2")), siglip=Checkpoint(source=str(folder / "siglip2"))
        )
        taught = bank_of(draw_scene(seed, SceneConfig(size=world.size)) for seed in world.seeds)
        inputs = prepare_mapper(taught, towers, work, grids=program.all_grids)
        bank = bank_of(draw_scene(seed) for seed in seeds_of("test")[: arguments.scenes_test])
        judge = Judge(
            folder, bank, prepare_mapper(bank, towers, work, grids=[g for _, g in VIEWS.values()]).features
        )
        shared_s = time.process_time() - started
        runs = [
            train_plan(replace(program, seed=seed), loaded.recipe.loop, inputs, work / str(seed), judge)
            for seed in range(program.seed, program.seed + arguments.seeds)
        ]
    rows = list(table(runs))
    print(f"\n{len(taught)} scenes taught, {len(bank)} test scenes, {arguments.seeds} seeds\n")
    print(markdown(rows))
    print(f"\nCPU: {time.process_time() - started:.0f} s in all, {shared_s:.0f} s of them the towers")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def train_plan(
    config: MapperStagesConfig, loop: LoopConfig, inputs: MapperInputs, folder: Path, judge: Judge
) -> dict[Case, Found]:
    """The plan as it is, judged after every stage; before each, its ablations leave from the same state."""
    untrained = folder / "untrained"
    MapperStagesProgram(inputs.features, config, views=inputs.views).export(untrained)
    found = {UNTRAINED: judge(untrained, 0.0)}
    ends = (*config.starts[1:], loop.num_steps)
    for (stage, parts), end in zip(PARTS.items(), ends, strict=True):
        for off in (*ablations(parts, config), ()):
            place = folder / "-".join((stage, "without", *off)) if off else folder / "plan"
            if off:
                shutil.copytree(folder / "plan" / "states", place / "states")
            program = MapperStagesProgram(inputs.features, replace(config, ablate=off), views=inputs.views)
            before = time.process_time()
            train(program, replace(loop, num_steps=end, save_every=end), place)
            cpu_s = time.process_time() - before
            program.export(place / "export")
            found[stage, off] = judge(place / "export", cpu_s)
    return found


def ablations(parts: tuple[Part, ...], config: MapperStagesConfig) -> list[tuple[Part, ...]]:
    """A stage's parts that are on: all of them, then each alone."""
    on = tuple(
        part
        for part in parts
        if (config.grids != config.first_grids if part == "grids" else config.weight(part))
    )
    return [on, *((part,) for part in on if len(on) > 1)] if on else []


def noun_patches(
    mapper: Path, features: MapperFeatures, language: str, side: int
) -> Int64[np.ndarray, "I 2"]:
    """Patches that a noun covers more than any other class: named right among the twenty class names, and all."""
    grid = features.grid(side)
    with torch.no_grad():
        names = F.normalize(load_mapper(mapper)(features.texts.names[LANGUAGES.index(language)]), dim=-1)
    answers = (grid.patch_tokens.float() @ names.T).argmax(dim=-1)  # I P; a token's length does not change it
    truth = grid.class_shares.argmax(dim=-1)
    is_noun = truth < NUM_THING_CLASSES
    return torch.stack([((answers == truth) & is_noun).sum(dim=1), is_noun.sum(dim=1)], dim=1).numpy()


def table(runs: list[dict[Case, Found]]) -> Iterator[Row]:
    """One row per stage and ablation: with, without, and the difference."""
    for case in runs[0]:
        stage, off = case
        if case == UNTRAINED or (not off and stage != "mapping"):
            continue
        without = UNTRAINED if not off else case
        on, out = [run[stage, ()] for run in runs], [run[without] for run in runs]
        areas, areas_out = (np.sum([f.areas for f in side], axis=0) for side in (on, out))
        row: Row = {"stage": stage, "without": ", ".join(off) or "training"}
        row["mIoU with"] = float(bootstrap(areas, all_classes).value)
        row["mIoU without"] = float(bootstrap(areas_out, all_classes).value)
        row["difference"] = interval(paired_bootstrap(areas, areas_out, all_classes))
        row["by seed"] = ", ".join(
            f"{all_classes(a.areas.sum(axis=0)) - all_classes(b.areas.sum(axis=0)):+.3f}"
            for a, b in zip(on, out, strict=True)
        )
        for name in VIEWS:
            nouns, nouns_out = (np.sum([f.nouns[name] for f in side], axis=0) for side in (on, out))
            if name == "nouns":
                row["nouns with"] = float(bootstrap(nouns, share_right).value)
                row["nouns without"] = float(bootstrap(nouns_out, share_right).value)
            row[f"difference, {name}"] = interval(paired_bootstrap(nouns, nouns_out, share_right))
        row["CPU s with"], row["CPU s without"] = (
            f"{sum(f.cpu_s for f in side) / len(side):.1f}" for side in (on, out)
        )
        yield row


if __name__ == "__main__":
    main()
