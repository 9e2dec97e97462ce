"""From queries on the patch grid to labels of pixels: the stream gives what the plain form gives, in little memory."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ovsops.geometry import Window, slide_windows
from ovsops.segmenters.query_labels import STRIP_ELEMENTS, label_queries
from ovsops.segmenters.views import ViewPlan

RUN: dict[str, Any] = {"logit_scale": 40.0, "prob_threshold": 0.0, "class_chunk": 4}


def plan_of(
    image_hw: tuple[int, int], canvas_hw: tuple[int, int], *, window: int = 16, stride: int = 8
) -> ViewPlan:
    windows = tuple(slide_windows(canvas_hw, window=window, stride=stride))
    return ViewPlan(image_hw=image_hw, canvas_hw=canvas_hw, windows=windows)


def one_view(height: int, width: int) -> ViewPlan:
    return ViewPlan(
        image_hw=(height, width), canvas_hw=(height, width), windows=(Window(0, 0, height, width),)
    )


def random_similarity(
    views: int, queries: int, grid: tuple[int, int] = (4, 4), seed: int = 0
) -> torch.Tensor:
    return torch.randn(views, queries, *grid, generator=torch.Generator().manual_seed(seed)) * 0.1


def plain(
    similarity: torch.Tensor,
    query_class: torch.Tensor,
    plan: ViewPlan,
    *,
    logit_scale: float,
    prob_threshold: float,
    area_threshold: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Everything at once: a plane a query, then a plane a class."""
    canvas = torch.zeros(similarity.shape[1], *plan.canvas_hw)
    count = torch.zeros(plan.canvas_hw)
    for view, window in zip(similarity, plan.windows, strict=True):
        up = F.interpolate(view[None], size=window.size_hw, mode="bilinear")[0]
        canvas[:, window.y1 : window.y2, window.x1 : window.x2] += up
        count[window.y1 : window.y2, window.x1 : window.x2] += 1
    pixels = F.interpolate((canvas / count)[None], size=plan.image_hw, mode="bilinear")[0]
    each = (pixels * logit_scale).softmax(dim=0)
    num_classes = int(query_class.max())
    probabilities = torch.stack(
        [
            each[query_class == c].amax(dim=0) if (query_class == c).any() else torch.full_like(each[0], -1)
            for c in range(num_classes + 1)
        ]
    )
    if area_threshold is not None:
        area = probabilities.argmax(dim=0).flatten().bincount(minlength=num_classes + 1)
        is_small = area <= area_threshold * area[1:].sum()
        is_small[0] = False
        probabilities[is_small] = 0
    labels = probabilities.argmax(dim=0)
    labels[probabilities.amax(dim=0) < prob_threshold] = 0
    labels[probabilities.amax(dim=0) <= 0] = 0
    return labels, probabilities[1:].amax(dim=0)


