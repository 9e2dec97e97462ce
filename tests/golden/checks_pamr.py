"""Golden checks of the pamr kinds: masks refined on a guide picture by the published implementations."""

from pathlib import Path

import numpy as np
import torch

from ovsops.masks.refine import PamrConfig, pamr
from tests.golden.table import Arrays, Check

TOLERANCE = 2e-5


def check_talk2dino_pamr(arrays: Arrays, folder: Path) -> None:
    """Guide 0-255 `image` (1, 3, H, W); `mask` (1, N, h, w) is resized inside with aligned corners."""
    refined = _refined(arrays["image"], arrays["mask"], int(arrays["num_iter"]), arrays["dilations"])
    _assert_close(refined, arrays["out_mask"])


def check_cass_pamr(arrays: Arrays, folder: Path) -> None:
    """The same operator with other constants; no batch axis."""
    refined = _refined(arrays["image"][None], arrays["mask"][None], int(arrays["iters"]), arrays["dilations"])
    _assert_close(refined[0], arrays["out"])


def _refined(image: np.ndarray, mask: np.ndarray, num_iterations: int, dilations: np.ndarray) -> np.ndarray:
    config = PamrConfig(num_iterations=num_iterations, dilations=tuple(dilations.tolist()))
    return pamr(torch.from_numpy(image), torch.from_numpy(mask), config).numpy()


def _assert_close(refined: np.ndarray, expected: np.ndarray) -> None:
    assert refined.shape == expected.shape
    np.testing.assert_allclose(refined, expected, rtol=0, atol=TOLERANCE)


CHECKS: dict[str, Check] = {"talk2dino_pamr": check_talk2dino_pamr, "cass_pamr": check_cass_pamr}
