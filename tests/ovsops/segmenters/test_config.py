"""A config is light: the driver that reads recipes loads no transformers and no weights."""

import pickle
import subprocess
import sys
from pathlib import Path

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.segmenters.config import CleaningConfig, SegmenterConfig, fused_config_from_folder


def test_reading_a_config_loads_no_transformers() -> None:
    code = "import sys; import ovsops.segmenters.config; sys.exit('transformers' in sys.modules)"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120, check=False).returncode == 0


def test_a_config_travels_and_compares() -> None:
    config = fused_config_from_folder("/models", cleaning=CleaningConfig(weight=0.5), alpha=0.25)
    assert pickle.loads(pickle.dumps(config)) == config
    assert len(pickle.dumps(config)) < 2000
    assert config.siglip == Checkpoint(source="/models/siglip2")
    assert config != fused_config_from_folder("/models")


def test_talk2dino_as_published_is_a_config() -> None:
    """Its thresholds, cleaning and windows are the defaults; only the towers and the mode are said."""
    here = Checkpoint(source="/models/x")
    published = SegmenterConfig(
        mode="upstream", dino=here, mapper=here, clip=here, alpha=1.0, cleaning=CleaningConfig()
    )
    assert (published.threshold, published.window, published.stride, published.short_side) == (
        0.55,
        448,
        224,
        448,
    )
    assert published.cleaning is not None
    assert published.cleaning.weight == 1 / 1.2
    assert not published.uses_siglip_vision
