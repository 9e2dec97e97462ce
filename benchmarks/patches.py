"""LOF and PAMR against plain transcriptions of their formulas, and the memory of the chunked operators.

    python -m benchmarks.patches [--rounds 7] [--pamr-rounds 3] [--seed 0]
    python -m benchmarks.patches --peak lof|aggregate      # one figure, in a process of its own

Real sizes, random data, one thread, CPU time. The contenders run once a round, in turn, so that a busy machine slows
all of them alike; the table has the medians and the ratio of the medians. Results are compared first. Exit 1 when LOF
at 441 tokens is less than 30 times as fast as the plain form, PAMR less than 4 times, or an operator at 5,184 tokens
needs 100 MB or more above its features.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor

from ovsops.masks.refine import PamrConfig, pamr
from ovsops.patches.aggregation import aggregate
from ovsops.patches.outliers import LofVariant, local_outlier_factor

NUM_NEIGHBOURS = 30
LOF_SIZES = ((196, 768), (441, 768))
MIN_LOF_RATIO = 30.0
PAMR_SIDE, PAMR_CLASSES, PAMR_GRID = 448, 20, 28
PAMR_DILATIONS = (1, 2, 4, 8, 12, 24)
MIN_PAMR_RATIO = 4.0
PEAK_TOKENS, PEAK_WIDTH = 5184, 1024
MAX_PEAK_MB = 100.0
MB = 1e6
VARIANTS: tuple[LofVariant, ...] = ("published", "simplified_sq")


def plain_lof(tokens: Tensor, num_neighbours: int, variant: LofVariant) -> Tensor:
    """LOF as its formulas read: the N x N x D differences, K + 1 nearest less the first, reach, density, ratio."""
    squared = (tokens[:, None] - tokens[None]).square().sum(dim=-1)
    nearest = squared.topk(num_neighbours + 1, dim=1, largest=False)
    distances, indices = nearest.values[:, 1:], nearest.indices[:, 1:]
    if variant == "published":
        distances = distances.sqrt()
    kdist = distances[:, -1]
    reach = torch.maximum(distances, kdist[indices] if variant == "published" else kdist[:, None])
    density = 1 / reach.mean(dim=1)
    return (density[indices] / density[:, None]).mean(dim=1)


def plain_pamr(guides: Tensor, masks: Tensor, config: PamrConfig) -> Tensor:
    """PAMR as its formulas read: every pixel's neighbours in a tensor of their own, for guide and masks."""
    masks = F.interpolate(masks, size=guides.shape[-2:], mode="bilinear", align_corners=True)
    deviation = _around(guides, config.dilations, with_centre=True).std(dim=2, keepdim=True)
    difference = (guides[:, :, None] - _around(guides, config.dilations, with_centre=False)).abs()
    weights = (-difference / (1e-8 + 0.1 * deviation)).mean(dim=1, keepdim=True).softmax(dim=2)
    for _ in range(config.num_iterations):
        masks = (weights * _around(masks, config.dilations, with_centre=False)).sum(dim=2)
    return masks


def _around(planes: Tensor, dilations: tuple[int, ...], *, with_centre: bool) -> Tensor:
    """B C O h w: the 3 x 3 pixels around each pixel at every dilation."""
    rings = []
    for dilation in dilations:
        padded = F.pad(planes, (dilation,) * 4, mode="replicate").flatten(0, 1)[:, None]
        ring = F.unfold(padded, 3, dilation=dilation).view(*planes.shape[:2], 9, *planes.shape[2:])
        rings.append(ring if with_centre else torch.cat([ring[:, :, :4], ring[:, :, 5:]], dim=2))
    return torch.cat(rings, dim=2)


def pamr_inputs(seed: int) -> tuple[Tensor, Tensor]:
    """A picture of random 16-pixel patches with noise, and class probabilities in which a few classes dominate."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(1, 3, PAMR_GRID, PAMR_GRID, generator=generator)
    picture = F.interpolate(coarse, size=(PAMR_SIDE, PAMR_SIDE), mode="nearest")
    picture += 8 * torch.randn(picture.shape, generator=generator)
    logits = 2 * torch.randn(1, PAMR_CLASSES, PAMR_GRID, PAMR_GRID, generator=generator)
    logits += 4 * torch.randn(1, PAMR_CLASSES, 1, 1, generator=generator)
    return picture.clamp(0, 255), logits.softmax(dim=1)


def interleaved(ways: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each way."""
    cpu_ms: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = process_time()
            way()
            cpu_ms[name].append(1e3 * (process_time() - start))
    return {name: statistics.median(times) for name, times in cpu_ms.items()}


