"""A tiny segmenter of the real architectures, and random features for the maths."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ovsops.backbones.untrained import write_untrained_checkpoints
from ovsops.segmenters.config import SegmenterConfig, fused_config_from_folder
from ovsops.segmenters.fused import ViewFeatures
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.text.vocabulary import ClassSpec, Vocabulary

TINY = {
    "grid": 8,
    "window": 112,
    "stride": 56,
    "short_side": 112,
    "max_long_side": 512,
    "threshold": 0.0,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untrained")
    write_untrained_checkpoints(root)
    return root


@pytest.fixture
def make_config(folder: Path) -> Callable[..., SegmenterConfig]:
    def make(**fields: Any) -> SegmenterConfig:
        return fused_config_from_folder(folder, **(TINY | fields))

    return make


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return Vocabulary(
        name="tiny",
        languages=("en", "zh"),
        templates={"en": "plain", "zh": "plain"},
        classes=(
            ClassSpec(id=3, name="cat", prompts={"en": ("cat", "kitten"), "zh": ("猫",)}),
            ClassSpec(id=7, name="sky", prompts={"zh": ("天空",)}, kind="stuff"),
            ClassSpec(id=9, name="car", prompts={"zh": ("汽车",)}, negative_prompts={"en": ("toy car",)}),
        ),
        background={"en": ("wall",)},
    )


def random_text(
    *, classes: int = 4, background: int = 0, owners: tuple[int, ...] = (), seed: int = 0
) -> ClassTextFeatures:
    """Unit rows of random direction; the first rows do not depend on how many follow."""
    generator = torch.Generator().manual_seed(seed)
    rows = classes + background + len(owners)
    vectors = [
        torch.nn.functional.normalize(torch.randn(1, 48 + 32, generator=generator)) for _ in range(rows)
    ]
    both = torch.cat(vectors)
    return ClassTextFeatures(
        class_ids=tuple(range(1, classes + 1)),
        num_background=background,
        negative_owner=torch.tensor(owners, dtype=torch.int64),
        mapped=torch.nn.functional.normalize(both[:, :48], dim=1),
        aligned=torch.nn.functional.normalize(both[:, 48:], dim=1),
        identity="random",
    )


def random_views(*, num_views: int = 1, patches: int = 64, seed: int = 1) -> ViewFeatures:
    """Features of one image."""
    generator = torch.Generator().manual_seed(seed)
    return ViewFeatures(
        patch_tokens=torch.randn(num_views, patches, 48, generator=generator),
        cls_logits=torch.randn(num_views, 3, patches, generator=generator) * 2,
        aligned=torch.randn(num_views, patches, 32, generator=generator),
    )
