"""Overlay pictures: colours where masks are, and nowhere else."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovsops.images.decode_config import DecodeConfig
from ovsops.masks.rle import mask_to_rle
from pipelines.readers import ReaderConfig
from pipelines.report.overlay import OverlayConfig, category_colour, draw_overlay, write_overlays
from pipelines.storage import StorageOptions, open_storage
from tests.pipelines.test_label_job import make_job, run_inline
from tests.tiny.shards import write_shards


def region(mask: np.ndarray, category_id: int = 1) -> dict[str, Any]:
    rle = mask_to_rle(mask)
    counts = rle.counts.decode() if isinstance(rle.counts, bytes) else rle.counts
    segmentation = {"size": list(rle.size_hw), "counts": counts}
    return {"category_id": category_id, "segmentation": segmentation, "area": int(mask.sum())}


def test_a_mask_is_blended_with_its_colour_and_the_rest_is_untouched() -> None:
    pixels = np.full((40, 400, 3), 100, np.uint8)
    mask = np.zeros((40, 400), bool)
    mask[10:30, 50:90] = True
    sheet = np.asarray(draw_overlay(pixels, [region(mask, 5)], {5: "cat"}))
    assert (sheet[:40][~mask] == 100).all()
    expected = 100 + 0.45 * (np.array(category_colour(5)) - 100)
    assert np.abs(sheet[20, 70] - expected).max() <= 1
    assert np.abs(sheet[10, 70] - sheet[20, 70]).max() > 10  # the outline is stronger
    assert sheet.shape[0] > 40  # a legend stands below


def test_the_picture_border_is_no_outline() -> None:
    pixels = np.full((40, 400, 3), 100, np.uint8)
    sheet = np.asarray(draw_overlay(pixels, [region(np.ones((40, 400), bool))], {}))
    assert (sheet[:40] == sheet[0, 0]).all()


def test_small_masks_stay_visible_over_large_ones() -> None:
    pixels = np.full((40, 400, 3), 100, np.uint8)
    small = np.zeros((40, 400), bool)
    small[15:25, 15:25] = True
    regions = [region(small, 1), region(np.ones((40, 400), bool), 2)]
    one, other = (np.asarray(draw_overlay(pixels, order, {})) for order in (regions, regions[::-1]))
    assert np.array_equal(one, other)
    assert not np.array_equal(one[20, 20], one[20, 200])


def test_colours_are_stable_and_neighbours_differ() -> None:
    colours = [np.array(category_colour(i), int) for i in range(1, 81)]
    assert category_colour(7) == category_colour(7)
    assert min(np.abs(a - b).sum() for a, b in pairwise(colours)) > 100


def test_large_pictures_are_shown_smaller_and_legends_are_cut() -> None:
    mask = np.zeros((100, 3000), bool)
    regions = []
    for i in range(20):
        mask = np.zeros((100, 3000), bool)
        mask[:, 100 * i : 100 * i + 50] = True
        regions.append(region(mask, i + 1))
    sheet = draw_overlay(np.zeros((100, 3000, 3), np.uint8), regions, {}, config=OverlayConfig(max_side=600))
    assert sheet.width == 600


@pytest.mark.parametrize("name", ["猫\x1b\u202e", "x" * 500, ""])
def test_any_name_can_be_drawn(name: str) -> None:
    draw_overlay(np.zeros((20, 30, 3), np.uint8), [region(np.ones((20, 30), bool))], {1: name}, title=name)


def test_overlays_of_a_run_stop_at_the_limit_and_leave_out_failed_images(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", num_shards=2, images_per_shard=4, broken_every=4)
    job = make_job([str(tmp_path / "in" / "*.tar")], tmp_path / "out")
    run_inline(job)

    def write(limit: int) -> list[Path]:
        return write_overlays(
            open_storage(job.output),
            job.shards,
            {1: "red", 7: "bright"},
            tmp_path / f"pictures{limit}",
            limit=limit,
            reader=ReaderConfig(),
            decode=DecodeConfig(),
            options=StorageOptions(),
        )

    assert len(write(2)) == 2
    every = write(100)
    assert len(every) == 6
    assert not any("000003" in path.name.split("-")[-1] for path in every)
    assert Image.open(every[0]).width == 320
