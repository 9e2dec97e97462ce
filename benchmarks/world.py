"""The miniature world: scenes per CPU-second of one core, drawn, described and written as shards.

    python -m benchmarks.world [--scenes 600] [--size 128] [--seed 100000]

A scene counts when its picture, masks, captions in both languages and truth are in a tar. Tables and textures are
made in a warm-up that is shown apart. Exit 1 when 128-pixel scenes come slower than 150 a CPU-second.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time

from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.captions import scene_caption
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import Scene, SceneConfig, draw_scene
from pipelines.world_shards import write_world_shards

MIN_SCENES_PER_SECOND = 150.0
WARM_UP = 100
SHARD = 200


def seconds(work: Callable[[], object]) -> float:
    start = process_time()
    work()
    return process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.world", description=__doc__)
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=100_000)
    args = parser.parse_args()
    config = SceneConfig(size=args.size)
    seeds = range(args.seed, args.seed + args.scenes)

    warm_up = seconds(lambda: [scene_sample(draw_scene(seed, config)) for seed in range(WARM_UP)])
    scenes: list[Scene] = []
    drawing = seconds(lambda: scenes.extend(draw_scene(seed, config) for seed in seeds))
    captions = seconds(
        lambda: [
            scene_caption(scene, language, length)
            for scene in scenes
            for language in LANGUAGES
            for length in ("short", "long")
        ]
    )
    samples = seconds(lambda: [scene_sample(scene) for scene in scenes])
    with tempfile.TemporaryDirectory() as folder:
        whole = seconds(
            lambda: write_world_shards(Path(folder), seeds, scenes_per_shard=SHARD, config=config)
        )
        num_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())

    def show(what: str, cost: float) -> None:
        print(f"{what:40}{cost / args.scenes * 1e3:9.2f} ms{args.scenes / cost:10.0f} /s")

    print(f"{args.scenes} scenes of {args.size} px; {num_bytes / args.scenes / 1e3:.1f} kB each in shards")
    print(f"warm-up, {WARM_UP} scenes                    {warm_up:9.2f} s")
    show("drawing, with masks", drawing)
    show("captions of the scene", captions)
    show("samples: RLE, all texts, JSON, PNG", samples)
    show("all of it, into shards", whole)
    if args.size == 128 and args.scenes / whole < MIN_SCENES_PER_SECOND:
        print(f"slower than {MIN_SCENES_PER_SECOND:.0f} scenes per CPU-second")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
