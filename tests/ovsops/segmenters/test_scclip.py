"""SC-CLIP on tiny checkpoints: any grid, any batch, nothing to repair, each mechanism by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.vlm import load_vision_tower
from ovsops.errors import CheckpointError, ConfigError
from ovsops.segmenters.query_segmenter import QuerySegmenter
from ovsops.segmenters.scclip import (
    build_scclip,
    calibrated_features,
    compute_scclip_text,
    find_outlier_tokens,
)
from ovsops.segmenters.scclip_config import CalibrationBlocks, ScClipConfig, scclip_settings
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.ovsops.segmenters.test_segmenter import assert_same_map, picture
from tests.tiny import checkpoints as tiny

SMALL = {"window": 96, "stride": 48, "short_side": 112, "max_long_side": 400}
SWITCHES: dict[str, dict[str, Any]] = {
    "repair": {"repair": False},
    "first aggregation": {"first_aggregation": False},
    "similarity attention": {"similarity_attention": False},
    "CLS residual": {"cls_residual": 0.0},
    "multi-level": {"multi_level": False},
    "second aggregation": {"second_aggregation": False},
}
MakeConfig = Callable[..., ScClipConfig]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(source=str(tiny.write_clip(tmp_path_factory.mktemp("clip"), num_hidden_layers=5)))


@pytest.fixture
def make(clip: Checkpoint) -> MakeConfig:
    def config(**fields: Any) -> ScClipConfig:
        return ScClipConfig(**({"clip": clip} | SMALL | fields))

    return config


def build(config: ScClipConfig, vocabulary: Vocabulary) -> QuerySegmenter:
    return build_scclip(config, vocabulary, compute_scclip_text(config, vocabulary, ("en",)))


def features(config: ScClipConfig, pixels: torch.Tensor) -> torch.Tensor:
    tower = load_vision_tower(resolve(config.clip), device="cpu", dtype=torch.float32)
    hidden = tower.encode(pixels, position=config.position, num_blocks=tower.num_layers - 1)
    return calibrated_features(tower, hidden, config)


def random_pixels(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


@pytest.mark.parametrize("fields", [{}, {"mode": "upstream"}, {"views": "squash"}], ids=str)
def test_a_batch_gives_what_its_images_give_alone(
    make: MakeConfig, vocabulary: Vocabulary, fields: dict[str, Any]
) -> None:
    images = [picture(80, 200), picture(113, 97, seed=1), picture(30, 40, seed=2)]
    segmenter = build(make(**fields, views_per_batch=3), vocabulary)
    together = segmenter.segment(images)
    for image, found in zip(images, together, strict=True):
        assert found.labels.shape == found.scores.shape == image.shape[:2]
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert_same_map(found, segmenter.segment([image])[0])
    assert segmenter.segment([]) == []


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (6, 1), (3, 5), (7, 4)])
@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_any_grid(make: MakeConfig, grid: tuple[int, int], mode: str) -> None:
    """With fewer patches than neighbours, too: there are 35 at most here, of 30."""
    found = features(make(mode=mode), random_pixels(2, 16 * grid[0], 16 * grid[1]))
    assert found.shape == (2, *grid, tiny.CLIP_WIDTH)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, *grid))


@pytest.mark.parametrize("mode", ["upstream", "corrected"])
def test_a_constant_image_has_no_outliers_and_finite_features(
    make: MakeConfig, vocabulary: Vocabulary, mode: str
) -> None:
    config = make(mode=mode)
    [found] = build(config, vocabulary).segment([np.full((50, 60, 3), 128, np.uint8)])
    assert np.isfinite(found.scores).all()
    identical = torch.ones(2, 36, 8)
    assert not find_outlier_tokens(identical, (6, 6), config).any()


def test_each_mechanism_can_be_switched_off_and_matters(make: MakeConfig) -> None:
    pixels = random_pixels(1, 112, 112)
    whole = features(make(), pixels)
    seen = []
    for name, fields in SWITCHES.items():
        found = features(make(**fields), pixels)
        assert torch.isfinite(found).all()
        seen.append(float((found - whole).abs().max()))
        assert seen[-1] > 1e-5, name
    everything_off = {key: value for fields in SWITCHES.values() for key, value in fields.items()}
    assert torch.isfinite(features(make(**everything_off), pixels)).all()


def test_all_off_is_attention_by_keys_alone(make: MakeConfig) -> None:
    off = {key: value for fields in SWITCHES.values() for key, value in fields.items()}
    config, pixels = make(**off), random_pixels(1, 64, 48)
    tower = load_vision_tower(resolve(config.clip), device="cpu", dtype=torch.float32)
    hidden = tower.encode(pixels, position="native")
    keys, values = tower.last_keys_values(hidden.blocks[-2])
    mixed = (keys @ keys.mT * keys.shape[-1] ** -0.5).softmax(-1) @ values
    expected = tower.project(tower.attend_out(mixed.transpose(1, 2).flatten(2)))
    found = features(config, pixels).flatten(1, 2)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), atol=1e-5, rtol=1e-4)


def test_outliers_of_grids_that_are_not_square_are_where_they_are(make: MakeConfig) -> None:
    """A token of its own at row 1, column 5 of 4 x 7: place 12; the published code looks at 12 // 4, 12 % 4."""
    tokens = torch.randn(1, 28, 8, generator=torch.Generator().manual_seed(0)) * 0.01
    tokens[0, 12] += 5
    few = {"contamination": 0.02, "num_neighbours": 5}
    found = find_outlier_tokens(tokens, (4, 7), make(**few))
    assert found[0].nonzero().tolist() == [[1, 5]]
    slipped = find_outlier_tokens(tokens, (4, 7), make(mode="upstream", **few))
    assert slipped[0].nonzero().tolist() == [[3, 0]]
    square = find_outlier_tokens(tokens[:, :25], (5, 5), make(mode="upstream", **few))
    assert square[0].nonzero().tolist() == [[2, 2]]


