"""Golden checks of FG-CLIP 2: towers and heads, preprocessing, the five losses, stretched positions."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.fgclip2_model import FgClip2Config, FgClip2Model
from ovsops.backbones.fgclip2_pixels import cut_patches, fit_grid, pad_patches, patch_budget, shared_budget
from ovsops.backbones.fgclip2_regions import region_means
from ovsops.backbones.fgclip2_start import stretch_positions
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


def close(found: Tensor, expected: np.ndarray, *, atol: float, rtol: float) -> None:
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=atol, rtol=rtol)


CHECKS: dict[str, Check] = {
    "fgclip2_model": check_model,
    "fgclip2_preproc": check_preproc,
    "fgclip2_longpos": check_longpos,
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
}
