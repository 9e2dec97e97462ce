"""SC-CLIP's tail, everything behind CLIP's blocks: ours against a plain transcription of the published formulas.

    python -m benchmarks.scclip [--grid 21] [--rounds 7] [--width 768] [--heads 12] [--text-width 512]

Random tokens of ViT-B/16's shape (12 blocks; grid 21 is 441 patches, a view of 336 pixels), random weights, one thread,
CPU seconds, both ways in turn each round; the table has medians. The transcription computes what SC-CLIP (repository
SuleBai/SC-CLIP at 0417ba9) defines, step by step: differences of all pairs of tokens for the outlier factor, a loop
over outliers, an attention matrix a head, two branches. Results are compared first. Exit 1 when ours is not 5 times
faster.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from time import process_time

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.clip import ClipHidden, ClipVision
from ovsops.backbones.untrained import randomize
from ovsops.segmenters.scclip import calibrated_features
from ovsops.segmenters.scclip_config import ScClipConfig

MIN_RATIO = 5.0
NUM_LAYERS = 12
NEIGHBOURS, CONTAMINATION, BETA, RESIDUAL = 30, 0.05, 0.4, 0.3


def outlier_factor(tokens: Tensor) -> Tensor:
    """Squared distances of all pairs; reach is at least the own k-distance; density; ratio of densities."""
    squared = ((tokens[:, None] - tokens[None]) ** 2).sum(dim=-1)
    nearest, neighbours = squared.topk(NEIGHBOURS + 1, dim=-1, largest=False)
    nearest, neighbours = nearest[:, 1:], neighbours[:, 1:]
    reach = torch.maximum(nearest, nearest[:, -1:])
    density = NEIGHBOURS / reach.sum(dim=-1)
    return density[neighbours].mean(dim=-1) / density


def repaired(tokens: Tensor, outliers: list[int], grid: tuple[int, int]) -> Tensor:
    """Each outlier becomes the mean of its neighbours on the grid that are none."""
    result = tokens.clone()
    chosen = set(outliers)
    for place in outliers:
        row, column = divmod(place, grid[1])
        around = [
            y * grid[1] + x
            for y in range(max(row - 1, 0), min(row + 2, grid[0]))
            for x in range(max(column - 1, 0), min(column + 2, grid[1]))
            if y * grid[1] + x not in chosen
        ]
        if around:
            result[place] = tokens[around].mean(dim=0)
    return result


def cosines(tokens: Tensor) -> Tensor:
    """Of all pairs."""
    units = tokens / tokens.norm(dim=-1, keepdim=True)
    return units @ units.T


def averaged(tokens: Tensor, similarity: Tensor) -> Tensor:
    """Rows of the thresholded similarity, over their sums."""
    kept = similarity.masked_fill(similarity < BETA, 0)
    return kept @ tokens / (kept.sum(dim=-1, keepdim=True) + 1e-6)


def plain_tail(model: CLIPVisionModelWithProjection, hidden: ClipHidden, num_heads: int) -> Tensor:
    """Unit patch features of one view."""
    blocks = [block[0] for block in hidden.blocks]
    layer = model.vision_model.encoder.layers[-1]
    last, similar, shallow = blocks[10][1:], blocks[8][1:], blocks[3][1:]
    scores = outlier_factor(last)
    outliers = (scores > torch.quantile(scores, 1 - CONTAMINATION)).nonzero()[:, 0].tolist()
    last, similar = repaired(last, outliers, hidden.grid), repaired(similar, outliers, hidden.grid)
    similarity = cosines(similar)

    def attended(tokens: Tensor) -> Tensor:
        normed = layer.layer_norm1(tokens)
        keys = layer.self_attn.k_proj(normed).unflatten(-1, (num_heads, -1)).transpose(0, 1)
        values = layer.self_attn.v_proj(normed).unflatten(-1, (num_heads, -1)).transpose(0, 1)
        lead = (3 * (similarity - similarity.mean())).repeat(num_heads, 1, 1)
        by_similarity = lead.masked_fill(lead < 0, -torch.inf).softmax(dim=-1)
        by_keys = (keys @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5).softmax(dim=-1)
        mixed = (by_similarity + by_keys) / 2 @ values
        return layer.self_attn.out_proj(mixed.transpose(0, 1).flatten(1))

    levels = torch.stack(blocks[3:10]).sum(dim=0)
    main = attended(averaged(last, similarity)) + RESIDUAL * blocks[10][0]
    multi = attended(levels[1:]) + RESIDUAL * levels[0]
    dense = averaged(main, cosines(shallow)) + averaged(multi, cosines(shallow))
    projected = model.visual_projection(model.vision_model.post_layernorm(dense))
    return projected / projected.norm(dim=-1, keepdim=True)


def random_hidden(*, grid: int, width: int) -> ClipHidden:
    """Tokens with some structure: nearby patches share a direction, and a few stand out."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, width, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(grid, grid), mode="bicubic")[0].flatten(1).T
    blocks = []
    for block in range(NUM_LAYERS - 1):
        patches = smooth + 0.5 * torch.randn(grid * grid, width, generator=generator)
        if block >= NUM_LAYERS // 2:
            patches[torch.randperm(grid * grid, generator=generator)[: grid * grid // 25]] *= 3
        cls_token = torch.randn(1, width, generator=generator)
        blocks.append(torch.cat([cls_token, patches])[None])
    return ClipHidden(blocks=tuple(blocks), grid=(grid, grid))


@torch.inference_mode()
def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", type=int, default=21)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--text-width", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)

    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=options.width,
            intermediate_size=4 * options.width,
            num_hidden_layers=NUM_LAYERS,
            num_attention_heads=options.heads,
            image_size=224,
            patch_size=16,
            projection_dim=options.text_width,
        )
    )
    randomize(model, seed=0)
    tower = ClipVision.of(model)
    hidden = random_hidden(grid=options.grid, width=options.width)
    config = ScClipConfig(clip=Checkpoint(source="random"), mode="upstream")
    ways: dict[str, Callable[[], Tensor]] = {
        "plain transcription": lambda: plain_tail(model, hidden, options.heads),
        "ours": lambda: calibrated_features(tower, hidden, config)[0].flatten(0, 1),
    }
    expected, found = (way() for way in ways.values())
    error = float((found - expected).abs().max() / expected.abs().max())
    if error > 1e-4:
        print(f"the ways do not agree: {error:.1e} of the largest entry")
        return 1
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            start = process_time()
            way()
            seconds[name].append(process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{options.grid**2} patches of {options.width}, {options.heads} heads; error {error:.1e}")
    print(f"{'':22}{'CPU-ms':>9}{'min':>8}{'max':>8}{'ratio':>8}")
    for name, values in seconds.items():
        ratio = medians["plain transcription"] / medians[name]
        print(
            f"{name:22}{1e3 * medians[name]:9.1f}{1e3 * min(values):8.1f}{1e3 * max(values):8.1f}{ratio:8.1f}"
        )
    return 0 if medians["plain transcription"] >= MIN_RATIO * medians["ours"] else 1


if __name__ == "__main__":
    sys.exit(main())
