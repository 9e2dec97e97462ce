"""Golden checks of a whole tiny CASS: one window, a sliding window with the prior of the whole image, the weights.

Images in the files are normalised already and their text stands for the text tower. The weights lie in the file
`cass_tiny_weights*.npz` of the same folder.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.clip import position_embedding
from ovsops.backbones.dino import vit_last_keys
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.geometry import Window, slide_windows
from ovsops.segmenters.cass_features import DensePatches, dense_patches, image_prior
from ovsops.segmenters.cass_views import slipped_pixels
from ovsops.segmenters.labels import canvas_scores
from ovsops.segmenters.prompt_tree import adjusted_text, query_logits, ward_clusters
from ovsops.segmenters.views import ViewPlan, in_whole_patches
from tests.golden.checks_cass import (
    COST,
    FLOAT32,
    LOOSE,
    NEAR_TIE,
    TOP_PATCHES,
    UNIQUE_MARGIN,
    agrees,
    pair_of,
    published,
    tensor,
)
from tests.golden.clip_weights import clip_vision_of, load_weights
from tests.golden.dino_weights import dino_of
from tests.golden.table import Arrays, Check


def check_tiny(arrays: Arrays, folder: Path) -> None:
    """A window, an image of several windows, or the weights: those are run on every image beside them."""
    if "image" in arrays:
        check_image(arrays, _weights_of(arrays, folder))
        return
    clip_vision_of(arrays, num_heads=1)  # every name and shape is known
    dino_of(arrays, num_heads=1)
    images = [load_weights(folder, path.name) for path in sorted(folder.glob("cass_tiny*.npz"))]
    for image in images:
        if "image" in image and _belongs(image, arrays):
            check_image(image, arrays)


def check_image(arrays: Arrays, weights: Arrays) -> None:
    """Every array on the way from the normalised image to its logits."""
    num_heads = arrays["cost"].shape[-1]
    clip = clip_vision_of(weights, num_heads=num_heads)
    dino = dino_of(weights, num_heads=num_heads)
    image = tensor(arrays, "image")
    plan = plan_of(arrays)
    views = torch.stack([image[:, w.y1 : w.y2, w.x1 : w.x2] for w in plan.windows])
    pixels = normalized(slipped_pixels(views), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    agrees(pixels, arrays, "vfm_pixels", FLOAT32)

    first: list[Tensor] = []
    hook = clip.model.vision_model.pre_layrnorm.register_forward_hook(lambda *call: first.append(call[-1]))
    hidden = clip.encode_views(views, position="upstream")
    hook.remove()
    vfm_keys = vit_last_keys(dino, tensor(arrays, "vfm_pixels"), position="upstream")
    table = tensor(weights, "clip.positional_embedding")
    if "hidden" in arrays:
        agrees(torch.stack([*first, *hidden.blocks])[:, 0], arrays, "hidden", FLOAT32)
        agrees(vfm_keys[0].flatten(1, 2), arrays, "vfm_last_keys", FLOAT32)
        agrees(position_embedding(table, hidden.grid, position="upstream"), arrays, "pos_embed_used", FLOAT32)
        agrees(F.normalize(clip.image_embedding(hidden.blocks))[0], arrays, "cls_embed", FLOAT32)

    settings = published(scaled=bool(arrays["eigenscale"]))
    dense = dense_patches(clip, hidden.blocks[-2], vfm_keys, hidden.grid, settings, locality_std=5.0)
    agrees(dense.clip_keys, arrays, "k_clip", FLOAT32)
    agrees(dense.vfm_keys, arrays, "k_vfm", FLOAT32)
    check_graphs(dense, arrays)
    agrees(dense.patches, arrays, "dense", FLOAT32)

    picture = hidden
    if int(arrays["whole_image_prior"]):
        whole = in_whole_patches(image[None], patch=clip.patch_size, mode="upstream")
        picture = clip.encode_views(whole, position="upstream")
        agrees(
            position_embedding(table, picture.grid, position="upstream"), arrays, "whole_pos_embed", FLOAT32
        )
        agrees(F.normalize(clip.image_embedding(picture.blocks))[0], arrays, "whole_cls_embed", FLOAT32)
    check_labels(dense, F.normalize(clip.image_embedding(picture.blocks)), arrays, plan, hidden.grid)


def check_graphs(dense: DensePatches, arrays: Arrays) -> None:
    """Costs, the assignment where no other is as good, fused graphs."""
    pairs = dense.distilled.pairs
    np.testing.assert_allclose(pairs.cost.numpy(), arrays["cost"], rtol=0, atol=COST)
    assert float(arrays["min_margin"]) > UNIQUE_MARGIN, "no assignment to compare with"
    np.testing.assert_array_equal(pairs.clip_head.numpy(), arrays["col"])
    agrees(dense.distilled.fused, arrays, "fused", FLOAT32)


def check_labels(
    dense: DensePatches, pictures: Tensor, arrays: Arrays, plan: ViewPlan, grid: tuple[int, int]
) -> None:
    """Clusters, prior, moved text, logits of the image."""
    text = tensor(arrays, "text")
    clusters = ward_clusters(text, threshold=float(arrays["threshold"]))
    np.testing.assert_array_equal(clusters.numpy(), arrays["labels"])
    prior = image_prior(pictures, text, num_views=len(dense.patches))
    agrees(prior, arrays, "prior", FLOAT32)
    assert not 0 <= float(arrays["min_select_gap"]) < NEAR_TIE, "no choice to compare with"
    moved = adjusted_text(
        text, dense.patches, prior, clusters, weight=float(arrays["alpha"]), num_patches=TOP_PATCHES
    )
    agrees(moved, arrays, "adjusted", FLOAT32)
    logits = query_logits(dense.patches, moved, prior, prior_weight=float(arrays["gamma"]))
    merged = canvas_scores(logits.unflatten(2, grid), plan, mode="corrected")
    agrees(merged, arrays, "logits", FLOAT32)
    agrees(merged, arrays, "logits_unmodified_seed0", LOOSE)


def plan_of(arrays: Arrays) -> ViewPlan:
    """The windows of the image, which the file may give."""
    size = (int(arrays["image"].shape[1]), int(arrays["image"].shape[2]))
    windows = [Window(0, 0, *size)]
    if "slide" in arrays:
        stride, crop = pair_of(arrays, "slide")
        windows = slide_windows(size, window=crop, stride=stride)
        np.testing.assert_array_equal(np.array(windows), arrays["windows"])
    return ViewPlan(image_hw=size, canvas_hw=size, windows=tuple(windows))


def _weights_of(arrays: Arrays, folder: Path) -> Arrays:
    found = [load_weights(folder, path.name) for path in sorted(folder.glob("cass_tiny*weights*.npz"))]
    fitting = [weights for weights in found if _belongs(arrays, weights)]
    assert fitting, f"no weights for this image among the cass_tiny_weights*.npz of {folder}"
    return fitting[0]


def _belongs(image: Arrays, weights: Arrays) -> bool:
    """Whether the image's position embedding is the weights' own: its CLS row is never resized."""
    used = image.get("pos_embed_used", image.get("whole_pos_embed"))
    assert used is not None, "an image's file says which positions were used"
    own = weights["clip.positional_embedding"][0]
    return used.shape[1:] == own.shape and bool(np.allclose(used[0], own, atol=1e-6))


CHECKS: dict[str, Check] = {"cass_tiny": check_tiny}

RESULTS: dict[str, tuple[str, ...]] = {
    "cass_tiny": (
        "labels",
        "cost",
        "col",
        "logits",
        "vfm_pixels",
        "dense",
        "prior",
        "adjusted",
        "fused",
        "k_",
        "hidden",
        "cls_embed",
        "vfm_last_keys",
        "whole_cls_embed",
        "windows",
        "clip.proj",
        "vfm.pos_embed",
    )
}
"""Arrays that are results, by how their names begin; two of the weights stand for all."""
