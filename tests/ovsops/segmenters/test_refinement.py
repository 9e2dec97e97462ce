"""PAMR on similarities: borders follow the picture, in both modes, and nothing else changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.geometry import Window, slide_windows
from ovsops.masks.refine import PamrConfig
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.kinds import AnySegmenterConfig, compute_text, load_segmenter
from ovsops.segmenters.query_labels import label_queries
from ovsops.segmenters.refinement import refined_similarity
from ovsops.segmenters.scclip_config import ScClipConfig
from ovsops.segmenters.views import ViewPlan
from ovsops.text.vocabulary import Vocabulary
from tests.ovsops.segmenters.test_segmenter import picture
from tests.tiny import checkpoints as tiny

NEAR = PamrConfig(dilations=(1, 2))


def two_halves(height: int = 24, width: int = 48, edge: int = 19) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, edge:] = 255
    return image


def one_view(image_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> ViewPlan:
    return ViewPlan(image_hw=image_hw, canvas_hw=canvas_hw, windows=(Window(0, 0, *canvas_hw),))


LEFT_AND_RIGHT = torch.tensor([[[[0.9, 0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9, 0.9]], [[0.0, 0.0, 0.0, 0.0]]]])
"""Two queries of four patches, whose border is at column 24 of 48; and one that wins nowhere."""


def labels_of(similarity: torch.Tensor, plan: ViewPlan) -> torch.Tensor:
    found, _ = label_queries(
        similarity, torch.tensor([1, 2, 3]), plan, logit_scale=40.0, prob_threshold=0.0, class_chunk=4
    )
    return found


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
@pytest.mark.parametrize(("share", "margin"), [(1.0, None), (0.5, None), (1.0, 0.1)])
def test_a_border_moves_to_the_edge_of_the_picture(mode: Any, share: float, margin: float | None) -> None:
    image, plan = two_halves(), one_view((24, 48), (24, 48))
    config = PamrConfig(dilations=(1, 2, 4), resolution_share=share, winning_margin=margin)
    refined, whole = refined_similarity(image, plan, LEFT_AND_RIGHT, config, mode=mode)
    assert refined.shape == (1, 3, 24, 48)
    before, after = labels_of(LEFT_AND_RIGHT, plan), labels_of(refined, whole)
    assert (before[:, :24] == 1).all()
    assert (before[:, 24:] == 2).all()
    assert (after[:, : 19 - 1] == 1).all()
    assert (after[:, 19 + 1 :] == 2).all()


def test_only_queries_that_can_win_are_refined() -> None:
    image, plan = two_halves(), one_view((24, 48), (24, 48))
    third = LEFT_AND_RIGHT.clone()
    third[0, 2, 0] = torch.tensor([0.0, 0.05, 0.0, 0.05])
    config = PamrConfig(dilations=(1, 2), winning_margin=0.1)
    refined, _ = refined_similarity(image, plan, third, config, mode="corrected")
    untouched, _ = refined_similarity(image, plan, third, PamrConfig(num_iterations=0), mode="corrected")
    every, _ = refined_similarity(image, plan, third, NEAR, mode="corrected")
    assert torch.equal(refined[0, 2], untouched[0, 2])
    assert not torch.equal(every[0, 2], untouched[0, 2])
    torch.testing.assert_close(refined[0, :2], every[0, :2])


def test_upstream_works_at_the_size_of_the_image_and_corrected_on_the_canvas() -> None:
    image, plan = two_halves(), one_view((24, 48), (12, 24))
    for mode, size in (("upstream", (24, 48)), ("corrected", (12, 24))):
        refined, whole = refined_similarity(image, plan, LEFT_AND_RIGHT, NEAR, mode=mode)
        assert refined.shape[-2:] == whole.canvas_hw == size
        assert whole.image_hw == (24, 48)


def test_no_iterations_change_no_label() -> None:
    windows = tuple(slide_windows((24, 48), window=24, stride=12))
    plan = ViewPlan(image_hw=(30, 61), canvas_hw=(24, 48), windows=windows)
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(len(windows), 3, 4, 4, generator=generator)
    refined, whole = refined_similarity(
        picture(30, 61), plan, similarity, PamrConfig(num_iterations=0), mode="corrected"
    )
    assert torch.equal(labels_of(refined, whole), labels_of(similarity, plan))


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnySegmenterConfig]:
    root: Path = tmp_path_factory.mktemp("towers")
    clip = Checkpoint(source=str(tiny.write_clip(root / "clip")))
    vfm = Checkpoint(source=str(tiny.write_vit(root / "vit", width=32, heads=2)))
    small: dict[str, Any] = {"short_side": 48, "window": 32, "stride": 32, "refinement": NEAR}
    return {
        "clip": DenseClipConfig(clip=clip, **small),
        "scclip": ScClipConfig(clip=clip, **small),
        "cass": CassConfig(clip=clip, vfm=vfm, **small),
    }


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
@pytest.mark.parametrize("kind", ["clip", "scclip", "cass"])
def test_every_kind_takes_the_field(
    configs: dict[str, AnySegmenterConfig], vocabulary: Vocabulary, kind: str, mode: Any
) -> None:
    config = replace(configs[kind], mode=mode)
    text = compute_text(config, vocabulary, ("en", "zh")).to_bytes()
    images = [picture(50, 70), picture(1, 90, seed=1)]
    refined = load_segmenter(config, vocabulary, text).segment(images)
    plain = load_segmenter(replace(config, refinement=None), vocabulary, text).segment(images)
    for image, one in zip(images, refined, strict=True):
        assert one.labels.shape == image.shape[:2]
        assert np.isfinite(one.scores).all()
    assert not np.array_equal(refined[0].scores, plain[0].scores)
