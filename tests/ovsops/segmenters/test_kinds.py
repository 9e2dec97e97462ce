"""What every kind does alike, by its config alone."""

import logging
from pathlib import Path

import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.untrained import write_untrained_checkpoints
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.segmenters.cass_config import CassConfig
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.config import fused_config_from_folder
from ovsops.segmenters.kinds import AnySegmenterConfig, compute_text
from ovsops.segmenters.sam3_config import Sam3SegmenterConfig
from ovsops.segmenters.scclip_config import ScClipConfig
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.tiny import checkpoints as tiny
from tests.tiny.sam3 import SMALLEST

LONG = "a thing whose name goes on and on, longer than any text tower reads, so that its end never counts"
VOCABULARY = Vocabulary(
    name="long",
    languages=("en",),
    templates={"en": ("a {}.",)},
    classes=(ClassSpec(id=1, name="cat"), ClassSpec(id=2, name=LONG)),
)


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AnySegmenterConfig]:
    root: Path = tmp_path_factory.mktemp("kinds")
    write_untrained_checkpoints(root)
    clip = Checkpoint(source=str(tiny.write_clip(root / "clip")))
    vfm = Checkpoint(source=str(tiny.write_vit(root / "vit", width=32, heads=2)))
    sam3 = Checkpoint(source=str(write_untrained_sam3(root / "sam3", **SMALLEST)))
    return {
        "fused": fused_config_from_folder(root),
        "clip": DenseClipConfig(clip=clip),
        "scclip": ScClipConfig(clip=clip),
        "cass": CassConfig(clip=clip, vfm=vfm),
        "sam3": Sam3SegmenterConfig(sam3=sam3),
    }


@pytest.mark.parametrize("kind", ["fused", "clip", "scclip", "cass", "sam3"])
def test_prompts_that_are_cut_are_named_once_whether_cached_or_not(
    configs: dict[str, AnySegmenterConfig], kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in ("computed", "from the cache"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            compute_text(configs[kind], VOCABULARY, ("en",), cache_dir=tmp_path)
        [record] = [r for r in caplog.records if "are cut" in r.getMessage()]
        assert "1 of 2 prompts are longer than" in record.getMessage()
        assert LONG in record.getMessage()
