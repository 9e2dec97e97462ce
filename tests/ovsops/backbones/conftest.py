"""Tiny checkpoints, written once a session."""

from pathlib import Path

import jaxtyping
import pytest

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from tests.tiny import checkpoints as tiny


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def siglip_checkpoint(siglip_folder: Path) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(siglip_folder)))


@pytest.fixture(scope="session")
def naflex_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(tiny.write_naflex(tmp_path_factory.mktemp("naflex")))))


@pytest.fixture(scope="session")
def dinov2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(tiny.write_dinov2(tmp_path_factory.mktemp("dinov2")))))


@pytest.fixture(scope="session")
def clip_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ResolvedCheckpoint:
    return resolve(Checkpoint(source=str(tiny.write_clip(tmp_path_factory.mktemp("clip")))))


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: annotations are not checked, so that what is wrong reaches our own checks."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
