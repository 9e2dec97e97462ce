"""Detectors and the region expert through the label job. Checkpoints are untrained: names and scores mean nothing."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ovsops.backbones.untrained_fgclip2 import write_untrained_fgclip2
from ovsops.backbones.untrained_florence2 import TINY_FLORENCE2_SIDE, write_untrained_florence2
from ovsops.backbones.untrained_llmdet import write_untrained_llmdet
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.masks.rle import rle_from_coco, rle_to_mask

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    write_untrained_llmdet(folder / "llmdet")
    write_untrained_fgclip2(folder / "fgclip2")
    write_untrained_sam3(folder / "sam3")
    return {name: str(folder / name) for name in ("llmdet", "fgclip2", "sam3")}


@pytest.fixture
def llmdet(weights: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": "llmdet",
        "llmdet": {"source": weights["llmdet"]},
        "reading": {"short_side": 64, "max_long_side": 96, "min_score": 0.0, "max_detections": 8},
    }


@pytest.fixture
def expert(weights: dict[str, str]) -> dict[str, Any]:
    return {"fgclip2": {"source": weights["fgclip2"]}, "max_patches": 16, "min_score": 0.0}


@pytest.fixture
def labelled(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> Callable[..., tuple[pd.DataFrame, pd.DataFrame]]:
    def label(**fields: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
        code, out, err = ovsops("run", write_recipe(**fields), "--engine", "inline")
        assert code == 0, out + err
        return tuple(pd.read_parquet(tmp_path / "out" / kind) for kind in ("images", "instances"))

    return label


def masks_of(instances: pd.DataFrame) -> Iterator[np.ndarray]:
    for segmentation in instances.segmentation:
        yield rle_to_mask(
            rle_from_coco({"size": list(segmentation["size"]), "counts": segmentation["counts"]})
        )


def test_a_detector_alone_has_its_boxes_as_masks(labelled: Any, llmdet: dict[str, Any]) -> None:
    images, instances = labelled(segmenter=None, detector=llmdet)
    assert (images.status == "labelled").all()
    assert len(instances)
    assert set(instances.category_id) == {1}, "the other class is stuff"
    assert instances.segmenter.isna().all()
    assert instances.detector.str.match(r"llmdet/[0-9a-f]{12}$").all()
    assert instances.reason_codes.map(lambda codes: "R_BOX_MASK" in codes).all()
    assert (instances.score == instances.score_detector).all()
    for mask, bbox in zip(masks_of(instances), instances.bbox, strict=True):
        x, y, width, height = (int(side) for side in bbox)
        assert mask[y : y + height, x : x + width].all()
        assert mask.sum() == width * height


def test_boxes_take_their_masks_from_the_segmenter_and_stuff_stays(
    labelled: Any, llmdet: dict[str, Any]
) -> None:
    images, instances = labelled(detector=llmdet, instances={"masks": {"no_mask": "box"}})
    found = instances[instances.detector.notna()]
    alone = instances[instances.detector.isna()]
    assert len(found)
    assert set(alone.category_id) <= {7}
    assert found.agreement.between(0, 1).all()
    assert found.segmenter.notna().all()
    area = dict(zip(images.image_uid, images.width * images.height, strict=True))
    for uid, of_image in instances[instances.category_id == 7].groupby("image_uid"):
        assert of_image.area.sum() <= area[uid]


def test_the_expert_joins_its_word_and_says_so(
    labelled: Any, llmdet: dict[str, Any], expert: dict[str, Any]
) -> None:
    recalibration = {"mode": "keep", "alpha": 0.5, "beta": 0.5}
    _, instances = labelled(
        segmenter=None, detector=llmdet, expert={**expert, "recalibration": recalibration}
    )
    assert len(instances)
    expected = np.sqrt(instances.score_detector * instances.score_alignment)
    np.testing.assert_allclose(instances.score, expected, rtol=1e-5)
    assert instances.detector.str.match(r"llmdet\+fgclip2/[0-9a-f]{12}$").all()


def test_captions_and_verdicts_are_columns(
    labelled: Any, llmdet: dict[str, Any], expert: dict[str, Any]
) -> None:
    _, instances = labelled(
        segmenter=None,
        detector=llmdet,
        expert={
            **expert,
            "recalibration": None,
            "captions": {"default_margin": 0.0},
            "verify": {"evidence_side": 4},
        },
    )
    assert (instances.score == instances.score_detector).all()
    assert instances.caption_short.str.contains("red thing").all()
    assert set(instances.caption_source) <= {"detector", "fgclip2"}
    assert set(instances.verdict) <= {"yes", "no", "unsure"}
    assert (instances.decision == np.where(instances.verdict == "yes", "accept", "review")).mean() > 0
    for evidence in instances.evidence.dropna():
        assert len(evidence["values"]) == evidence["rows"] * evidence["columns"] <= 16


def test_a_gate_says_what_is_in_the_image_and_what_is_not(
    labelled: Any, llmdet: dict[str, Any], expert: dict[str, Any]
) -> None:
    gate = {"names": ["image", "joined", "region"], "weights": [0.0, 0.0, 0.0], "bias": -3.0}
    presence = {"gate": {**gate, "absent": 0.5, "present": 0.9}, "keep": 0.0, "low": 0.0}
    images, instances = labelled(segmenter=None, detector=llmdet, expert={**expert, "presence": presence})
    assert len(instances) == 0
    scores = images.presence.map(lambda found: {each["category_id"]: each["score"] for each in found})
    assert all(set(found) == {1} and max(found.values()) < 0.05 for found in scores), (
        "nobody looked for stuff"
    )
    assert not images.verified_absent.map(len).any(), "it had boxes: two witnesses disagree"
    assert images.notes.map(lambda notes: any(note.startswith("R_ABSENT:") for note in notes)).all()


def test_stuff_of_the_map_is_never_verified_absent_and_lost_masks_leave_a_class_open(
    labelled: Any, llmdet: dict[str, Any], expert: dict[str, Any]
) -> None:
    gate = {"names": ["image", "joined", "region"], "weights": [0.0, 0.0, 0.0], "bias": 3.0}
    presence = {"gate": {**gate, "absent": 0.1, "present": 0.2}, "keep": 0.0, "low": 0.0, "sure": 0.0}
    images, instances = labelled(
        detector=llmdet, expert={**expert, "presence": presence}, instances={"masks": {"no_mask": "drop"}}
    )
    assert 7 in set(instances.category_id)
    assert not images.verified_absent.map(len).any()
    for image in images.itertuples():
        lost = any(note.startswith("R_NO_MASK:") for note in image.notes)
        assert list(image.exhaustive) == ([] if lost else [1]), image.notes


def test_sam3_gives_maps_instances_and_presence_from_one_look(labelled: Any, weights: dict[str, str]) -> None:
    images, instances = labelled(
        segmenter={"kind": "sam3", "sam3": {"source": weights["sam3"]}, "instance_threshold": 0.05},
        detector={"kind": "sam3"},
    )
    found = instances[instances.detector.notna()]
    assert len(found)
    assert (found.detector == "sam3").all()
    assert images.presence.map(len).eq(2).all()
    sizes = {tuple(each["size"]) for each in found.segmentation}
    assert sizes <= set(zip(images.height, images.width, strict=True))


def test_sam3_draws_masks_for_boxes_of_a_detector(
    labelled: Any, weights: dict[str, str], llmdet: dict[str, Any]
) -> None:
    _, instances = labelled(
        segmenter={"kind": "sam3", "sam3": {"source": weights["sam3"]}},
        detector={**llmdet, "masks": "sam3", "sam3_boxes": {"min_box_iou": 0.0}},
    )
    found = instances[instances.detector.notna()]
    assert len(found)
    assert not found.reason_codes.map(lambda codes: "R_BOX_MASK" in codes).any()
    assert found.agreement.notna().all()


def test_connected_things_are_proposals_for_the_expert(labelled: Any, expert: dict[str, Any]) -> None:
    _, instances = labelled(detector={"kind": "proposals"}, expert=expert)
    found = instances[instances.detector.notna()]
    assert found.detector.str.startswith("proposals+fgclip2/").all()


def test_a_second_segmenter_agrees_with_itself(labelled: Any, write_recipe: Write) -> None:
    use = "fused_miniature"
    _, instances = labelled(segmenter={"use": use}, agreement={"segmenter": {"use": use}})
    assert len(instances)
    np.testing.assert_allclose(instances.agreement_other, 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segmenter": None}, "neither segmenter nor detector"),
        ({"segmenter": None, "detector": {"kind": "proposals"}}, "parts of a segmenter's map"),
        ({"detector": {"kind": "sam3"}}, "must be of kind sam3"),
        ({"detector": {"kind": "llmdet", "llmdet": {"source": "x"}, "masks": "sam3"}}, "is shown the boxes"),
        ({"expert": {"fgclip2": {"source": "x"}}}, "no detector whose boxes"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    write_recipe: Write, ovsops: Call, fields: dict[str, Any], message: str
) -> None:
    code, _, err = ovsops("plan", write_recipe(**fields))
    assert code == 2
    assert message in err


def test_a_calibrator_of_other_models_is_refused(
    write_recipe: Write, ovsops: Call, tmp_path: Path, llmdet: dict[str, Any]
) -> None:
    maps = {"scores": [0.0, 1.0], "chances": [0.0, 1.0], "num_samples": 100}
    file = tmp_path / "calibrator.json"
    file.write_text(
        json.dumps(
            {
                "version": 1,
                "fingerprint": "another",
                "kind": "isotonic",
                "source": "truth",
                "pooled": maps,
                "by_group": {},
            }
        )
    )
    recipe = write_recipe(segmenter=None, detector=llmdet, calibrator=str(file))
    code, out, err = ovsops("plan", recipe)
    assert code == 4
    assert "fitted on another" in out + err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([chr(0x8D8A) * 3], "no word that the detector's tokenizer knows"),
        (["钥匙"], "no word that the detector's tokenizer knows"),
    ],
)
def test_names_that_the_detector_cannot_read_are_found_at_the_door(
    write_recipe: Write, ovsops: Call, llmdet: dict[str, Any], names: list[str], message: str
) -> None:
    classes = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    vocabulary = {"name": "odd", "languages": ["en"], "templates": {"en": "plain"}, "classes": classes}
    recipe = write_recipe(segmenter=None, detector=llmdet, vocabulary=vocabulary)
    code, out, err = ovsops("plan", recipe)
    assert code in (2, 4)
    assert re.search(message, out + err)


def test_names_that_collide_are_one_phrase_and_keep_their_ids(
    write_recipe: Write, ovsops: Call, tmp_path: Path, llmdet: dict[str, Any]
) -> None:
    names = ["bow (weapon)", "bow_(decorative_ribbons)", "st. bernard"]
    classes = [{"id": 10 * i, "name": name} for i, name in enumerate(names, 1)]
    vocabulary = {"name": "bows", "languages": ["en"], "templates": {"en": "plain"}, "classes": classes}
    recipe = write_recipe(segmenter=None, detector=llmdet, vocabulary=vocabulary)
    code, out, err = ovsops("run", recipe, "--engine", "inline")
    assert code == 0, err
    assert "cannot tell apart 'bow (weapon)', 'bow_(decorative_ribbons)'" in out + err
    assert set(pd.read_parquet(tmp_path / "out" / "instances").category_id) <= {10, 30}


@pytest.fixture
def florence2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("florence2")
    write_untrained_florence2(folder)
    return {
        "kind": "florence2",
        "florence2": {"source": str(folder)},
        "reading": {"image_side": TINY_FLORENCE2_SIDE, "max_new_tokens": 8},
    }


def test_a_captioner_describes_boxes_and_says_that_it_did(
    labelled: Any, llmdet: dict[str, Any], florence2: dict[str, Any], tmp_path: Path
) -> None:
    _, instances = labelled(segmenter=None, detector=llmdet, captioner={**florence2, "max_regions": 2})
    said = instances[instances.caption_source.notna()]
    assert set(said.caption_source) == {"florence2"}
    assert 0 < len(said) <= 2 * instances.image_uid.nunique() < len(instances)
    assert (said.caption_short == said.caption_long).all()
    assert said.caption_short.str.len().gt(0).all()
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["checkpoints"]["florence2"].startswith("local sha256:")
    assert "source" not in manifest["recipe"]["captioner"]["florence2"]


def test_the_expert_checks_a_captioners_words_and_its_own_stand_in(
    labelled: Any, llmdet: dict[str, Any], expert: dict[str, Any], florence2: dict[str, Any]
) -> None:
    own = {**expert, "captions": {}}
    nothing = {**florence2, "grounding": {"min_cosine": 1.0}}
    _, instances = labelled(segmenter=None, detector=llmdet, expert=own, captioner=nothing)
    assert set(instances.caption_source) <= {"detector", "fgclip2"}
    assert instances.caption_short.str.contains("red thing").all()


def test_a_captioner_without_boxes_is_refused(
    write_recipe: Write, ovsops: Call, florence2: dict[str, Any]
) -> None:
    code, _, err = ovsops("plan", write_recipe(captioner=florence2))
    assert code == 2
    assert "no detector whose boxes it could describe" in err
