"""Golden checks of what CASS and SC-CLIP share: template means, sliding windows, labels from queries."""

from pathlib import Path

import numpy as np
import torch

from ovsops.geometry import Window, slide_windows
from ovsops.segmenters.labels import canvas_scores
from ovsops.segmenters.query_labels import label_queries
from ovsops.segmenters.views import ViewPlan
from ovsops.text.ensemble import mean_of_templates
from tests.golden.table import Arrays, Check


def check_postprocess(arrays: Arrays, folder: Path) -> None:
    """Softmax over queries, best query of a class, area filter, threshold; whatever the chunk."""
    for case in _cases(arrays, "logits"):
        logits = torch.from_numpy(arrays[f"{case}logits"])[None]
        height, width = int(logits.shape[2]), int(logits.shape[3])
        plan = ViewPlan(
            image_hw=(height, width), canvas_hw=(height, width), windows=(Window(0, 0, height, width),)
        )
        area = float(arrays[f"{case}area_thd"])
        for chunk in (1, 2, 100):
            labels, scores = label_queries(
                logits,
                torch.from_numpy(arrays[f"{case}query_idx"]),
                plan,
                logit_scale=float(arrays[f"{case}logit_scale"]),
                prob_threshold=float(arrays[f"{case}prob_thd"]),
                area_threshold=None if area < 0 else area,
                class_chunk=chunk,
            )
            np.testing.assert_array_equal(labels.numpy(), arrays[f"{case}pred"][0])
            best = arrays[f"{case}probs"][1:].max(axis=0)
            np.testing.assert_allclose(scores.numpy(), best, rtol=0, atol=1e-5)
        for place, expected in enumerate(arrays[f"{case}probs"]):
            if not expected.any():
                assert place not in labels  # the area filter took it out
                continue
            is_this = (torch.from_numpy(arrays[f"{case}query_idx"]) == place).long()
            _, scores = label_queries(
                logits,
                is_this,
                plan,
                logit_scale=float(arrays[f"{case}logit_scale"]),
                prob_threshold=0.0,
                class_chunk=2,
            )
            np.testing.assert_allclose(scores.numpy(), expected, rtol=0, atol=1e-5)


def check_slide(arrays: Arrays, folder: Path) -> None:
    """The windows in visiting order, and what is averaged from them."""
    for case in _cases(arrays, "noise"):
        noise = torch.from_numpy(arrays[f"{case}noise"])
        height, width = int(noise.shape[0]), int(noise.shape[1])
        windows = slide_windows(
            (height, width), window=int(arrays[f"{case}crop"]), stride=int(arrays[f"{case}stride"])
        )
        np.testing.assert_array_equal(np.array(windows), arrays[f"{case}windows"])
        views = []
        for number, window in enumerate(windows):
            part = noise[window.y1 : window.y2, window.x1 : window.x2]
            views.append(
                torch.stack([part * (1 + 0.1 * number), part - number, torch.full_like(part, number)])
            )
        plan = ViewPlan(image_hw=(height, width), canvas_hw=(height, width), windows=tuple(windows))
        merged = canvas_scores(torch.stack(views), plan, mode="corrected").numpy()
        expected = arrays[f"{case}merged"]
        np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def check_template_mean(arrays: Arrays, folder: Path) -> None:
    """Unit vectors of the templates, their mean, unit again."""
    mean = mean_of_templates(torch.from_numpy(arrays["template_features"]), "each").numpy()
    np.testing.assert_allclose(mean, arrays["class_feature"], rtol=0, atol=1e-6)


def _cases(arrays: Arrays, name: str) -> list[str]:
    """Prefixes of a file's cases, by the array that each of them has; `` where there is one case only."""
    cases = [each.removesuffix(name) for each in arrays if each.endswith(name)]
    assert cases, f"no array ends with {name}"
    return cases


RESULTS: dict[str, tuple[str, ...]] = {
    "cass_postprocess": ("a_pred", "a_probs", "b_pred", "b_probs"),
    "scclip_postprocess": ("a_pred", "a_probs", "b_pred", "b_probs"),
    "cass_slide": ("a_windows", "a_merged", "b_windows", "b_merged", "e_windows", "e_merged"),
    "cass_template_mean": ("class_feature",),
}

CHECKS: dict[str, Check] = {
    "cass_postprocess": check_postprocess,
    "scclip_postprocess": check_postprocess,
    "cass_slide": check_slide,
    "cass_template_mean": check_template_mean,
}
