import numpy as np
import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.negatives.candidates import CandidateNegatives, RegionContext
from ovsops.negatives.margin_check import MarginValidator
from ovsops.regions.region_vectors import RegionVectors


@pytest.fixture(scope="module")
def vectors() -> RegionVectors:
    return RegionVectors.load(Checkpoint(source="miniature:fgclip2"))


def test_regions_phrases_and_images_are_unit_vectors(vectors: RegionVectors) -> None:
    scene = draw_scene(seeds_of("test")[0])
    boxes = np.array([[0, 0, 64, 64], [5, 5, 5, 20]], np.float32)
    found = vectors.of_image(scene.image, boxes)
    assert found.regions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found.regions, axis=1), [1, 0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.image), 1, atol=1e-5)
    assert vectors.of_image(scene.image, boxes[:0]).regions.shape == (0, vectors.width)
    texts = vectors.texts(["red ball", "blue ball", "red ball"])
    np.testing.assert_array_equal(texts[0], texts[2])
    assert vectors.texts([]).shape == (0, vectors.width)


def test_a_true_colour_is_taken_out(vectors: RegionVectors) -> None:
    """Captions in a wrong colour, with the right one among the negatives."""
    rows, contexts = [], []
    for seed in seeds_of("test")[:6]:
        scene = draw_scene(seed)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (t.box_xywh for t in scene.things)])
        found = vectors.of_image(scene.image, boxes.astype(np.float32))
        for thing, feature in zip(scene.things, found.regions, strict=True):
            wrong = "green" if thing.colour != "green" else "black"
            other = "white" if thing.colour != "white" else "blue"
            rows.append(
                CandidateNegatives(
                    key=str(seed),
                    positive=f"{wrong} {thing.noun}",
                    language="en",
                    texts=(f"{thing.colour} {thing.noun}",),
                    types=("colour",),
                    sources=("llm",),
                )
            )
            contexts.append(RegionContext(feature=feature))
            rows.append(
                CandidateNegatives(
                    key=str(seed),
                    positive=f"{thing.colour} {thing.noun}",
                    language="en",
                    texts=(f"{other} {thing.noun}",),
                    types=("colour",),
                    sources=("llm",),
                )
            )
            contexts.append(RegionContext(feature=feature))
    found = MarginValidator(vectors.texts).validate(rows, contexts)
    is_dropped = np.array([reasons == ["V_MARGIN"] for reasons in found])
    assert is_dropped[::2].mean() > 0.9
    assert is_dropped[1::2].mean() < 0.1
