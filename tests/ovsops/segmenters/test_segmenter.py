"""The whole segmenter on tiny checkpoints of the real architectures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import CheckpointError, ConfigError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.refine import PamrConfig
from ovsops.segmenters.build import build_segmenter, compute_text_features
from ovsops.segmenters.config import CleaningConfig, ProxyAttentionConfig, SegmenterConfig
from ovsops.segmenters.kinds import checkpoint_identities
from ovsops.segmenters.segmenter import groups_of_views
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.tiny import checkpoints as tiny

MakeConfig = Callable[..., SegmenterConfig]

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "talk2dino": {"alpha": 1.0, "siglip": None},
    "clip text for the mapper, siglip for itself": {},
    "squash": {"views": "squash"},
    "all": {
        "cleaning": CleaningConfig(),
        "proxy_attention": ProxyAttentionConfig(),
        "prior_weight": 0.3,
        "refinement": PamrConfig(num_iterations=2, dilations=(1, 2)),
    },
    "upstream": {
        "mode": "upstream",
        "cleaning": CleaningConfig(),
        "refinement": PamrConfig(num_iterations=2, dilations=(1, 2)),
    },
}


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Blocks of colour with noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (4, 4, 3))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    noisy = blocks[rows][:, columns] + rng.integers(-20, 20, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def segment(config: SegmenterConfig, vocabulary: Vocabulary, images: list[np.ndarray]) -> list[ClassMap]:
    text = compute_text_features(config, vocabulary, ("en",))
    return build_segmenter(config, vocabulary, text).segment(images)


def assert_same_map(one: ClassMap, other: ClassMap) -> None:
    np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=2e-5)
    assert (one.labels == other.labels).mean() > 0.995  # a pixel at a tie may fall either way


@pytest.fixture
def fields(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    chosen = dict(VARIANTS[request.param])
    if request.param.startswith(("talk2dino", "clip")):
        root = tmp_path_factory.mktemp("talk2dino")
        chosen["clip"] = Checkpoint(source=str(tiny.write_clip(root / "clip")))
        mapper = tiny.write_mapper(root / "mapper", text_width=tiny.CLIP_WIDTH)
        chosen["mapper"] = Checkpoint(source=str(mapper))
    return chosen


@pytest.mark.parametrize("fields", VARIANTS, indirect=True)
def test_a_batch_gives_what_its_images_give_alone(
    make_config: MakeConfig, vocabulary: Vocabulary, fields: dict[str, Any]
) -> None:
    images = [picture(80, 200), picture(113, 97, seed=1), picture(30, 40, seed=2)]
    config = make_config(**fields, views_per_batch=3)
    text = compute_text_features(config, vocabulary, ("en",))
    segmenter = build_segmenter(config, vocabulary, text)
    together = segmenter.segment(images)
    for image, found in zip(images, together, strict=True):
        assert found.labels.dtype == np.uint16
        assert found.labels.shape == found.scores.shape == image.shape[:2]
        assert found.labels.max() <= 3
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert_same_map(found, segmenter.segment([image])[0])
    assert len({int(m.labels.max()) for m in together} | {0}) > 1
    twice = segmenter.segment([images[0], images[0]])
    assert_same_map(twice[0], twice[1])
    assert_same_map(twice[0], together[0])


@pytest.mark.parametrize(
    ("num_views", "expected"),
    [
        ([], []),
        ([9], [(0, 1)]),
        ([2, 2, 1], [(0, 2), (2, 3)]),
        ([9, 1, 1], [(0, 1), (1, 3)]),
        ([1, 9, 1], [(0, 1), (1, 2), (2, 3)]),
        ([4, 4], [(0, 1), (1, 2)]),
    ],
)
def test_images_are_grouped_by_their_views(num_views: list[int], expected: list[tuple[int, int]]) -> None:
    assert list(groups_of_views(num_views, limit=4)) == expected


def test_no_images_no_maps(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    assert segment(make_config(), vocabulary, []) == []


@pytest.mark.parametrize("fields", ["default", "squash", "all", "upstream"], indirect=True)
@pytest.mark.parametrize("size", [(1, 1), (13, 13), (1, 300), (2000, 10)])
def test_sizes_that_break_others(
    make_config: MakeConfig, vocabulary: Vocabulary, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    [found] = segment(make_config(**fields), vocabulary, [picture(*size)])
    assert found.labels.shape == size
    assert np.isfinite(found.scores).all()


def test_a_panorama_of_20000_by_100(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    [found] = segment(make_config(class_chunk=1), vocabulary, [picture(100, 20_000)])
    assert found.labels.shape == (100, 20_000)
    assert len(np.unique(found.labels)) > 1


@pytest.mark.parametrize("fields", ["default", "all", "upstream"], indirect=True)
def test_a_constant_image_is_finite(
    make_config: MakeConfig, vocabulary: Vocabulary, fields: dict[str, Any]
) -> None:
    [found] = segment(make_config(**fields), vocabulary, [np.full((50, 60, 3), 128, np.uint8)])
    assert np.isfinite(found.scores).all()


def test_a_view_and_a_grayscale_stride_are_as_good_as_a_copy(
    make_config: MakeConfig, vocabulary: Vocabulary
) -> None:
    big = picture(100, 120)
    view = big[::2, ::-1]
    a, b = segment(make_config(), vocabulary, [view, view.copy()])
    assert_same_map(a, b)


def test_one_class_and_no_background(make_config: MakeConfig) -> None:
    single = Vocabulary(name="one", languages=("en",), classes=(ClassSpec(id=5, name="cat"),))
    [found] = segment(make_config(cleaning=CleaningConfig()), single, [picture(40, 40)])
    assert (found.labels == 1).all()
    [none] = segment(make_config(threshold=1.0), single, [picture(40, 40)])
    assert (none.labels == 0).all()
    assert (none.scores > 0).all()  # the best class's score is kept where background won


def test_classes_in_another_order_give_the_same_picture(
    make_config: MakeConfig, vocabulary: Vocabulary
) -> None:
    turned = Vocabulary.from_mapping(
        vocabulary.to_mapping() | {"classes": vocabulary.to_mapping()["classes"][::-1]}
    )
    image = picture(80, 90)
    for fields in (VARIANTS["all"], VARIANTS["upstream"]):
        [a] = segment(make_config(**fields), vocabulary, [image])
        [b] = segment(make_config(**fields), turned, [image])
        renamed = np.where(b.labels == 0, 0, 4 - b.labels)
        assert (a.labels == renamed).mean() > 0.995
        np.testing.assert_allclose(a.scores, b.scores, atol=2e-5)


def test_languages_change_vectors_not_ids(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    config = make_config()
    by_language = [compute_text_features(config, vocabulary, x) for x in (("en",), ("zh",), ("en", "zh"))]
    assert {t.class_ids for t in by_language} == {(3, 7, 9)}
    assert by_language[0].num_background == 1
    assert by_language[0].negative_owner.tolist() == [2]
    assert not torch.allclose(by_language[0].mapped[:3], by_language[1].mapped[:3], atol=1e-2)
    assert len({t.identity for t in by_language}) == 3


def test_text_features_are_bytes_and_back(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    text = compute_text_features(make_config(), vocabulary, ("en",))
    data = text.to_bytes()
    back = ClassTextFeatures.from_bytes(data)
    assert back.to_bytes() == data
    assert (back.class_ids, back.num_background, back.identity) == (
        text.class_ids,
        text.num_background,
        text.identity,
    )
    assert torch.equal(back.mapped, text.mapped)
    with pytest.raises(CheckpointError, match="not bytes of"):
        ClassTextFeatures.from_bytes(data[:50])


def test_text_features_are_computed_once(
    make_config: MakeConfig, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    first = compute_text_features(config, vocabulary, ("en",), cache_dir=tmp_path)
    monkeypatch.setattr(
        "ovsops.segmenters.build.SiglipText", lambda *a, **k: pytest.fail("the tower was loaded again")
    )
    again = compute_text_features(config, vocabulary, ("en",), cache_dir=tmp_path)
    assert again.to_bytes() == first.to_bytes()


def test_low_precision_stays_close(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    config = make_config(cleaning=CleaningConfig())
    text = compute_text_features(config, vocabulary, ("en",))
    image = picture(60, 90)
    [exact], [low] = (
        build_segmenter(config, vocabulary, text, dtype=dtype).segment([image])
        for dtype in ("float32", "bfloat16")
    )
    assert low.scores.dtype == np.float32
    np.testing.assert_allclose(low.scores, exact.scores, atol=0.02)
    with pytest.raises(ConfigError, match="dtype 'int8' is not one of"):
        build_segmenter(config, vocabulary, text, dtype="int8")


def test_without_siglip_vision_there_are_no_siglip_rows(
    make_config: MakeConfig, vocabulary: Vocabulary
) -> None:
    text = compute_text_features(make_config(alpha=1.0), vocabulary, ("en",))
    assert text.aligned is None
    with pytest.raises(ConfigError, match="no SigLIP vectors"):
        build_segmenter(make_config(alpha=0.5), vocabulary, text)


def test_features_of_another_vocabulary_are_refused(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    text = compute_text_features(make_config(), vocabulary, ("en",))
    other = Vocabulary(name="other", languages=("en",), classes=(ClassSpec(id=1, name="cat"),))
    with pytest.raises(ConfigError, match="not those of the text features"):
        build_segmenter(make_config(), other, text)


def test_a_mapper_for_another_text_tower_is_refused(
    make_config: MakeConfig, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    mapper = Checkpoint(source=str(tiny.write_mapper(tmp_path, text_width=512)))
    with pytest.raises(CheckpointError, match="text tower has 32 channels, mapper has 512"):
        compute_text_features(make_config(mapper=mapper), vocabulary, ("en",))


def test_naflex_takes_the_place_of_the_fixed_model(
    make_config: MakeConfig, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    naflex = Checkpoint(source=str(tiny.write_naflex(tmp_path)))
    [found] = segment(make_config(siglip=naflex), vocabulary, [picture(60, 100)])
    assert np.isfinite(found.scores).all()


def test_identities_name_every_checkpoint(make_config: MakeConfig) -> None:
    identities = checkpoint_identities(make_config())
    assert set(identities) == {"siglip", "dino", "mapper"}
    assert all(identity.startswith("local sha256:") for identity in identities.values())
    assert "/" not in "".join(identities.values())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"stride": 200}, "pixels between windows"),
        ({"siglip": None}, "a `siglip` checkpoint is needed"),
        ({"siglip": None, "alpha": 1.0}, "no text tower"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"grid": 0}, "grid is 0"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"prior_center": float("inf")}, "must be finite"),
    ],
)
def test_nonsense_is_refused(make_config: MakeConfig, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(**fields)


def test_a_calibration_changes_scores_and_no_label(make_config: MakeConfig, vocabulary: Vocabulary) -> None:
    images = [picture(40, 56), picture(64, 48, seed=1)]
    plain = segment(make_config(threshold=0.0), vocabulary, images)
    fitted = segment(make_config(threshold=0.0, temperature=0.5, bias=-2.0), vocabulary, images)
    for one, other in zip(plain, fitted, strict=True):
        assert (one.labels == other.labels).mean() > 0.999  # a tie may fall either way
        assert (one.scores - other.scores).min() > 0.1
        assert 0 <= other.scores.min() <= other.scores.max() <= 1