def compare_lof(rounds: int, seed: int) -> list[float]:
    """Print a row for each size and variant; the ratios at the largest size."""
    ratios = []
    print(f"{'LOF, k=30':34}{'plain ms':>10}{'ours ms':>10}{'ratio':>8}{'worst error':>14}")
    for num_tokens, width in LOF_SIZES:
        tokens = torch.randn(num_tokens, width, generator=torch.Generator().manual_seed(seed))
        for variant in VARIANTS:

            def plain(tokens: Tensor = tokens, variant: LofVariant = variant) -> Tensor:
                return plain_lof(tokens, NUM_NEIGHBOURS, variant)

            def ours(tokens: Tensor = tokens, variant: LofVariant = variant) -> Tensor:
                return local_outlier_factor(tokens, num_neighbours=NUM_NEIGHBOURS, variant=variant)

            error = float((plain() / ours() - 1).abs().max())
            ms = interleaved({"plain": plain, "ours": ours}, rounds)
            ratio = ms["plain"] / ms["ours"]
            if num_tokens == LOF_SIZES[-1][0]:
                ratios.append(ratio)
            name = f"{num_tokens} tokens x {width}, {variant}"
            print(f"{name:34}{ms['plain']:10.1f}{ms['ours']:10.1f}{ratio:8.1f}{error:14.1e}")
    return ratios


def compare_pamr(rounds: int, seed: int) -> float:
    """Print a row for each setting; the ratio of the setting that computes the plain form exactly."""
    guides, masks = pamr_inputs(seed)
    base = PamrConfig(dilations=PAMR_DILATIONS)
    configs = {
        "all classes": base,
        "winning_margin 0.2": replace(base, winning_margin=0.2),
        "resolution_share 0.5": replace(base, resolution_share=0.5),
    }

    def plain() -> Tensor:
        return plain_pamr(guides, masks, base)

    def ours(config: PamrConfig) -> Callable[[], Tensor]:
        return lambda: pamr(guides, masks, config)

    expected = plain()
    ways: dict[str, Callable[[], Tensor]] = {"plain": plain}
    ways |= {name: ours(config) for name, config in configs.items()}
    ms = interleaved(ways, rounds)
    pixels = PAMR_SIDE**2
    heading = f"PAMR {PAMR_SIDE}x{PAMR_SIDE}, {PAMR_CLASSES} classes"
    print(f"\n{heading:34}{'CPU ms':>10}{'ratio':>8}{'worst error':>14}{'labels differ':>28}")
    print(f"{'plain':34}{ms['plain']:10.0f}{1.0:8.1f}")
    for name, config in configs.items():
        refined = pamr(guides, masks, config)
        error = float((refined - expected).abs().max())
        differ = int((refined.argmax(dim=1) != expected.argmax(dim=1)).sum())
        share = f"{differ} of {pixels} ({100 * differ / pixels:.3f} %)"
        print(f"{name:34}{ms[name]:10.0f}{ms['plain'] / ms[name]:8.1f}{error:14.1e}{share:>28}")
    return ms["plain"] / ms["all classes"]


def peak_mb(operator: str) -> float:
    """Megabytes of this process's peak above what it held with the features, result included. Linux only."""
    generator = torch.Generator().manual_seed(0)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "lof": lambda tokens: local_outlier_factor(tokens, num_neighbours=NUM_NEIGHBOURS),
        "aggregate": lambda tokens: aggregate(tokens, tokens, beta=0.4, centred=True),
    }
    ways[operator](torch.randn(64, PEAK_WIDTH, generator=generator))  # what libraries load at first use
    tokens = torch.randn(PEAK_TOKENS, PEAK_WIDTH, generator=generator)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_kb("VmRSS")
    ways[operator](tokens)
    return (_status_kb("VmHWM") - before) * 1024 / MB


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def compare_peaks() -> list[float]:
    """Print the peak of each operator, each measured in a fresh process."""
    features = PEAK_TOKENS * PEAK_WIDTH * 4 / MB
    plain = PEAK_TOKENS**2 * PEAK_WIDTH * 4 / MB
    print(f"\npeak at {PEAK_TOKENS} tokens x {PEAK_WIDTH}, above the {features:.0f} MB of features")
    peaks = []
    for operator in ("lof", "aggregate"):
        command = [sys.executable, "-m", "benchmarks.patches", "--peak", operator]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        peaks.append(float(done.stdout))
        print(f"{operator:34}{peaks[-1]:10.1f} MB")
    print(f"{'plain LOF (not run)':34}{plain:10.0f} MB")
    return peaks


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pamr-rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", choices=("lof", "aggregate"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak is not None:
        print(peak_mb(options.peak))
        return 0
    lof_ratios = compare_lof(options.rounds, options.seed)
    pamr_ratio = compare_pamr(options.pamr_rounds, options.seed)
    peaks = compare_peaks()
    is_fast = min(lof_ratios) >= MIN_LOF_RATIO and pamr_ratio >= MIN_PAMR_RATIO
    return 0 if is_fast and max(peaks) < MAX_PEAK_MB else 1


if __name__ == "__main__":
    sys.exit(main())