def test_blocks_are_the_published_ones_and_follow_the_depth(make: MakeConfig) -> None:
    config = make()
    assert config.blocks_of(num_layers=12) == CalibrationBlocks(9, 4, 4, 10)
    assert config.blocks_of(num_layers=24) == CalibrationBlocks(17, 7, 9, 19)
    assert config.blocks_of(num_layers=6) == CalibrationBlocks(4, 2, 2, 5)
    assert config.blocks_of(num_layers=2) == CalibrationBlocks(1, 1, 1, 1)
    assert make(similar_block=2).blocks_of(num_layers=12).similar == 2
    assert (config.residual_of(num_layers=12), config.residual_of(num_layers=24)) == (0.3, 0.1)
    with pytest.raises(ConfigError, match=r"similar_block is 12; the tower has 12 blocks, of which 1 to 11"):
        make(similar_block=12).blocks_of(num_layers=12)
    with pytest.raises(ConfigError, match="first_level 8 is after last_level 3"):
        make(first_level=8, last_level=3).blocks_of(num_layers=12)
    with pytest.raises(ConfigError, match="needs a tower of 2 blocks or more, this one has 1"):
        config.blocks_of(num_layers=1)


def test_siglip_has_no_cls_token(make: MakeConfig, folder: Path, vocabulary: Vocabulary) -> None:
    siglip = Checkpoint(source=str(folder / "siglip2"))
    with pytest.raises(ConfigError, match=r"no CLS token; set cls_residual: 0, or residual_source: mean"):
        build(make(clip=siglip), vocabulary)
    image = picture(60, 90)
    maps = []
    for fields in ({"cls_residual": 0.0}, {"residual_source": "mean"}):
        [found] = build(make(clip=siglip, **fields), vocabulary).segment([image])
        assert np.isfinite(found.scores).all()
        maps.append(found.scores)
    assert not np.allclose(maps[0], maps[1], atol=1e-4)


def test_low_precision_stays_close(make: MakeConfig, vocabulary: Vocabulary) -> None:
    config = make(prob_threshold=0.2)
    text = compute_scclip_text(config, vocabulary, ("en",))
    exact, low = (
        build_scclip(config, vocabulary, text, dtype=dtype).segment([picture(60, 90)])[0]
        for dtype in ("float32", "bfloat16")
    )
    assert low.scores.dtype == np.float32
    assert float(np.abs(low.scores - exact.scores).mean()) < 0.05


def test_positions_follow_the_mode(make: MakeConfig) -> None:
    """On another grid than the trained one upstream's tenth of a patch moves the features a little."""
    pixels = random_pixels(1, 80, 80)
    one, other = (features(make(mode=mode, lof="published"), pixels) for mode in ("upstream", "corrected"))
    assert 1e-5 < float((one - other).abs().max()) < 1
    assert make(mode="upstream").lof_variant == "simplified_sq"
    assert make().lof_variant == "published"


def test_one_class_is_everywhere(make: MakeConfig) -> None:
    single = Vocabulary(name="one", languages=("en",), classes=(ClassSpec(id=5, name="cat"),))
    [found] = build(make(), single).segment([picture(40, 40)])
    assert (found.labels == 1).all()
    assert (found.scores == 1).all()


def test_features_of_another_vocabulary_or_tower_are_refused(
    make: MakeConfig, folder: Path, vocabulary: Vocabulary
) -> None:
    config = make()
    other = Vocabulary(name="other", languages=("en",), classes=(ClassSpec(id=1, name="cat"),))
    text = compute_scclip_text(config, vocabulary, ("en",))
    with pytest.raises(ConfigError, match="not those of the query features"):
        build_scclip(config, other, text)
    siglip = make(clip=Checkpoint(source=str(folder / "siglip2")))
    with pytest.raises(CheckpointError, match="24 channels, the vision tower's text space has 32"):
        build_scclip(siglip, vocabulary, text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"logit_scale": 0.0}, "segmenter.logit_scale is 0.0; it must be over 0"),
        ({"prob_threshold": 1.5}, r"segmenter.prob_threshold is 1.5; it must lie in \[0.0, 1.0\]"),
        ({"area_threshold": -0.1}, "segmenter.area_threshold is -0.1"),
        ({"stride": 97}, "segmenter.stride 97 is over window 96"),
        ({"class_chunk": 0}, "segmenter.class_chunk is 0; it must be 1 or more"),
        ({"cls_residual": -1.0}, "segmenter.cls_residual is -1.0; it must be 0 or more"),
        ({"num_neighbours": 0}, "segmenter.num_neighbours is 0"),
        ({"contamination": 0.6}, r"segmenter.contamination is 0.6; it must lie in \[0.0, 0.5\]"),
        ({"beta": 1.0}, "segmenter.beta is 1.0; it must be a cosine"),
    ],
)
def test_nonsense_is_refused(make: MakeConfig, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**fields)


def test_scclip_settings_fit_the_config(make: MakeConfig) -> None:
    voc = make(**scclip_settings("voc_21"))
    assert (voc.logit_scale, voc.prob_threshold, voc.area_threshold) == (50.0, 0.15, 0.1)
    assert make(**scclip_settings("coco_object_81", tower="large")).prob_threshold == 0.25
    assert scclip_settings("ade20k_150", tower="large") == {"refinement": None}
    with pytest.raises(ConfigError, match="no published values for 'lvis'; for voc_21, "):
        scclip_settings("lvis")
