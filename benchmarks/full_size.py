"""Full-size SigLIP 2 B/16-512 and DINOv2 B/14 with random weights: files to run the real job on, and time per image.

python -m benchmarks.full_size FOLDER [--vocabulary-size 256000] [--images A.jpg B.png ...] [--rounds 1] [--threads 1]

Writes FOLDER/siglip2, FOLDER/dinov2 and FOLDER/mapper once (about 1.9 GB; 1.1 GB with --vocabulary-size 1000) and then
times the fused segmenter on the images given. The weights know nothing: only shapes, memory and time mean something.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from ovsops.backbones.presets import Preset, empty_model, preset
from ovsops.backbones.untrained import write_byte_tokenizer, write_random_mapper, write_random_model
from ovsops.images.decode import DecodeConfig, decode_image
from ovsops.segmenters.build import build_segmenter, compute_text_features
from ovsops.segmenters.config import fused_config_from_folder
from ovsops.segmenters.segmenter import Segmenter
from ovsops.segmenters.views import plan_views
from ovsops.text.vocabulary import ClassSpec, Vocabulary

SIGLIP, DINO = "siglip2-base-patch16-512", "dinov2-with-registers-base"
WIDTH = 768


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary-size", type=int, default=256_000)
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--views", choices=("slide", "squash"), default="slide")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    write_full_size(options.folder, vocabulary_size=options.vocabulary_size)
    if not options.images:
        return
    config = fused_config_from_folder(options.folder, views=options.views)
    classes = tuple(ClassSpec(id=i, name=f"class {i}") for i in range(1, 21))
    vocabulary = Vocabulary(name="twenty", languages=("en",), templates={"en": "plain"}, classes=classes)
    clock = time.perf_counter()
    text = compute_text_features(config, vocabulary, ("en",))
    print(f"text features of 20 prompts: {time.perf_counter() - clock:.1f} s, loading included")
    clock = time.perf_counter()
    segmenter = build_segmenter(config, vocabulary, text)
    print(f"vision towers loaded: {time.perf_counter() - clock:.1f} s")
    for path in options.images:
        pixels = decode_image(path.read_bytes(), DecodeConfig()).pixels
        num_views = len(plan_views((pixels.shape[0], pixels.shape[1]), config).windows)
        wall, cpu = zip(*(timed(segmenter, pixels) for _ in range(options.rounds)), strict=True)
        print(
            f"{path.name:24} {pixels.shape[1]}x{pixels.shape[0]} px, {num_views} view(s): "
            f"{statistics.median(wall):.2f} s, {statistics.median(cpu):.2f} CPU-s"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process: {peak:.2f} GiB, {options.threads} thread(s)")


def timed(segmenter: Segmenter, pixels: np.ndarray) -> tuple[float, float]:
    """Seconds on the clock and of the CPU for one image; on a busy machine only the second means something."""
    clock, cpu_clock = time.perf_counter(), time.process_time()
    [found] = segmenter.segment([pixels])
    assert found.labels.shape == pixels.shape[:2]
    return time.perf_counter() - clock, time.process_time() - cpu_clock


def write_full_size(folder: Path, *, vocabulary_size: int) -> None:
    """The three checkpoints, each only if it is not there."""
    siglip = preset(SIGLIP)
    text = {**siglip.config["text_config"], "vocab_size": vocabulary_size}
    smaller = Preset(
        family=siglip.family,
        repo=siglip.repo,
        licence=siglip.licence,
        config={**siglip.config, "text_config": text},
    )
    for name, chosen in (("siglip2", smaller), ("dinov2", preset(DINO))):
        if not (folder / name / "model.safetensors").exists():
            model = empty_model(chosen).to_empty(device="cpu")
            write_random_model(model, folder / name, seed=0)
    write_byte_tokenizer(folder / "siglip2")
    write_random_mapper(folder / "mapper", text_width=WIDTH, dino_width=WIDTH, seed=0)


if __name__ == "__main__":
    main()
