"""Golden checks of the talk2dino kinds: file name prefix to check function(arrays, folder).

The arrays come from the published code (commit 4918c2d) on random weights; tolerances are those of its authors' float32
run against a float64 one, with room. Axes as in the operators.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.dinov2 import dinov2_features
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.geometry import Window
from ovsops.losses.infonce import symmetric_infonce
from ovsops.mapper.alignment import (
    average_attention,
    choose_heads,
    cls_patch_logits,
    head_cosines,
    head_embeddings,
    text_head_similarity,
    unit,
)
from ovsops.mapper.model import Activation, TextToDino, mapper_from_tensors
from ovsops.masks.refine import PamrConfig, pamr
from ovsops.segmenters.cleaning import class_attention, clean_background, head_weights, rescale_to_scores
from ovsops.segmenters.config import CleaningConfig, SegmenterConfig
from ovsops.segmenters.fused import ViewFeatures, patch_scores, row_similarity
from ovsops.segmenters.labels import canvas_scores, label_pixels
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.segmenters.views import ViewPlan, resized_pixels
from ovsops.text.ensemble import mean_of_templates
from tests.golden.table import Arrays, Check

ACTIVATIONS: tuple[Activation, ...] = ("none", "tanh", "relu", "sigmoid")


def check_projection(arrays: Arrays, folder: Path) -> None:
    """psi, unit vectors, cosines."""
    mapped = mapper_of(arrays)(tensor(arrays, "text"))
    visual = unit(tensor(arrays, "visual"))
    agrees(mapped, arrays, "out_projected", 1e-5)
    agrees(unit(mapped), arrays, "out_projected_unit", 1e-5)
    agrees(visual, arrays, "out_visual_unit", 1e-5)
    agrees(unit(mapped) @ visual.T, arrays, "out_similarity", 1e-5)


def check_attention(arrays: Arrays, folder: Path) -> None:
    """Logits of the CLS token, head embeddings, head choice."""
    patch_tokens = tensor(arrays, "patch_tokens")
    logits = cls_patch_logits(
        tensor(arrays, "qkv"),
        num_heads=int(arrays["num_heads"]),
        num_prefix_tokens=int(arrays["num_prefix_tokens"]),
        scale=float(arrays["attn_scale"]),
    )
    agrees(logits, arrays, "out_cls_logits", 2e-5)
    average = average_attention(logits)
    agrees(average, arrays, "out_avg_attention", 2e-6)
    pooled = torch.einsum("bp,bpd->bd", average, patch_tokens) / patch_tokens.shape[1]
    agrees(pooled, arrays, "out_avg_embedding", 2e-6)
    agrees(logits.softmax(dim=-1), arrays, "out_head_attention", 2e-6)
    heads = head_embeddings(patch_tokens, logits)
    agrees(heads, arrays, "out_head_embeddings", 2e-6)
    mapped = mapper_of(arrays)(tensor(arrays, "text"))
    agrees(head_cosines(heads, mapped), arrays, "out_head_cosine", 5e-6)
    np.testing.assert_array_equal(choose_heads(heads, mapped)[1].numpy(), arrays["out_head_index"])
    agrees(text_head_similarity(mapped, heads), arrays, "out_similarity", 5e-6)


def check_infonce(arrays: Arrays, folder: Path) -> None:
    """Loss and its gradients, with and without a head axis."""
    visual = tensor(arrays, "visual")
    heads = visual if visual.ndim == 3 else visual[:, None]
    mapper = mapper_of(arrays).requires_grad_(True)
    mapped = mapper(tensor(arrays, "text"))
    similarity = text_head_similarity(mapped, heads)
    agrees(similarity, arrays, "out_similarity", 5e-6)
    np.testing.assert_array_equal(choose_heads(heads, mapped)[1].numpy(), arrays["out_head_index"])
    scale = float(arrays["logit_scale"])
    loss = symmetric_infonce(similarity, logit_scale=scale, reduction="upstream")
    plain = symmetric_infonce(similarity, logit_scale=scale)
    for ours, name in ((loss, "out_loss"), (plain, "out_loss_times_b2")):
        np.testing.assert_allclose(ours.item(), arrays[name], rtol=1e-5, atol=0)
    loss.backward()
    for i, linear in enumerate(mapper.linears):
        for part, gradient in (("w", linear.weight.grad), ("b", linear.bias.grad)):
            name = f"out_grad_{part}{i}"
            agrees(gradient, arrays, name, 1e-4 * float(np.abs(arrays[name]).max()))


def check_bgclean(arrays: Arrays, folder: Path) -> None:
    """Background cleaning with the slips of the published code, each step."""
    patches = tensor(arrays, "patch_features").flatten(2).transpose(1, 2)
    text, logits = tensor(arrays, "text_unit"), tensor(arrays, "cls_logits")
    scores = tensor(arrays, "mask").flatten(2)
    weights = head_weights(text, patches, logits, tau_head=1.0, mode="upstream")
    agrees(weights[0], arrays, "mid_head_weights", 2e-6)
    attention = class_attention(weights, logits)
    agrees(attention[0], arrays, "mid_class_attention", 2e-6)
    rescaled = rescale_to_scores(attention, scores, mode="upstream")
    agrees(rescaled[0], arrays, "mid_class_attention_rescaled", 2e-6)
    weight = 1 / (1 + float(arrays["lambda_bg"]))
    cleaned = clean_background(scores, text, patches, logits, weight=weight, tau_head=1.0, mode="upstream")
    agrees(cleaned.view(arrays["out_mask"].shape), arrays, "out_mask", 2e-6)


def check_text(arrays: Arrays, folder: Path) -> None:
    """Raw mean over templates, then psi, then unit."""
    mapped = mapper_of(arrays)(mean_of_templates(tensor(arrays, "text_templates")))
    agrees(unit(mapped, eps=1e-6), arrays, "out_text_unit", 5e-6)


def check_mask(arrays: Arrays, folder: Path) -> None:
    """The whole path of one image: pixels, DINOv2, text, scores, cleaning, upsampling, refinement, labels."""
    rgb = tensor(arrays, "image_bgr").flip(1)
    side = int(arrays["resize"])
    pixels = normalized(resized_pixels(rgb[0], (side, side))[None], mean=IMAGENET_MEAN, std=IMAGENET_STD)
    agrees(pixels, arrays, "mid_pixels", 2e-5 if tuple(rgb.shape[-2:]) != (side, side) else 2e-6)

    features = dinov2_features(dinov2_of(arrays), pixels)
    assert features.cls_patch_logits is not None
    views = ViewFeatures(
        patch_tokens=features.patch_tokens.flatten(1, 2),
        cls_logits=features.cls_patch_logits.flatten(2),
        aligned=None,
    )
    agrees(features.patch_tokens.permute(0, 3, 1, 2), arrays, "mid_patch_features", 1e-4)
    agrees(views.cls_logits, arrays, "mid_cls_logits", 1e-4)

    mapped = unit(mapper_of(arrays)(mean_of_templates(tensor(arrays, "text_templates"))), eps=1e-6)
    agrees(mapped, arrays, "mid_text_unit", 1e-5)
    text = ClassTextFeatures(
        class_ids=tuple(range(1, len(mapped) + 1)),
        num_background=0,
        negative_owner=torch.zeros(0, dtype=torch.int64),
        mapped=mapped,
        aligned=None,
        identity="golden",
    )
    config = published_config(arrays)
    grid = features.patch_tokens.shape[1:3]
    agrees(row_similarity(views, text, config).unflatten(2, grid), arrays, "out_similarity", 1e-5)
    scores = patch_scores(views, text, config).unflatten(2, grid)
    agrees(scores, arrays, "out_mask_low", 1e-5)
    check_pixels(arrays, scores, rgb, config)


def check_pixels(arrays: Arrays, scores: Tensor, rgb: Tensor, config: SegmenterConfig) -> None:
    """From the patch grid to labels."""
    height, width = int(rgb.shape[-2]), int(rgb.shape[-1])
    plan = ViewPlan(
        image_hw=(height, width), canvas_hw=(height, width), windows=(Window(0, 0, height, width),)
    )
    agrees(canvas_scores(scores, plan, mode="upstream")[None], arrays, "out_mask_full", 1e-5)

    def refine(planes: Tensor, window: Window | None) -> Tensor:
        assert window == plan.windows[0], "upstream refines every window"
        return pamr(rgb, planes[None], PamrConfig())[0]

    refiner = refine if int(arrays["with_pamr"]) else None
    if refiner is not None:
        refined = canvas_scores(scores, plan, mode="upstream", refine=refiner)[None]
        agrees(refined, arrays, "out_mask_pamr", 5e-5)
    stored = arrays["out_mask_pamr" if refiner is not None else "out_mask_full"]
    for name, threshold in (
        ("out_labels_foreground", 0.0),
        ("out_labels_background0", float(arrays["bg_threshold"])),
    ):
        labels, _ = label_pixels(
            scores,
            plan,
            num_classes=scores.shape[1],
            threshold=threshold,
            mode="upstream",
            class_chunk=2,
            refine=refiner,
        )
        ours = labels.numpy() - (name == "out_labels_foreground")
        rivals = (
            stored[0]
            if threshold == 0
            else np.concatenate([stored[0], np.full_like(stored[0, :1], threshold)])
        )
        agrees_where_decided(ours, arrays[name][0], rivals)


def agrees_where_decided(ours: np.ndarray, stored: np.ndarray, rivals: np.ndarray) -> None:
    """Equal wherever the two best rivals are more than 1e-4 apart, and nearly everywhere."""
    best = np.sort(rivals, axis=0)
    is_decided = best[-1] - best[-2] > 1e-4 if len(best) > 1 else np.ones(stored.shape, bool)
    np.testing.assert_array_equal(ours[is_decided], stored[is_decided])
    assert (ours == stored).mean() >= 0.995


def published_config(arrays: Arrays) -> SegmenterConfig:
    """Talk2DINO as published: DINO alone, no prior, its own mode."""
    nowhere = Checkpoint(source="golden")
    cleaning = CleaningConfig(weight=1 / (1 + float(arrays["lambda_bg"])))
    return SegmenterConfig(
        mode="upstream",
        dino=nowhere,
        mapper=nowhere,
        clip=nowhere,
        alpha=1.0,
        cleaning=cleaning if int(arrays["with_bg_clean"]) else None,
    )


def dinov2_of(arrays: Arrays) -> Dinov2WithRegistersModel:
    """The backbone whose weights the file holds."""
    config = Dinov2WithRegistersConfig(
        image_size=int(arrays["pos_image_size"]),
        patch_size=int(arrays["patch_size"]),
        hidden_size=int(arrays["hidden_size"]),
        num_attention_heads=int(arrays["num_heads"]),
        num_hidden_layers=int(arrays["num_layers"]),
        mlp_ratio=int(arrays["mlp_ratio"]),
        num_register_tokens=int(arrays["num_registers"]),
    )
    model = Dinov2WithRegistersModel(config)
    weights = {name[7:]: tensor(arrays, name) for name in arrays if name.startswith("dinov2.")}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def mapper_of(arrays: Arrays) -> TextToDino:
    """The projection whose linears the file holds."""
    tensors = {}
    for i in range(int(arrays["n_hidden"]) + 1):
        tensors[f"linears.{i}.weight"] = tensor(arrays, f"w{i}")
        tensors[f"linears.{i}.bias"] = tensor(arrays, f"b{i}")
    return mapper_from_tensors(tensors, activation=ACTIVATIONS[int(arrays["act"])], where="golden file")


def tensor(arrays: Arrays, name: str) -> Tensor:
    """One array as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(arrays[name]))


def agrees(ours: Tensor | None, arrays: Arrays, name: str, tolerance: float) -> None:
    """Within the absolute tolerance, and of the same shape."""
    assert ours is not None
    assert tuple(ours.shape) == arrays[name].shape, name
    np.testing.assert_allclose(ours.detach().numpy(), arrays[name], rtol=0, atol=tolerance, err_msg=name)


CHECKS: dict[str, Check] = {
    "talk2dino_projection": check_projection,
    "talk2dino_attention": check_attention,
    "talk2dino_infonce": check_infonce,
    "talk2dino_bgclean": check_bgclean,
    "talk2dino_text": check_text,
    "talk2dino_mask": check_mask,
}
