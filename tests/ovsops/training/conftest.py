"""One small world for all tests of a session: its towers run once."""

import pytest

from tests.ovsops.training.mapper_world import World, small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return small_world(tmp_path_factory.mktemp("small_world"))
