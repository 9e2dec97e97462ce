"""From the patch grid to labels of pixels."""

import numpy as np
import pytest
import torch

from ovsops.geometry import Window, slide_windows
from ovsops.segmenters.cleaning import Mode
from ovsops.segmenters.labels import canvas_scores, label_pixels
from ovsops.segmenters.views import ViewPlan


def plan(
    image_hw: tuple[int, int], canvas_hw: tuple[int, int], *, window: int = 16, stride: int = 8
) -> ViewPlan:
    windows = tuple(slide_windows(canvas_hw, window=window, stride=stride))
    return ViewPlan(image_hw=image_hw, canvas_hw=canvas_hw, windows=windows)


def random_scores(views: int, rows: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(views, rows, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_chunks_change_nothing(mode: Mode) -> None:
    view_plan = plan((30, 50), (16, 27))
    scores = random_scores(len(view_plan.windows), 9)
    run = {"num_classes": 7, "threshold": 0.6, "mode": mode}
    first = label_pixels(scores, view_plan, class_chunk=9, **run)
    for chunk in (1, 2, 3):
        found = label_pixels(scores, view_plan, class_chunk=chunk, **run)
        assert torch.equal(found[0], first[0])
        assert torch.equal(found[1], first[1])


def test_equals_the_plain_path_with_all_planes_at_once() -> None:
    view_plan = plan((30, 50), (16, 27))
    scores = random_scores(len(view_plan.windows), 6)
    canvas = torch.zeros(6, 16, 27)
    count = torch.zeros(16, 27)
    for v, w in enumerate(view_plan.windows):
        up = torch.nn.functional.interpolate(scores[v][None], size=w.size_hw, mode="bilinear")[0]
        canvas[:, w.y1 : w.y2, w.x1 : w.x2] += up
        count[w.y1 : w.y2, w.x1 : w.x2] += 1
    pixels = torch.nn.functional.interpolate((canvas / count)[None], size=(30, 50), mode="bilinear")[0]
    threshold = float(pixels[:5].amax(0).median()) + 1e-6  # on no pixel's value
    planes = torch.cat([torch.full((1, 30, 50), threshold), pixels])
    expected = planes.argmax(dim=0)
    expected[expected == 6] = 0  # the sixth row is a background prompt
    labels, best = label_pixels(
        scores, view_plan, num_classes=5, threshold=threshold, mode="corrected", class_chunk=2
    )
    assert torch.equal(labels.long(), expected)
    torch.testing.assert_close(best, pixels[:5].amax(dim=0))
    assert set(np.unique(labels.numpy())) == set(range(6))


def test_one_patch_aligned_by_its_centre_or_by_its_corner() -> None:
    """Two patches on four pixels: centres interpolate at 1/4 and 3/4, corners at 1/3 and 2/3."""
    scores = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
    view_plan = ViewPlan(image_hw=(4, 4), canvas_hw=(4, 4), windows=(Window(0, 0, 4, 4),))
    corrected = canvas_scores(scores, view_plan, mode="corrected")[0, 0]
    upstream = canvas_scores(scores, view_plan, mode="upstream")[0, 0]
    torch.testing.assert_close(corrected, torch.tensor([0, 0.25, 0.75, 1]))
    torch.testing.assert_close(upstream, torch.tensor([0, 1 / 3, 2 / 3, 1]))


def test_refinement_sees_windows_upstream_and_the_canvas_once_corrected() -> None:
    view_plan = plan((16, 27), (16, 27))
    scores = random_scores(len(view_plan.windows), 3)
    seen: list[Window | None] = []

    def refine(planes: torch.Tensor, window: Window | None) -> torch.Tensor:
        seen.append(window)
        return planes

    run = {"num_classes": 3, "threshold": 0.0, "class_chunk": 1}
    for mode, expected in (("upstream", list(view_plan.windows)), ("corrected", [None])):
        seen.clear()
        refined = label_pixels(scores, view_plan, mode=mode, refine=refine, **run)
        assert seen == expected
        assert torch.equal(refined[0], label_pixels(scores, view_plan, mode=mode, **run)[0])


def test_ties_go_to_the_first_class_whatever_the_chunk() -> None:
    scores = torch.full((1, 4, 4, 4), 0.5)
    view_plan = ViewPlan(image_hw=(5, 5), canvas_hw=(5, 5), windows=(Window(0, 0, 5, 5),))
    for chunk in (1, 4):
        labels, _ = label_pixels(
            scores, view_plan, num_classes=3, threshold=0.5, mode="corrected", class_chunk=chunk
        )
        assert (labels == 1).all()
