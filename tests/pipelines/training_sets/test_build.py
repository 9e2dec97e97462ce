"""Rows of the label job to samples: what is kept, what is counted, what the record refuses."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import RowError
from ovsops.masks.rle import mask_to_rle
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.sampler import Negatives, fit_sampler
from pipelines.schemas import IMAGES, INSTANCES
from pipelines.training_sets.build import (
    BuildConfig,
    build_sample,
    normalised_box,
    region_negatives,
    usable_text,
)
from pipelines.training_sets.contract import box_faults, canonical
from pipelines.training_sets.drops import REASONS, Drops
from pipelines.training_sets.record import RegionNegatives, TrainingSample
from tests.pipelines.made_samples import image_bytes, make_negatives, make_region, make_sample

DATA = image_bytes(1)


def image_row(**changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(IMAGES.names)
    row |= {
        "image_uid": "u1",
        "key": "a/b",
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "width": 16,
        "height": 8,
        "status": "labelled",
        "exif_orientation": 1,
        "caption_short": "A Cup",
    }
    return row | changes


def instance_row(uid: str = "i1", **changes: Any) -> dict[str, Any]:
    mask = np.zeros((8, 16), bool)
    mask[2:6, 4:8] = True
    row = dict.fromkeys(INSTANCES.names)
    row |= {
        "instance_uid": uid,
        "image_uid": "u1",
        "category_id": 3,
        "prompt": "cup",
        "bbox": [4.0, 2.0, 4.0, 4.0],
        "segmentation": mask_to_rle(mask).to_coco(),
        "iscrowd": 0,
        "score": 0.75,
        "caption_short": "A Red Cup",
        "decision": "accept",
    }
    return row | changes


def build(
    image: dict[str, Any] | None = None,
    instances: list[dict[str, Any]] | None = None,
    data: bytes | None = DATA,
    negatives: dict[str, RegionNegatives] | None = None,
    **config: Any,
) -> tuple[TrainingSample | None, dict[str, int]]:
    drops = Drops()
    sample = build_sample(
        image or image_row(),
        [instance_row()] if instances is None else instances,
        data,
        categories={3: "cup"},
        negatives=negatives or {},
        drops=drops,
        config=BuildConfig(**config),
    )
    return sample, drops.to_plain()


def test_a_row_becomes_a_sample() -> None:
    sample, counts = build(negatives={"i1": make_negatives()})
    assert sample is not None
    assert (sample.caption_short, sample.caption_long, sample.language) == ("a cup", "a cup", "en")
    (region,) = sample.regions
    assert region.box == (0.25, 0.25, 0.5, 0.75)
    assert (region.short_expr, region.score, region.category) == ("a red cup", 0.75, "cup")
    assert region.negatives is not None
    assert region.negatives.texts[0] == "a green cup"
    assert counts == {"N_OTHER_LENGTH": 2}


def test_regions_are_sorted_best_first_and_calibrated_scores_win() -> None:
    rows = [instance_row("a"), instance_row("c", score=0.1, score_calibrated=0.9), instance_row("b")]
    sample, _ = build(instances=rows)
    again, _ = build(instances=rows[::-1])
    assert sample == again
    assert [region.region_uid for region in sample.regions] == ["c", "a", "b"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("image", "data", "code"),
    [
        ({"status": "failed"}, DATA, "D_NOT_LABELLED"),
        ({}, b"GIF89a", "D_NO_BYTES"),
        ({}, None, "D_NO_BYTES"),
        ({"exif_orientation": 6}, DATA, "D_EXIF_TURNED"),
        ({"caption_short": "  "}, DATA, "D_NO_CAPTION"),
        ({"caption_short": "bad\x00text"}, DATA, "D_NO_CAPTION"),
    ],
)
def test_images_that_cannot_be_used_are_counted(image: dict[str, Any], data: bytes | None, code: str) -> None:
    sample, counts = build(image_row(**image), data=data)
    assert sample is None
    assert counts == {code: 1}


@pytest.mark.parametrize(
    ("changes", "config", "code"),
    [
        ({"category_id": 9}, {}, "D_REGION_UNKNOWN_CLASS"),
        ({"iscrowd": 1}, {}, "D_REGION_CROWD"),
        ({"decision": "review"}, {"keep_review": False}, "D_REGION_REVIEW"),
        ({"bbox": [14.0, 2.0, 4.0, 4.0]}, {}, "D_REGION_BOX"),
        ({"bbox": [4.0, 2.0, 0.0, 4.0]}, {}, "D_REGION_BOX"),
        ({"bbox": [float("nan"), 2.0, 4.0, 4.0]}, {}, "D_REGION_BOX"),
        ({"score": 0.1}, {"min_score": 0.2}, "D_REGION_SCORE"),
        ({"score": float("nan")}, {}, "D_REGION_SCORE"),
        ({"caption_short": None}, {}, "D_REGION_TEXT"),
        ({"caption_short": "红色的杯子"}, {}, "D_REGION_LANGUAGE"),
    ],
)
def test_regions_that_cannot_be_used_are_counted(
    changes: dict[str, Any], config: dict[str, Any], code: str
) -> None:
    sample, counts = build(
        instances=[instance_row("good", caption_long="x"), instance_row("bad", **changes)], **config
    )
    assert sample is not None
    assert [region.region_uid for region in sample.regions] == ["good"]
    assert counts == {code: 1, "N_OTHER_LENGTH": 1}
    assert set(counts) <= set(REASONS)


def test_an_image_whose_regions_all_go() -> None:
    assert build(instances=[])[1]["D_NO_REGION"] == 1
    sample, _ = build(instances=[], keep_without_regions=True)
    assert sample is not None
    assert sample.regions == ()


def test_names_may_stand_for_captions() -> None:
    sample, _ = build(instances=[instance_row(caption_short=None)], prompt_as_expression=True)
    assert sample is not None
    assert sample.regions[0].short_expr == "cup"


@pytest.mark.parametrize(
    "texts",
    [
        ("a green cup",) * 9,
        tuple(f"a {n} cup" for n in range(9)),
        tuple(f"a {n} cup" for n in range(11)),
        ("A RED cup.", *(f"a {n} cup" for n in range(9))),
        ("a 0 cup.", *(f"a {n} cup" for n in range(9))),
        ("", *(f"a {n} cup" for n in range(9))),
    ],
)
def test_negatives_that_break_the_contract_leave_the_region_without(texts: tuple[str, ...]) -> None:
    sample, counts = build(negatives={"i1": RegionNegatives(texts=texts, types=("colour",) * len(texts))})
    assert sample is not None
    assert sample.regions[0].negatives is None
    assert counts["D_NEGATIVES"] == 1


def test_the_positive_that_negatives_were_made_of_is_the_expression() -> None:
    """A mark that the negatives alone lack would give the answer away."""
    given = replace(make_negatives(), positive="A red cup")
    sample, _ = build(instances=[instance_row(caption_short="A red  cup ;")], negatives={"i1": given})
    assert sample is not None
    assert sample.regions[0].short_expr == "a red cup"
    assert sample.regions[0].negatives is not None
    without, _ = build(instances=[instance_row(caption_short="A red  cup ;")])
    assert without is not None
    assert without.regions[0].short_expr == "a red cup ;"


@pytest.mark.parametrize(
    ("caption", "image_caption"),
    [("A small red Plastic cup .", "a cup"), ("一个红色的塑料杯子。", "一个杯子")],
)
def test_negatives_of_the_rules_keep_the_contract(caption: str, image_caption: str) -> None:
    found = fit_sampler(CorpusSample()).negatives_for(caption, None, "i1")
    assert isinstance(found, Negatives)
    sample, counts = build(
        image_row(caption_short=image_caption),
        [instance_row(caption_short=caption)],
        negatives={"i1": region_negatives(found)},
    )
    assert sample is not None
    assert "D_NEGATIVES" not in counts
    (region,) = sample.regions
    assert region.short_expr == found.positive.lower()
    assert region.negatives is not None
    assert region.negatives.types == found.types
    assert len(set(region.negatives.texts)) == 10


def test_who_wrote_each_negative_stays_with_it() -> None:
    given = replace(make_negatives(), positive="a red cup", sources=("llm",) * 4 + ("rule",) * 6)
    sample, _ = build(negatives={"i1": given})
    assert sample is not None
    assert sample.regions[0].negatives == given
    sample, counts = build(negatives={"i1": replace(given, sources=("rule",) * 9)})
    assert sample is not None
    assert sample.regions[0].negatives is None
    assert counts["D_NEGATIVES"] == 1


def test_a_mask_of_another_size_is_an_error_of_the_tables() -> None:
    mask = mask_to_rle(np.ones((4, 4), bool)).to_coco()
    with pytest.raises(ValueError, match="tables do not belong together"):
        build(instances=[instance_row(segmentation=mask)])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"short_expr": "A cup"}, "text_case"),
        ({"short_expr": " "}, "text_empty"),
        ({"box": (0.5, 0.1, 0.4, 0.2)}, "box_order"),
        ({"box": (0.5, 0.1, 1.5, 0.2)}, "box_range"),
        ({"score": 1.5}, "score"),
        ({"negatives": RegionNegatives(texts=("a",) * 10, types=("x",) * 10)}, "negatives_distinct"),
        ({"negatives": replace(make_negatives(), types=("x",) * 9)}, "negatives_columns"),
        ({"negatives": replace(make_negatives(), sources=("rule",) * 9)}, "negatives_columns"),
        ({"negatives": replace(make_negatives(), sources=("somebody",) * 10)}, "negatives_source"),
    ],
)
def test_a_region_that_breaks_the_contract_is_not_built(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(RowError, match=match):
        make_region(1, **changes)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image_uid": "a/b"}, "image_uid"),
        ({"image_uid": "a.b"}, "image_uid"),
        ({"caption_long": "Upper"}, "text_case"),
        ({"split": "dev"}, "split"),
        ({"license": "a\nb"}, "text_control"),
        ({"regions": (make_region(1, score=0.1), make_region(2, score=0.2))}, "box_best_first"),
    ],
)
def test_a_sample_that_breaks_the_contract_is_not_built(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(RowError, match=match):
        make_sample(1, **changes)


@given(st.text())
def test_usable_text_keeps_the_contract_and_itself(text: str) -> None:
    usable = usable_text(text)
    if usable is not None:
        assert usable == usable.lower().strip()
        assert usable_text(usable) == usable


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_in_the_image_stay_in_it(height: int, width: int, corners: list[float]) -> None:
    x1, x2 = sorted((corners[0] * width, corners[1] * width))
    y1, y2 = sorted((corners[2] * height, corners[3] * height))
    box = normalised_box([x1, y1, x2 - x1, y2 - y1], (height, width))
    if box is not None:
        assert not list(box_faults(box, "box"))
        assert np.allclose(box, [x1 / width, y1 / height, x2 / width, y2 / height], atol=1e-6)
    else:
        assert x2 - x1 <= 1e-3 * width or y2 - y1 <= 1e-3 * height


def test_what_is_the_same_text() -> None:
    assert canonical("A  red cup.") == canonical("a red cup")
    assert canonical("一个红色的杯子。") == canonical("一个红色的杯子")
    assert canonical("a red cup") != canonical("a dark red cup")
