"""SAM 3 with many prompts: FLOPs at full size with features reused against single calls, and time on a tiny model.

python -m benchmarks.sam3 [--prompts 80] [--rounds 5]

FLOPs are counted on the meta device at the published configuration: no weights are needed, and 1 multiply-add is 2.
Times are CPU seconds of the tiny random model, the two ways interleaved; read the ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Sam3Config, Sam3Model

from ovsops.backbones.presets import empty_model, preset
from ovsops.backbones.sam3 import Sam3
from ovsops.backbones.sam3_calibration_config import CalibrationPreset
from ovsops.backbones.untrained_sam3 import randomize_sam3, tiny_sam3_config

TEXT_LENGTH = 32


@dataclass(frozen=True)
class Flops:
    """Floating-point operations for one image and all prompts."""

    reused: int
    """Image encoded once, prompts once, the detector once a prompt."""
    single: int
    """One whole call a prompt."""
    reused_corpus: int
    """As `reused`, the prompts already encoded: every image of a corpus but the first."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| facebook/sam3, one image, {options.prompts} prompts | TFLOP |")
    print("|---|---|")
    found = count_flops(options.prompts)
    print(f"| single calls | {found.single / 1e12:.1f} |")
    print(f"| features reused | {found.reused / 1e12:.1f} |")
    print(f"| ratio | {found.single / found.reused:.1f} |")
    print(f"| ratio, prompts encoded before | {found.single / found.reused_corpus:.1f} |")
    print()
    print(f"| tiny model, {options.prompts} prompts | CPU ms | of single calls |")
    print("|---|---|---|")
    times = timed_ways(options.prompts, options.rounds)
    for name, seconds in times.items():
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / times['single calls']:.2f} |")


def count_flops(num_prompts: int, *, prompts_per_batch: int = 4) -> Flops:
    """Counted on the meta device."""
    model = meta_model()
    sam3 = Sam3(model)
    side = sam3.image_size
    pixels = torch.empty(1, 3, side, side, device="meta")
    ids = torch.zeros(num_prompts, TEXT_LENGTH, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as image_and_detector:
        features = sam3.encode_images(pixels)
        tokens = torch.empty(num_prompts, TEXT_LENGTH, 256, device="meta")
        for part in tokens.split(prompts_per_batch):
            sam3.predict(features, part, None)  # whether a mask hides padding changes no count
    with FlopCounterMode(display=False) as text, torch.inference_mode():
        model.get_text_features(input_ids=ids)
    with FlopCounterMode(display=False) as single, torch.inference_mode():
        model(pixel_values=pixels, input_ids=ids[:1])
    reused = image_and_detector.get_total_flops()
    return Flops(
        reused=reused + text.get_total_flops(),
        single=num_prompts * single.get_total_flops(),
        reused_corpus=reused,
    )


def meta_model() -> Any:
    """The published configuration on the meta device, able to run there.

    The decoder reads the size of its grid from a tensor, which has no value on that device: it gets the grid's
    coordinates from here instead.
    """
    model: Any = empty_model(preset("sam3")).eval()
    backbone = model.config.vision_config.backbone_config
    cells = backbone.image_size // backbone.patch_size

    def coordinates(
        height: Any, width: Any, dtype: torch.dtype, device: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        line = torch.arange(cells, dtype=dtype, device=device) / cells
        return line, line

    model.detr_decoder._get_coords = coordinates
    return model


def timed_ways(num_prompts: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds for one image and all prompts, ways interleaved."""
    config = tiny_sam3_config()
    plain = tiny(config)
    pixels = torch.rand(1, 3, 168, 168) * 255
    ids = torch.randint(0, 400, (num_prompts, TEXT_LENGTH))
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        tokens = plain.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    def single_calls() -> None:
        with torch.inference_mode():
            for i in range(num_prompts):
                plain(
                    pixel_values=pixels / 127.5 - 1,
                    input_ids=ids[i : i + 1],
                    attention_mask=mask[i : i + 1],
                )

    def reusing(calibration: CalibrationPreset) -> Callable[[], None]:
        sam3 = Sam3(tiny(config), calibration)

        def run() -> None:
            features = sam3.encode_images(pixels)
            for part, part_mask in zip(tokens.split(8), mask.split(8), strict=True):
                sam3.predict(features, part, part_mask.bool())

        return run

    ways = {
        "single calls": single_calls,
        "features reused": reusing("off"),
        "reused, calibration safe": reusing("safe"),
        "reused, calibration depth_scaled": reusing("depth_scaled"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            clock = time.process_time()
            way()
            times[name].append(time.process_time() - clock)
    return {name: statistics.median(values) for name, values in times.items()}


def tiny(config: Sam3Config) -> Any:
    model = Sam3Model(config).eval().requires_grad_(False)
    randomize_sam3(model, seed=0)
    return model


if __name__ == "__main__":
    main()
