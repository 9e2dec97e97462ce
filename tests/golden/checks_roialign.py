"""Golden checks of RoIAlign: outputs of the compiled operator's semantics on maps and boxes of many kinds."""

from pathlib import Path

import numpy as np
import torch

from ovsops.masks.roi_align import roi_align
from tests.golden.table import Arrays, Check

TOLERANCE = 1e-5


def check_roialign(arrays: Arrays, folder: Path) -> None:
    """`cNN_*` of each case: map, boxes with image index, output size, scale, sampling ratio, aligned."""
    num_cases = int(arrays["n_cases"])
    assert num_cases >= 1
    for number in range(num_cases):
        case = {name: arrays[f"c{number:02d}_{name}"] for name in _NAMES}
        bins_y, bins_x = (int(side) for side in case["out_size"])
        found = roi_align(
            torch.from_numpy(case["feat"]),
            torch.from_numpy(case["rois"]),
            (bins_y, bins_x),
            spatial_scale=float(case["spatial_scale"]),
            sampling_ratio=int(case["sampling_ratio"]),
            aligned=bool(case["aligned"]),
        ).numpy()
        assert found.shape == case["out"].shape, f"case {number}"
        np.testing.assert_allclose(found, case["out"], rtol=0, atol=TOLERANCE, err_msg=f"case {number}")


_NAMES = ("feat", "rois", "out_size", "spatial_scale", "sampling_ratio", "aligned", "out")

CHECKS: dict[str, Check] = {"fgclip2_roialign": check_roialign}
RESULTS = {"fgclip2_roialign": tuple(f"c{number:02d}_out" for number in range(100))}
