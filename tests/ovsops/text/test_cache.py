"""The cache: same inputs, same arrays, computed once; damage is seen."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ovsops.text.cache import TextFeaturesCache, text_features_key
from ovsops.text.prompts import PromptTable, class_prompts
from ovsops.text.vocabulary import ClassSpec, Vocabulary


def table(*names: str, template: str = "plain") -> PromptTable:
    classes = tuple(ClassSpec(id=i, name=name) for i, name in enumerate(names, 1))
    return class_prompts(Vocabulary(name="v", languages=("en",), classes=classes, templates={"en": template}))


class Encoder:
    """Counts how often it is asked."""

    calls = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"embeddings": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array([1, 2])}


@pytest.fixture
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture
def cache(tmp_path: Path) -> TextFeaturesCache:
    return TextFeaturesCache(tmp_path / "features")


def the_file(cache: TextFeaturesCache) -> Path:
    (path,) = cache.folder.iterdir()
    return path


def test_the_second_asking_reads_the_same_bits(cache: TextFeaturesCache, encoder: Encoder) -> None:
    first = cache.get_or_compute(table("cat"), "siglip2@1", encoder)
    second = TextFeaturesCache(cache.folder).get_or_compute(table("cat"), "siglip2@1", encoder)
    assert encoder.calls == 1
    for name in ("embeddings", "ids"):
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    ("prompts", "checkpoint", "options"),
    [
        (table("cat", "fox"), "m@1", {"length": 64}),
        (table("cat", "dog", template="talk2dino_7"), "m@1", {"length": 64}),
        (table("cat", "dog"), "m@2", {"length": 64}),
        (table("cat", "dog"), "m@1", {"length": 77}),
        (table("dog", "cat"), "m@1", {"length": 64}),
    ],
)
def test_everything_that_matters_is_in_the_key(
    prompts: PromptTable, checkpoint: str, options: dict[str, int]
) -> None:
    base = text_features_key(table("cat", "dog"), "m@1", {"length": 64})
    assert base == text_features_key(table("cat", "dog"), "m@1", {"length": 64})
    assert text_features_key(prompts, checkpoint, options) != base


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_key(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(path.stem.encode(), b"0" * 64))


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, other_key])
def test_a_damaged_entry_is_computed_again_with_a_warning(
    cache: TextFeaturesCache,
    encoder: Encoder,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    good = cache.get_or_compute(table("cat"), "m", encoder)
    damage(the_file(cache))
    with caplog.at_level(logging.WARNING):
        again = cache.get_or_compute(table("cat"), "m", encoder)
    assert "computing them again" in caplog.text
    assert encoder.calls == 2
    np.testing.assert_array_equal(good["embeddings"], again["embeddings"])
    caplog.clear()
    cache.get_or_compute(table("cat"), "m", encoder)
    assert (encoder.calls, caplog.text) == (2, "")


def test_no_temporary_file_stays(cache: TextFeaturesCache, encoder: Encoder) -> None:
    cache.get_or_compute(table("cat"), "m", encoder)
    assert the_file(cache).suffix == ".safetensors"


def test_a_folder_that_cannot_be_written_costs_time_only(
    tmp_path: Path, encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    arrays = TextFeaturesCache(tmp_path / "file" / "features").get_or_compute(table("cat"), "m", encoder)
    assert arrays["embeddings"].shape == (2, 3)
    assert "going on without" in caplog.text