@given(
    seed=st.integers(0, 10_000),
    classes=st.integers(1, 5),
    background=st.integers(0, 2),
    extra=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 0.2, 0.5]),
    area=st.sampled_from([None, 0.0, 0.1, 0.3, 0.99]),
    chunk=st.integers(1, 12),
)
def test_the_stream_gives_what_the_plain_form_gives(
    seed: int, classes: int, background: int, extra: int, threshold: float, area: float | None, chunk: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    more = torch.randint(0, classes + 1 if background else classes, (extra,), generator=generator)
    owners = torch.cat(
        [torch.arange(1, classes + 1), torch.zeros(background, dtype=torch.int64), more + (not background)]
    )
    query_class = owners[torch.randperm(len(owners), generator=generator)]
    plan = plan_of((30, 21), (18, 27))
    similarity = random_similarity(len(plan.windows), len(query_class), seed=seed)
    run = {"logit_scale": 40.0, "prob_threshold": threshold, "area_threshold": area}
    labels, scores = label_queries(similarity, query_class, plan, class_chunk=chunk, **run)
    expected_labels, expected_scores = plain(similarity, query_class, plan, **run)
    torch.testing.assert_close(scores, expected_scores, atol=1e-5, rtol=1e-4)
    assert (labels.long() == expected_labels).float().mean() > 0.99  # a pixel at a tie may fall either way


def test_by_hand() -> None:
    """Two classes and background at scale ln 2: similarities 1, 0, 2 weigh 2, 1, 4 of 7."""
    similarity = torch.tensor([1.0, 0.0, 2.0]).view(1, 3, 1, 1)
    run = {"plan": one_view(1, 1), "logit_scale": math.log(2), "prob_threshold": 0.0, "class_chunk": 9}
    labels, scores = label_queries(similarity, torch.tensor([1, 2, 0]), **run)
    assert int(labels) == 0
    assert float(scores) == pytest.approx(2 / 7)
    labels, scores = label_queries(similarity, torch.tensor([1, 2, 2]), **run)
    assert int(labels) == 2
    assert float(scores) == pytest.approx(4 / 7)  # the best of a class, not the sum
    labels, _ = label_queries(similarity, torch.tensor([1, 2, 2]), **(run | {"prob_threshold": 0.58}))
    assert int(labels) == 0


def test_small_classes_give_their_pixels_to_the_best_of_the_rest() -> None:
    """Class 2 wins one pixel of four; with a share of a quarter or more it is out, and class 3 is next there."""
    similarity = torch.tensor([[0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9], [0.2, 0.2, 0.2, 0.5]]).view(
        1, 3, 2, 2
    )
    classes = torch.tensor([1, 2, 3])
    for area, expected in ((None, [1, 1, 1, 2]), (0.2, [1, 1, 1, 2]), (0.25, [1, 1, 1, 1])):
        labels, _ = label_queries(similarity, classes, one_view(2, 2), area_threshold=area, **RUN)
        assert labels.flatten().tolist() == expected, area
    labels, scores = label_queries(similarity, classes, one_view(2, 2), area_threshold=0.75, **RUN)
    assert labels.flatten().tolist() == [0, 0, 0, 0]
    assert scores.flatten().tolist() == [0, 0, 0, 0]


def test_one_class_alone_is_certain_everywhere() -> None:
    labels, scores = label_queries(
        random_similarity(1, 1), torch.tensor([1]), one_view(8, 8), **(RUN | {"prob_threshold": 0.99})
    )
    assert (labels == 1).all()
    assert (scores == 1).all()


def test_ties_go_to_background_then_to_the_first_class() -> None:
    similarity = torch.full((1, 4, 3, 3), 0.5)
    for chunk in (1, 2, 4):
        run = RUN | {"class_chunk": chunk}
        labels, _ = label_queries(similarity, torch.tensor([3, 2, 1, 2]), one_view(3, 3), **run)
        assert (labels == 1).all()
        labels, _ = label_queries(similarity, torch.tensor([3, 2, 1, 0]), one_view(3, 3), **run)
        assert (labels == 0).all()


def test_a_large_scale_overflows_nothing() -> None:
    similarity = random_similarity(1, 5)
    labels, scores = label_queries(
        similarity, torch.arange(5), one_view(4, 4), **(RUN | {"logit_scale": 1e6, "class_chunk": 1})
    )
    assert torch.isfinite(scores).all()
    assert torch.equal(labels.long(), similarity[0].argmax(dim=0))


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        result = operation(*arguments, **(keywords or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return result


def test_171_classes_at_2048_squared_never_stand_in_memory_together() -> None:
    plan = plan_of((2048, 2048), (336, 336), window=224, stride=112)
    similarity = random_similarity(len(plan.windows), 171, grid=(14, 14))
    with LargestTensor() as largest:
        labels, scores = label_queries(similarity, torch.arange(1, 172), plan, **(RUN | {"class_chunk": 171}))
    assert labels.shape == scores.shape == (2048, 2048)
    assert len(np.unique(labels.numpy())) > 1
    assert largest.elements <= max(STRIP_ELEMENTS, 2048**2)  # the labels themselves are a plane
    assert largest.elements < 171 * 2048**2 // 100
