"""Plain dense CLIP: its features are the tower's own, and its segmenter keeps images apart."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.backbones.vlm import load_vision_tower
from ovsops.segmenters.clip_config import DenseClipConfig
from ovsops.segmenters.dense_clip import build_clip, compute_clip_text, dense_features
from ovsops.segmenters.query_segmenter import QuerySegmenter
from ovsops.segmenters.views import plan_views
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.ovsops.segmenters.test_segmenter import assert_same_map, picture
from tests.tiny import checkpoints as tiny

SMALL = {"window": 96, "stride": 48, "short_side": 112, "max_long_side": 400}
LONG = "a word that goes on and on and on, longer than any text tower reads, to see it cut at its end"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(source=str(tiny.write_clip(tmp_path_factory.mktemp("clip"))))


def build(config: DenseClipConfig, vocabulary: Vocabulary) -> QuerySegmenter:
    return build_clip(config, vocabulary, compute_clip_text(config, vocabulary, ("en",)))


@torch.inference_mode()
def test_tokens_are_what_the_model_puts_out(clip: Checkpoint) -> None:
    whole = CLIPModel.from_pretrained(clip.source, local_files_only=True).eval()
    pixels = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    out = whole.vision_model(pixel_values=normalized(pixels, mean=CLIP_MEAN, std=CLIP_STD))
    patches = whole.visual_projection(whole.vision_model.post_layernorm(out.last_hidden_state))[:, 1:]
    expected = torch.nn.functional.normalize(patches, dim=-1).unflatten(1, (2, 2))
    tower = load_vision_tower(resolve(clip), device="cpu", dtype=torch.float32)
    torch.testing.assert_close(dense_features(tower, pixels, DenseClipConfig(clip=clip)), expected)


def test_values_keep_every_patch_to_itself(clip: Checkpoint) -> None:
    """The last block mixes nothing: another patch's token before it changes no feature but its own."""
    tower = load_vision_tower(resolve(clip), device="cpu", dtype=torch.float32)
    config = DenseClipConfig(clip=clip, last_block="values")
    pixels = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 255
    found = dense_features(tower, pixels, config)
    before = tower.encode(pixels, position="native", num_blocks=1).patches(1)
    _, values = tower.keys_values(before[:, 5:6])
    alone = tower.project(tower.attend_out(values.transpose(1, 2).flatten(2)))
    torch.testing.assert_close(found[0, 1, 1], torch.nn.functional.normalize(alone[0, 0], dim=0))
    assert found.shape == (1, 3, 4, tiny.CLIP_WIDTH)


@pytest.mark.parametrize("last_block", ["tokens", "values"])
def test_a_batch_gives_what_its_images_give_alone(
    clip: Checkpoint, vocabulary: Vocabulary, last_block: Any
) -> None:
    config = DenseClipConfig(clip=clip, last_block=last_block, views_per_batch=3, **SMALL)
    segmenter = build(config, vocabulary)
    images = [picture(80, 200), picture(113, 97, seed=1), picture(1, 40, seed=2)]
    for image, found in zip(images, segmenter.segment(images), strict=True):
        assert found.labels.shape == image.shape[:2]
        assert_same_map(found, segmenter.segment([image])[0])


def test_a_wide_image_is_seen_in_its_shape(clip: Checkpoint, vocabulary: Vocabulary) -> None:
    """One window of the whole picture: its patches are those of the picture, not of a square that it was drawn into."""
    config = DenseClipConfig(clip=clip, short_side=32, max_long_side=96, window=96, stride=96)
    segmenter = build(config, vocabulary)
    for size, grid in (((32, 96), (2, 6)), ((96, 32), (6, 2)), ((1, 400), (1, 6)), ((400, 1), (6, 1))):
        plan = plan_views(size, config)
        [similarity] = segmenter.similarity([picture(*size)], [plan])
        assert similarity.shape[-2:] == grid
        [found] = segmenter.segment([picture(*size)])
        assert found.labels.shape == size
        assert np.isfinite(found.scores).all()


def test_siglip_is_a_baseline_too(folder: Path, vocabulary: Vocabulary) -> None:
    config = DenseClipConfig(clip=Checkpoint(source=str(folder / "siglip2")), **SMALL)
    [found] = build(config, vocabulary).segment([picture(60, 90)])
    assert np.isfinite(found.scores).all()


def test_a_prompt_over_the_text_length_labels_like_any_other(clip: Checkpoint) -> None:
    long = Vocabulary(
        name="long",
        languages=("en",),
        templates={"en": "plain"},
        classes=(ClassSpec(id=1, name=LONG), ClassSpec(id=2, name="cat")),
    )
    [found] = build(DenseClipConfig(clip=clip, **SMALL), long).segment([picture(50, 50)])
    assert np.isfinite(found.scores).all()


def test_reading_a_config_loads_no_transformers() -> None:
    code = (
        "import sys; import ovsops.segmenters.clip_config, ovsops.segmenters.scclip_config;"
        " sys.exit('transformers' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=120, check=False).returncode == 0
