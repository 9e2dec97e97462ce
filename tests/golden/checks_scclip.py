"""Golden checks of SC-CLIP: its attention, and the whole method on tiny weights, from a normalised image to logits."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.clip import ClipHidden, ClipVision, position_embedding
from ovsops.geometry import slide_windows
from ovsops.patches.aggregation import aggregate, cosine_similarity
from ovsops.patches.mixed_attention import Branch, mixed_attention, similarity_attention, similarity_weights
from ovsops.patches.outliers import local_outlier_factor
from ovsops.segmenters.labels import canvas_scores, upsampled
from ovsops.segmenters.scclip import (
    calibrated_features,
    find_outlier_tokens,
    repaired_tokens,
    sum_of_blocks,
)
from ovsops.segmenters.scclip_config import ScClipConfig
from ovsops.segmenters.views import ViewPlan
from tests.golden.clip_weights import clip_vision_of, load_weights
from tests.golden.table import Arrays, Check

WEIGHTS = "scclip_tiny_weights.npz"
NUM_HEADS = 4
"""Of the tiny tower; no array says it."""


def check_attn(arrays: Arrays, folder: Path) -> None:
    """Both halves of the attention and their mix, projected."""
    for case in sorted({name[:2] for name in arrays if name.endswith("_x")}):
        num_heads = int(arrays.get(f"{case}num_heads", arrays.get("num_heads", 0)))
        tokens, similarity = _tensor(arrays, f"{case}x")[None], _tensor(arrays, f"{case}sim")
        weights = similarity_weights(similarity, similarity.mean())
        _agrees(weights, arrays[f"{case}sim_attn"])
        projected = F.linear(
            tokens, _tensor(arrays, f"{case}in_proj_weight"), _tensor(arrays, f"{case}in_proj_bias")
        )
        keys, values = (
            part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1)[1:]
        )
        reference = _with_similarity(similarity)[None]
        for chunk in (7, 512):
            mixed = mixed_attention([(keys, values)], reference, chunk=chunk)
            out = F.linear(
                mixed, _tensor(arrays, f"{case}out_proj_weight"), _tensor(arrays, f"{case}out_proj_bias")
            )
            _agrees(out[0], arrays[f"{case}out"])
        by_similarity = similarity_attention(values.transpose(1, 2).flatten(2), reference)
        _agrees(by_similarity[0], (weights @ values.transpose(1, 2).flatten(2)[0]).numpy())


def check_tiny(arrays: Arrays, folder: Path) -> None:
    """One window with every value on the way, or a whole picture in sliding windows; weights are checked by running
    every such file beside them.
    """
    if "image" in arrays:
        weights, files = load_weights(folder, WEIGHTS), [arrays]
    else:
        names = sorted(path.name for path in folder.glob("scclip_tiny*.npz") if path.name != WEIGHTS)
        weights, files = arrays, [load_weights(folder, name) for name in names]
    tower = clip_vision_of(weights, num_heads=NUM_HEADS)
    for each in files:
        if "slide" in each:
            _check_slide(each, tower)
        else:
            _check_window(each, tower)


def _check_slide(arrays: Arrays, tower: ClipVision) -> None:
    image, text, config = _tensor(arrays, "image"), _tensor(arrays, "text"), _config(arrays)
    stride, crop = (int(x) for x in arrays["slide"])
    size = (int(image.shape[1]), int(image.shape[2]))
    windows = slide_windows(size, window=crop, stride=stride)
    views = torch.stack([image[:, w.y1 : w.y2, w.x1 : w.x2] for w in windows])
    hidden = tower.encode_views(views, position="upstream", num_blocks=tower.num_layers - 1)
    outliers = find_outlier_tokens(hidden.patches(len(hidden.blocks)), hidden.grid, config)
    np.testing.assert_array_equal(outliers.flatten(1).sum(dim=1).numpy(), arrays["n_outliers"])
    dense = calibrated_features(tower, hidden, config)
    plan = ViewPlan(image_hw=size, canvas_hw=size, windows=tuple(windows))
    logits = canvas_scores(torch.einsum("bhwe,qe->bqhw", dense, text), plan, mode="corrected")
    _agrees(logits, arrays["logits"])


def _check_window(arrays: Arrays, tower: ClipVision) -> None:
    image, text, config = _tensor(arrays, "image"), _tensor(arrays, "text"), _config(arrays)
    hidden = tower.encode_views(image[None], position="upstream", num_blocks=tower.num_layers - 1)
    _agrees(torch.cat(hidden.blocks), arrays["feats"])
    table = tower.model.vision_model.embeddings.position_embedding.weight
    _agrees(position_embedding(table, hidden.grid, position="upstream"), arrays["pos_embed_used"])
    _check_repair(arrays, hidden, config)
    _check_branches(arrays, tower, hidden, config)

    dense = calibrated_features(tower, hidden, config)[0]
    _agrees(dense.flatten(0, 1), arrays["dense_normalised"])
    logits = torch.einsum("hwe,qe->qhw", dense, text)
    _agrees(logits, arrays["logits_patch"])
    size = (int(image.shape[1]), int(image.shape[2]))
    _agrees(upsampled(logits, size, align_corners=False), arrays["logits_up"])
    if not int(arrays["unmodified_error"]):
        slipped = calibrated_features(tower, hidden, _config(arrays, mode="upstream"))[0]
        _agrees(slipped.flatten(0, 1), F.normalize(_tensor(arrays, "dense_unmodified"), dim=-1).numpy())


def _check_repair(arrays: Arrays, hidden: ClipHidden, config: ScClipConfig) -> None:
    last = hidden.patches(len(hidden.blocks))
    scores = local_outlier_factor(last, num_neighbours=config.num_neighbours, variant=config.lof_variant)
    np.testing.assert_allclose(scores[0].numpy(), arrays["lof_scores"], rtol=0, atol=1e-4)
    outliers = find_outlier_tokens(last, hidden.grid, config).flatten().nonzero()[:, 0]
    np.testing.assert_array_equal(outliers.numpy(), arrays["outliers"])


def _check_branches(arrays: Arrays, tower: ClipVision, hidden: ClipHidden, config: ScClipConfig) -> None:
    """Each branch by itself, though the method runs what is linear on their sum."""
    blocks = config.blocks_of(num_layers=tower.num_layers)
    last, similar = repaired_tokens(hidden, config, similar_block=blocks.similar)
    _agrees(last[0].T.unflatten(1, hidden.grid), arrays["last_interp"])
    _agrees(similar[0].T.unflatten(1, hidden.grid), arrays["mid_interp"])
    _agrees(cosine_similarity(similar)[0], arrays["mid_sim"])
    entering = aggregate(last, similar, beta=config.beta)
    _agrees(entering[0], arrays["x_aggregated"])
    shallow = hidden.patches(blocks.shallow)
    similarity = cosine_similarity(shallow)[0]
    _agrees(similarity.masked_fill(similarity < config.beta, 0), arrays["post_sim_thresholded"])

    def branch(tokens: Tensor, cls_token: Tensor, name: str) -> Tensor:
        keys_values: list[Branch] = [tower.keys_values(tokens)]
        attended = tower.attend_out(mixed_attention(keys_values, similar))
        _agrees(attended[0], arrays[f"attn_{name}"])
        residual = config.residual_of(num_layers=tower.num_layers) * cls_token
        return aggregate(attended + residual[:, None], shallow, beta=config.beta)

    levels = hidden.blocks[blocks.first_level - 1 : blocks.last_level]
    main = branch(entering, hidden.blocks[-1][:, 0], "main")
    multi = branch(
        sum_of_blocks([b[:, 1:] for b in levels]), sum_of_blocks([b[:, 0] for b in levels]), "multi"
    )
    _agrees(main[0], arrays["main_branch"])
    _agrees(multi[0], arrays["multi_branch"])
    _agrees(tower.project(main + multi)[0], arrays["dense"])


def _config(arrays: Arrays, mode: str = "corrected") -> ScClipConfig:
    """The published numbers with the published outlier factor; the published list counts blocks from 0."""
    similar, shallow, first, end = (int(x) for x in arrays["cfg"])
    return ScClipConfig(
        clip=Checkpoint(source="golden"),
        mode="upstream" if mode == "upstream" else "corrected",
        lof="simplified_sq",
        cls_residual=float(arrays["res_cls"]),
        beta=float(arrays["beta"]),
        similar_block=similar + 1,
        shallow_block=shallow + 1,
        first_level=first + 1,
        last_level=end,
    )


def _with_similarity(similarity: Tensor) -> Tensor:
    """Tokens whose cosine similarities these are."""
    values, vectors = torch.linalg.eigh(similarity.double())
    return (vectors * values.clamp_min(0).sqrt()).float()


def _tensor(arrays: Arrays, name: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(arrays[name]))


def _agrees(ours: Tensor, expected: np.ndarray) -> None:
    """Same shape, and within 1e-5 of the largest entry."""
    assert tuple(ours.shape) == expected.shape
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


RESULTS: dict[str, tuple[str, ...]] = {
    "scclip_attn": ("a_sim_attn", "a_out", "b_sim_attn", "b_out"),
    "scclip_tiny": (
        *("feats", "lof_scores", "outliers", "last_interp", "mid_", "x_aggregated", "attn_", "post_sim"),
        *("main_branch", "multi_branch", "dense", "pos_embed_used", "logits", "n_outliers"),
        *("clip.conv1", "clip.proj"),
    ),
}

CHECKS: dict[str, Check] = {"scclip_attn": check_attn, "scclip_tiny": check_tiny}
