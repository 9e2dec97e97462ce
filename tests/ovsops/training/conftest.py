"""One small world for all tests of a session: its towers run once."""

import pytest

from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.scenes import SceneBank, bank_of
from tests.ovsops.training.mapper_world import World, small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("small_world"))


@pytest.fixture(scope="session")
def bank() -> SceneBank:
    """Eight scenes as the miniature models see them."""
    return bank_of(draw_scene(seed) for seed in seeds_of("train")[:8])
