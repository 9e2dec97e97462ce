"""What the stages' table counts: which ablations it runs, and patches of nouns by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.mapper_stages import UNTRAINED, Found, ablations, noun_patches, table
from ovsops.mapper.model import MAPPER_FILE, TextToDino, save_mapper
from ovsops.miniature.attributes import LANGUAGES
from ovsops.training.mapper_features import GridFeatures, MapperFeatures, TextTable
from ovsops.training.quality import share_right
from ovsops.training.scenes import NUM_CLASSES
from ovsops.training.stages import PARTS, MapperStagesConfig


def test_a_stage_without_weight_is_not_ablated() -> None:
    config = MapperStagesConfig(stage_steps=(1, 1, 1, 1), groups_weight=0.1)
    assert [ablations(parts, config) for parts in PARTS.values()] == [
        [],
        [("sigmoid",)],
        [("distillation", "masked"), ("distillation",), ("masked",)],
        [("grids",)],
        [("groups",)],
    ]


def test_patches_of_nouns_by_hand(tmp_path: Path) -> None:
    """One scene of four patches: ball seen as ball, ball seen as star, star seen as star, grass seen as ball."""
    same = TextToDino(NUM_CLASSES, NUM_CLASSES, num_hidden=0)
    with torch.no_grad():
        weight, bias = same.parameters()
        weight.copy_(torch.eye(NUM_CLASSES))
        bias.zero_()
    save_mapper(same, tmp_path / MAPPER_FILE)
    names = torch.eye(NUM_CLASSES)
    ball, star, grass = 0, 2, 12
    grid = GridFeatures(
        patch_tokens=3 * names[[ball, star, star, ball]][None].half(),
        cls_logits=torch.zeros(1, 1, 4).half(),
        aligned=None,
        region_shares=torch.zeros(1, 0, 4).half(),
        class_shares=names[[ball, ball, star, grass]][None].half(),
    )
    texts = TextTable(
        captions={},
        names=torch.stack([names, names.roll(1, dims=0)]),
        phrases=torch.zeros(0, NUM_CLASSES),
        phrase_codes=torch.zeros(0, 5, dtype=torch.int64),
        phrase_of=torch.zeros(2, 1, 0, 16, dtype=torch.int64),
    )
    codes = torch.zeros(1, 0, 5, dtype=torch.int64)
    features = MapperFeatures(grids={2: grid}, texts=texts, region_codes=codes)
    assert noun_patches(tmp_path, features, LANGUAGES[0], 2).tolist() == [[2, 3]]
    assert noun_patches(tmp_path, features, LANGUAGES[1], 2).tolist() == [[0, 3]]  # names moved by one
    assert share_right(np.array([[2, 3], [0, 3]])).tolist() == [pytest.approx(2 / 3), 0.0]


def test_a_row_compares_a_stage_with_the_same_stage_without() -> None:
    def found(right: int) -> Found:
        areas = np.zeros((2, 3, 21), np.int64)
        areas[:, :, 1:] = np.array([right, 10, 10])[:, None]
        counts = np.full((2, 2), (right, 10), np.int64)
        return Found(
            areas=areas, nouns=dict.fromkeys(("nouns", "nouns zh", "nouns on 24 x 24"), counts), cpu_s=1.0
        )

    run = {
        UNTRAINED: found(0),
        ("mapping", ()): found(5),
        ("alignment", ("sigmoid",)): found(10),
        ("alignment", ()): found(5),
    }
    first, second = table([run, run])
    assert (first["stage"], first["without"], first["mIoU without"]) == ("mapping", "training", 0.0)
    assert first["mIoU with"] == pytest.approx(5 / 15)
    assert (second["stage"], second["without"]) == ("alignment", "sigmoid")
    assert second["difference"]["value"] == pytest.approx(5 / 15 - 1)
    assert second["difference, nouns"]["value"] == pytest.approx(-0.5)
    assert second["by seed"] == "-0.667, -0.667"
