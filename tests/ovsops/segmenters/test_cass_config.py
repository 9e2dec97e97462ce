"""Fields of CASS's config, and the published values by data set."""

from pathlib import Path
from typing import Any

import pytest

import ovsops.text
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.segmenters.cass_config import CASS_SETTINGS, CassConfig, cass_settings
from ovsops.segmenters.views import ViewSettings, plan_views

DATA = Path(ovsops.text.__file__).parent / "data"


def config(**fields: Any) -> CassConfig:
    return CassConfig(clip=Checkpoint(source="clip"), vfm=Checkpoint(source="dino"), **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prior_weight": 1.5}, "segmenter.prior_weight is 1.5; it must lie in [0.0, 1.0]"),
        ({"text_weight": float("nan")}, "segmenter.text_weight is nan"),
        ({"prob_threshold": -0.1}, "segmenter.prob_threshold is -0.1"),
        ({"energy": 0.0}, "segmenter.energy is 0.0; it must lie in (0, 1]"),
        ({"eigenscale": -1.0}, "segmenter.eigenscale is -1.0; it must be over 0"),
        ({"locality_std": 0.0}, "segmenter.locality_std is 0.0"),
        ({"logit_scale": float("inf")}, "segmenter.logit_scale is inf"),
        ({"fusion_factor": -1.0}, "segmenter.fusion_factor is -1.0; it must be 0 or more"),
        ({"cluster_threshold": float("nan")}, "segmenter.cluster_threshold is nan"),
        ({"rank": 0}, "segmenter.rank is 0; it must be 1 or more"),
        ({"num_eigenvalues": 0}, "segmenter.num_eigenvalues is 0"),
        ({"vfm_side": 0}, "segmenter.vfm_side is 0"),
        ({"stride": 300}, "segmenter.stride 300 is over window 224"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(**fields)
    assert message in str(refused.value)


def test_the_modes_differ_where_the_published_code_slips() -> None:
    corrected, upstream = config().distillation, config(mode="upstream").distillation
    assert (corrected.swapped, corrected.energy, corrected.tie_break) == (False, 0.95, 1e-4)
    assert (upstream.swapped, upstream.energy, upstream.tie_break) == (True, None, 0.0)
    assert upstream.rank == 10


def test_published_values_of_every_data_set_make_a_config() -> None:
    for name in CASS_SETTINGS:
        assert (DATA / f"{name}.yaml").is_file()
        assert isinstance(config(**cass_settings(name)), ViewSettings)
    city = config(**cass_settings("cityscapes_19"))
    assert (city.short_side, city.prior_from, city.eigenscale, city.cluster_threshold) == (
        560,
        "window",
        None,
        0.14,
    )
    stuff = config(**cass_settings("coco_stuff_171"))
    assert (stuff.prior_weight, stuff.text_weight, stuff.cluster_threshold) == (0.2, 0.02, 0.02)


def test_voc_21_sees_the_whole_image_as_one_window() -> None:
    whole = config(**cass_settings("voc_21"))
    for size in ((375, 500), (100, 5000)):
        plan = plan_views(size, whole)
        assert [w.size_hw for w in plan.windows] == [plan.canvas_hw]


def test_an_unknown_data_set_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'voc21'; there are some for voc_21, context_60"):
        cass_settings("voc21")
