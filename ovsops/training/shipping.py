"""From trained towers to checkpoints that ship: constants from validation scenes, and the segmenter that uses them.

Axes: N scenes, C classes, H W patch grid, h w pixels.
"""

import json
import math
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ovsops.backbones.shipped import CALIBRATION, miniature_calibration
from ovsops.errors import CheckpointError
from ovsops.metrics.calibration import fit_sigmoid
from ovsops.metrics.segmentation import mean_iou
from ovsops.segmenters.build import build_segmenter, compute_text_features
from ovsops.segmenters.config import SegmenterConfig, fused_config_from_folder
from ovsops.segmenters.fused import row_similarity
from ovsops.segmenters.segmenter import FusedSegmenter
from ovsops.segmenters.views import plan_views
from ovsops.text.vocabulary import Vocabulary, load_vocabulary
from ovsops.training.calibration import ALPHAS, choose_alpha, fit_affine
from ovsops.training.quality import ALL_IDS, class_ids, segmentation
from ovsops.training.scenes import SceneBank

GEOMETRY = {"grid": 16, "short_side": 128, "window": 128, "stride": 64}
"""One view of 128 px on a grid of 16 for a scene of the size that was trained on; larger ones are cut into windows."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Constants of the fused segmenter, by the names of its fields; see `SegmenterConfig`."""

    alpha: float
    siglip_scale: float
    siglip_shift: float
    temperature: float
    bias: float


def shipped_segmenter(folder: Path) -> SegmenterConfig:
    """The segmenter of a folder with `siglip2/`, `dinov2/`, `mapper/` and `calibration.json`.

    Every pixel gets a class: the world has no background.
    """
    constants = miniature_calibration(folder)
    if constants.keys() != {field.name for field in fields(Calibration)}:
        raise CheckpointError(
            f"{folder / CALIBRATION}: it holds {sorted(constants) or 'nothing'}; the constants of Calibration are "
            "expected: calibrate the folder, or take the shipped one"
        )
    return fused_config_from_folder(folder, threshold=0.0, **constants, **GEOMETRY)


def world_vocabulary() -> Vocabulary:
    """The twenty classes of the miniature world."""
    return load_vocabulary(Path(str(files("ovsops.text") / "data" / "world.yaml")))


def calibrate(folder: Path, bank: SceneBank) -> Calibration:
    """Fit the constants on scenes that were neither taught nor are reported.

    kappa and c give SigLIP's similarities the mean and spread of DINO's. alpha is the share of DINO of the best mIoU
    on the grid 0, 0.1, ... 1. Temperature and bias make the winning score the chance that its pixel is right.
    """
    vocabulary = world_vocabulary()
    base = fused_config_from_folder(folder, alpha=0.5, threshold=0.0, **GEOMETRY)
    text = compute_text_features(base, vocabulary, ("en",))
    segmenter = build_segmenter(base, vocabulary, text)
    assert isinstance(segmenter, FusedSegmenter)
    images = [image.permute(1, 2, 0).numpy() for image in bank.images]
    plans = [plan_views((image.shape[0], image.shape[1]), base) for image in images]
    features = segmenter.encode(images, plans)
    dino = torch.cat([row_similarity(f, segmenter.text, replace(base, alpha=1.0)) for f in features])
    siglip = torch.cat([row_similarity(f, segmenter.text, replace(base, alpha=0.0)) for f in features])
    affine = fit_affine(siglip, dino)
    fitted = replace(base, siglip_scale=affine.scale, siglip_shift=affine.shift)
    tried = {str(alpha): replace(fitted, alpha=alpha) for alpha in ALPHAS}
    states = segmentation(bank, vocabulary, tried)
    alpha = choose_alpha(
        {alpha: float(mean_iou(states[str(alpha)].areas.sum(axis=0), ALL_IDS)) for alpha in ALPHAS}
    ).alpha
    fused = alpha * dino + (1 - alpha) * (affine.scale * siglip + affine.shift)
    planes = F.interpolate(
        fused.unflatten(2, (base.grid, base.grid)), size=tuple(bank.semantic.shape[1:]), mode="bilinear"
    )
    best, place = planes[:, :, ::4, ::4].max(dim=1)
    is_right = torch.from_numpy(class_ids((place + 1).numpy(), vocabulary)) == bank.semantic[:, ::4, ::4]
    chance = fit_sigmoid(best.flatten(), is_right.flatten())
    return Calibration(
        alpha=alpha,
        siglip_scale=_rounded(affine.scale),
        siglip_shift=_rounded(affine.shift),
        temperature=_rounded(chance.temperature),
        bias=_rounded(chance.bias),
    )


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.json`."""
    (folder / CALIBRATION).write_text(json.dumps(vars(calibration), indent=2) + "\n", "utf-8")


def _rounded(value: float) -> float:
    """Four significant digits: what a recipe can spell out."""
    return (
        float(np.format_float_positional(value, precision=4, fractional=False))
        if math.isfinite(value)
        else value
    )
