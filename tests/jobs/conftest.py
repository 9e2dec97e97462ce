"""A small run with untrained checkpoints, made once, and the command in this process."""

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import run_command
from ovsops.backbones.untrained import write_untrained_checkpoints
from tests.tiny.labelled_scenes import label_scenes
from tests.tiny.shards import write_shards


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The command sets log handlers and a signal handler, as the only command of its process may."""
    monkeypatch.setenv("OVSOPS_CACHE", str(tmp_path / "cache"))
    root = logging.getLogger()
    handlers, level, sigterm = root.handlers, root.level, signal.getsignal(signal.SIGTERM)
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    signal.signal(signal.SIGTERM, sigterm)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_untrained_checkpoints(folder)
    return folder


VOCABULARY = {
    "name": "tiny",
    "languages": ["en"],
    "templates": {"en": ["a {}."]},
    "classes": [{"id": 1, "name": "red thing"}, {"id": 7, "name": "wall", "kind": "stuff"}],
}


def plain_recipe(folder: Path, checkpoints: Path, **changes: Any) -> dict[str, Any]:
    """A recipe over `folder/in` that writes to `folder/out`, quick on a CPU."""
    recipe = {
        "job": "label",
        "input": {"shards": str(folder / "in" / "*.tar")},
        "output": str(folder / "out"),
        "vocabulary": VOCABULARY,
        "segmenter": {
            "siglip": {"source": str(checkpoints / "siglip2")},
            "dino": {"source": str(checkpoints / "dinov2")},
            "mapper": {"source": str(checkpoints / "mapper")},
            "threshold": 0.3,
            "grid": 4,
            "views": "squash",
            "short_side": 32,
            "window": 32,
            "stride": 32,
        },
        "batch": {"max_images": 4, "decode_workers": 1},
        "limits": {"max_failed_share": 0.5},
    }
    return recipe | changes


@pytest.fixture
def write_recipe(tmp_path: Path, checkpoints: Path) -> Callable[..., Path]:
    """Two shards of three images, and a recipe file over them; keyword arguments replace top fields."""

    def write(*, broken_every: int = 0, **changes: Any) -> Path:
        shutil.rmtree(tmp_path / "in", ignore_errors=True)
        write_shards(tmp_path / "in", num_shards=2, images_per_shard=3, broken_every=broken_every)
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(plain_recipe(tmp_path, checkpoints, **changes)))
        return path

    return write


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shards` of drawn scenes and the `labels` of a run that knew everything, but for some colours."""
    folder = tmp_path_factory.mktemp("scenes")
    label_scenes(folder)
    return folder


@pytest.fixture
def ovsops(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run_command([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return call
