"""One query a prompt: which class it speaks for, and that its vector is the mean of its templates' directions."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.clip import ClipText
from ovsops.errors import CheckpointError, ShapeError
from ovsops.segmenters.queries import QueryTextFeatures, compute_query_features
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from tests.tiny import checkpoints as tiny


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(source=str(tiny.write_clip(tmp_path_factory.mktemp("clip"))))


def test_every_prompt_is_a_query_and_background_is_class_0(clip: Checkpoint, vocabulary: Vocabulary) -> None:
    found = compute_query_features(clip, vocabulary, ("en", "zh"))
    assert found.class_ids == (3, 7, 9)
    assert found.query_class.tolist() == [1, 1, 1, 2, 2, 3, 3, 0]
    assert (found.num_classes, found.num_background, found.num_negatives) == (3, 1, 1)
    torch.testing.assert_close(found.queries.norm(dim=1), torch.ones(8))


def test_a_query_is_the_mean_direction_of_its_templates(clip: Checkpoint) -> None:
    templates = ("a photo of a {}.", "a drawing of the {}.", "{}")
    words = Vocabulary(
        name="v", languages=("en",), templates={"en": templates}, classes=(ClassSpec(id=4, name="cat"),)
    )
    sentences = [template.format("cat") for template in templates]
    embeddings = ClipText(resolve(clip), device="cpu", dtype=torch.float32).encode(sentences).embeddings
    mean = torch.nn.functional.normalize(embeddings, dim=1).mean(dim=0)
    found = compute_query_features(clip, words, ("en",))
    torch.testing.assert_close(found.queries[0], mean / mean.norm())


def test_the_language_changes_queries_not_ids(clip: Checkpoint, vocabulary: Vocabulary) -> None:
    english, chinese = (compute_query_features(clip, vocabulary, (each,)) for each in ("en", "zh"))
    assert english.class_ids == chinese.class_ids
    assert english.query_class.tolist() == [1, 1, 2, 3, 0]
    assert chinese.query_class.tolist() == [1, 2, 3]
    assert english.identity != chinese.identity


def test_negative_prompts_change_no_query(clip: Checkpoint) -> None:
    plain = Vocabulary(name="v", languages=("en",), classes=(ClassSpec(id=1, name="cat"),))
    spec = ClassSpec(id=1, name="cat", negative_prompts={"en": ("toy cat", "cat food")})
    warned = replace(plain, classes=(spec,))
    one, other = (compute_query_features(clip, each, ("en",)) for each in (plain, warned))
    assert torch.equal(one.queries, other.queries)
    assert (one.num_negatives, other.num_negatives) == (0, 2)


def test_a_siglip_checkpoint_gives_queries_too(folder: Path, vocabulary: Vocabulary) -> None:
    found = compute_query_features(Checkpoint(source=str(folder / "siglip2")), vocabulary, ("en",))
    assert found.queries.shape == (5, 32)


def test_a_tower_without_text_is_refused(folder: Path, vocabulary: Vocabulary) -> None:
    with pytest.raises(
        CheckpointError, match=r"model_type is .dinov2_with_registers., and picture and text towers"
    ):
        compute_query_features(Checkpoint(source=str(folder / "dinov2")), vocabulary, ("en",))


def test_a_prompt_over_the_text_length_is_cut_and_still_ends(clip: Checkpoint) -> None:
    """A token a character here: what stands behind the 75th is not read, what stands before it is."""

    def query(name: str) -> torch.Tensor:
        words = Vocabulary(
            name="v", languages=("en",), templates={"en": "plain"}, classes=(ClassSpec(id=1, name=name),)
        )
        return compute_query_features(clip, words, ("en",)).queries[0]

    long = "a" * 75
    assert torch.equal(query(long + "b" * 50), query(long + "c" * 100))
    assert not torch.allclose(query("a" * 74 + "b" * 50), query(long + "b" * 50), atol=1e-3)
    assert torch.isfinite(query(long)).all()


def test_they_are_computed_once(
    clip: Checkpoint, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = compute_query_features(clip, vocabulary, ("en",), cache_dir=tmp_path)
    monkeypatch.setattr(
        "ovsops.segmenters.queries.load_text_tower", lambda *a, **k: pytest.fail("the tower was loaded again")
    )
    again = compute_query_features(clip, vocabulary, ("en",), cache_dir=tmp_path)
    assert again.to_bytes() == first.to_bytes()


def test_bytes_and_back(clip: Checkpoint, vocabulary: Vocabulary) -> None:
    found = compute_query_features(clip, vocabulary, ("en",))
    data = found.to_bytes()
    back = QueryTextFeatures.from_bytes(data)
    assert back.to_bytes() == data
    assert (back.class_ids, back.identity, back.num_negatives) == (found.class_ids, found.identity, 1)
    assert torch.equal(back.to("cpu").queries, found.queries)
    with pytest.raises(CheckpointError, match="not bytes of"):
        QueryTextFeatures.from_bytes(data[:50])
    with pytest.raises(CheckpointError, match="format 'query-text-features-0'"):
        QueryTextFeatures.from_bytes(_rewritten(found))


def _rewritten(features: QueryTextFeatures) -> bytes:
    tensors = load(features.to_bytes())
    header = bytes(tensors["header"].tolist()).replace(b"features-1", b"features-0")
    tensors["header"] = torch.tensor(list(header), dtype=torch.uint8)
    return save(tensors)


@pytest.mark.parametrize(
    ("classes", "message"),
    [([1, 1, 0], r"classes \[7\] have no query"), ([1, 2, 3], "outside 0")],
)
def test_queries_and_classes_that_do_not_fit_are_refused(classes: list[int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        QueryTextFeatures(
            class_ids=(3, 7), query_class=torch.tensor(classes), queries=torch.eye(3), identity="x"
        )
