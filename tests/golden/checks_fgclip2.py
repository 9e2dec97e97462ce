"""Golden checks of FG-CLIP 2: towers and heads, preprocessing, the five losses, stretched positions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.fgclip2_model import FgClip2Config, FgClip2Model
from ovsops.backbones.fgclip2_pixels import cut_patches, fit_grid, pad_patches, patch_budget, shared_budget
from ovsops.backbones.fgclip2_regions import region_means
from ovsops.backbones.fgclip2_start import stretch_positions
from ovsops.losses.fgclip2 import FgClip2Batch, FgClip2LossConfig, FgClip2Scales, Weights, fgclip2_loss
from ovsops.losses.fgclip2_terms import NUM_NEAREST, nearest_texts, next_margin, tic_loss
from ovsops.losses.siglip import siglip_loss
from tests.golden.table import Arrays, Check

MODEL = {"atol": 5e-5, "rtol": 1e-4}
COSINES = {"atol": 1e-5, "rtol": 0.0}


def model_of(arrays: Arrays) -> FgClip2Model:
    """The model of a file, with its weights; a key too many or too few is an error."""
    shape = {
        "hidden_size": int(arrays["cfg_hidden"]),
        "intermediate_size": int(arrays["cfg_intermediate"]),
        "num_hidden_layers": int(arrays["cfg_layers"]),
        "num_attention_heads": int(arrays["cfg_heads"]),
    }
    model = FgClip2Model(
        FgClip2Config(
            text_config={
                **shape,
                "vocab_size": int(arrays["cfg_vocab"]),
                "keep_len": 20,
                "longtext_len": 196,
            },
            vision_config={
                **shape,
                "patch_size": int(arrays["cfg_patch"]),
                "num_patches": int(arrays["cfg_num_patches"]),
            },
        )
    )
    weights = {k.removeprefix("w."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("w.")}
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def check_model(arrays: Arrays, folder: Path) -> None:
    model = model_of(arrays)
    is_patch = torch.from_numpy(arrays["pixel_attention_mask"]).bool()
    grids = torch.from_numpy(arrays["spatial_shapes"])
    pooled, tokens = model.embed_patches(torch.from_numpy(arrays["pixel_values"]), is_patch, grids)
    dense = model.dense_features(tokens, is_patch)
    close(pooled, arrays["image_features"], **MODEL)
    close(tokens * is_patch[..., None], arrays["last_hidden_state"], **MODEL)
    close(dense * is_patch[..., None], arrays["dense_features"], **MODEL)

    texts = {
        "short": model.embed_texts(torch.from_numpy(arrays["input_ids_short"]), length="short"),
        "box": model.embed_texts(torch.from_numpy(arrays["input_ids_short"]), length="box"),
        "long": model.embed_texts(torch.from_numpy(arrays["input_ids_long"]), length="long"),
    }
    for length, found in texts.items():
        close(found, arrays[f"text_{length}"], **MODEL)
    cosine = F.normalize(pooled, dim=-1) @ F.normalize(texts["short"], dim=-1).T
    close(model.logit_scale.exp() * cosine + model.logit_bias, arrays["logits_per_image"], **MODEL)

    features = torch.zeros_like(torch.from_numpy(arrays["region_features"]))
    is_empty = torch.zeros(len(features), dtype=torch.bool)
    for image, (rows, columns) in enumerate(grids.tolist()):
        own = torch.from_numpy(arrays["box_image_index"] == image)
        height, width = (int(side) for side in arrays["image_sizes"][image])
        dense_map = dense[image, : rows * columns].unflatten(0, (rows, columns))
        boxes = torch.from_numpy(arrays["boxes_xyxy"])[own]
        features[own], is_empty[own] = region_means(dense_map, boxes, (height, width), mode="upstream")
    unit = F.normalize(features, dim=-1)
    close(features, arrays["region_features"], **MODEL)
    close(unit, arrays["region_features_l2"], **MODEL)
    np.testing.assert_array_equal(is_empty.numpy(), arrays["region_norm_is_zero"])
    close(unit @ F.normalize(texts["box"], dim=-1).T, arrays["region_text_cosine"], **COSINES)


def check_preproc(arrays: Arrays, folder: Path) -> None:
    sizes = [(int(height), int(width)) for height, width in arrays["sizes_hw"]]
    budgets = [patch_budget(size) for size in sizes]
    np.testing.assert_array_equal(budgets, arrays["bucket"])
    own = [fit_grid(size, budget) for size, budget in zip(sizes, budgets, strict=True)]
    np.testing.assert_array_equal(own, arrays["grid_hw"])
    assert shared_budget(sizes) == int(arrays["batch_bucket"])
    shared = [fit_grid(size, shared_budget(sizes)) for size in sizes]
    np.testing.assert_array_equal(shared, arrays["batch_grid_hw"])

    image = arrays["image"]
    budget = patch_budget((image.shape[0], image.shape[1]))
    grid = fit_grid((image.shape[0], image.shape[1]), budget)
    batch = pad_patches([cut_patches(image, grid)], [grid], length=budget)
    np.testing.assert_array_equal(batch.grids[0].numpy(), arrays["spatial_shape"])
    np.testing.assert_array_equal(batch.is_patch[0].long().numpy(), arrays["pixel_attention_mask"])
    close(batch.patches[0], arrays["pixel_values"], atol=1e-6, rtol=0.0)


def check_longpos(arrays: Arrays, folder: Path) -> None:
    close(stretch_positions(torch.from_numpy(arrays["pos64"])), arrays["pos196"], atol=1e-6, rtol=0.0)


LOSSES = {"atol": 1e-5, "rtol": 1e-4}


@dataclass(frozen=True)
class SecondRank:
    """Gathers as rank 0 does when a second rank holds `other`."""

    other: Tensor
    rank: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        return torch.cat([tensor, self.other])


def check_losses(arrays: Arrays, folder: Path) -> None:
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    batch = FgClip2Batch(
        images=tensors["image"],
        texts_short=tensors["text_short"],
        texts_long=tensors["text_long"],
        region_images=tensors["region_image"],
        region_texts=tensors["region_text"],
        hard_images=tensors["hard_image"],
        hard_texts=tensors["hard_text"],
    )
    scales = FgClip2Scales(
        log_scale=tensors["logit_scale_log"],
        bias=tensors["logit_bias"],
        log_scale_regions=tensors["logit_scale_fine_log"],
        log_scale_hard=tensors["logit_scale_hard_log"],
    )
    hard_scale = scales.log_scale_hard.exp()
    margins = {"code": tensors["tau_prev"], "paper": tensors["tau_prev"] / hard_scale}
    weights: tuple[Weights, ...] = ("code", "paper")
    code, paper = (
        fgclip2_loss(
            batch,
            scales,
            margin=margins[kind],
            config=FgClip2LossConfig(weights=kind, tic_mode="upstream", too_few="skip"),
        )
        for kind in weights
    )
    for name, term in (
        ("global_short", "global_short"),
        ("global_long", "global_long"),
        ("fgv", "fgv"),
        ("infonce_hard", "hard_infonce"),
        ("fgt", "fgt"),
        ("cmr", "cmr"),
    ):
        close(code.terms[term], arrays[f"loss_{name}"], **LOSSES)
    close(paper.terms["cmr"], arrays["loss_cmr_cosine"], **LOSSES)
    close(code.margin, arrays["tau_next"], **LOSSES)
    close(paper.margin, arrays["tau_cosine_next"], **LOSSES)
    hard = 0.6 * code.terms["hard_infonce"] + 3 * code.terms["fgt"] + 0.4 * code.terms["cmr"]
    close(hard, arrays["loss_hard_total"], **LOSSES)
    _check_margin(batch, hard_scale, arrays)
    two_ranks = siglip_loss(
        batch.images,
        batch.texts_short,
        log_scale=scales.log_scale,
        bias=scales.bias,
        gather=SecondRank(tensors["text_other_rank"]),
    )
    close(two_ranks, arrays["loss_global_short_two_ranks"], **LOSSES)
    if len(batch.region_texts) < NUM_NEAREST:
        assert code.skipped == paper.skipped == ("tic",)
        assert "loss_tic" not in arrays
        return
    assert code.skipped == paper.skipped == ()
    texts = batch.region_texts
    close(nearest_texts(texts, mode="upstream"), arrays["tic_topk"], **LOSSES)
    close(tic_loss(texts, mode="upstream"), arrays["loss_tic"], **LOSSES)
    close(tic_loss(texts, mode="upstream", reduction="sum"), arrays["loss_tic_sum"], **LOSSES)
    close(tic_loss(texts), arrays["loss_tic_removed"], **LOSSES)
    close(code.total, arrays["loss_total_code"], **LOSSES)
    close(paper.total, arrays["loss_total_paper"], **LOSSES)


def _check_margin(batch: FgClip2Batch, hard_scale: Tensor, arrays: Arrays) -> None:
    """What the margin is before it is clamped, below and above."""
    images, texts = batch.hard_images, batch.hard_texts
    found = next_margin(images, texts, margin=0.0, logit_scale=hard_scale, maximum=None)
    close(found, arrays["tau_next_raw"].clip(min=0), **LOSSES)


def close(found: Tensor, expected: np.ndarray, *, atol: float, rtol: float) -> None:
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=atol, rtol=rtol)


CHECKS: dict[str, Check] = {
    "fgclip2_model": check_model,
    "fgclip2_preproc": check_preproc,
    "fgclip2_longpos": check_longpos,
    "fgclip2_losses": check_losses,
}
RESULTS = {
    "fgclip2_model": (
        "image_features",
        "last_hidden_state",
        "dense_features",
        "region_",
        "text_",
        "logits_per_image",
    ),
    "fgclip2_preproc": ("bucket", "grid_hw", "batch_", "pixel_", "spatial_shape"),
    "fgclip2_longpos": ("pos196",),
    "fgclip2_losses": ("loss_", "tau_next", "tau_cosine_next", "tic_topk"),
}
