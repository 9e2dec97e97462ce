"""Means of embeddings: plain, unit, and in steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from ovsops.errors import ShapeError
from ovsops.text.ensemble import ensemble_prompts, mean_of_templates
from ovsops.text.prompts import class_prompts
from ovsops.text.vocabulary import ClassSpec, Vocabulary

ZOO = Vocabulary(
    name="zoo",
    languages=("en", "zh"),
    classes=(
        ClassSpec(
            id=3,
            name="cat",
            prompts={"en": ("cat", "kitten"), "zh": ("猫",)},
            negative_prompts={"en": ("fox",)},
        ),
        ClassSpec(id=7, name="dog"),
    ),
    templates={"en": ("a {}.", "the {}."), "zh": ("{}的照片。",)},
    background={"zh": ("背景", "天空")},
)


def test_raw_mean_by_hand() -> None:
    embeddings = torch.tensor([[[3.0, 4.0], [0.0, 2.0]]])
    torch.testing.assert_close(mean_of_templates(embeddings), torch.tensor([[1.5, 3.0]]))


def test_unit_mean_by_hand() -> None:
    # Units (0.6, 0.8) and (0, 1); mean (0.3, 0.9); norm sqrt(0.9).
    embeddings = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    expected = torch.tensor([0.3, 0.9]) / 0.9**0.5
    torch.testing.assert_close(mean_of_templates(embeddings, "each"), expected)


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_scaling_a_template_changes_the_raw_mean_only(num_templates: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_templates, 8, generator=generator)
    scaled = embeddings * torch.linspace(2, 3, num_templates)[:, None]
    torch.testing.assert_close(mean_of_templates(scaled, "each"), mean_of_templates(embeddings, "each"))
    assert not torch.allclose(mean_of_templates(scaled), mean_of_templates(embeddings))


def test_a_language_with_more_templates_weighs_no_more() -> None:
    table = class_prompts(ZOO, ("en", "zh"))
    index = {sentence: i for i, sentence in enumerate(table.sentences)}
    embeddings = torch.zeros(len(table.sentences), 2)
    for sentence in ("a cat.", "the cat.", "a kitten.", "the kitten."):
        embeddings[index[sentence]] = torch.tensor([1.0, 0.0])
    embeddings[index["猫的照片。"]] = torch.tensor([0.0, 1.0])
    vectors = ensemble_prompts(embeddings, table)
    torch.testing.assert_close(vectors.classes[0], torch.tensor([0.5, 0.5]))


def test_one_prompt_is_the_mean_over_its_templates() -> None:
    table = class_prompts(ZOO, ("en",))
    embeddings = torch.randn(len(table.sentences), 6, generator=torch.Generator().manual_seed(1))
    rows = list(table.of_class[1][0].sentences)
    for normalise in ("none", "each"):
        vectors = ensemble_prompts(embeddings, table, normalise)
        torch.testing.assert_close(vectors.classes[1], mean_of_templates(embeddings[rows], normalise))


def test_negatives_and_background_are_kept_apart() -> None:
    table = class_prompts(ZOO, ("en", "zh"))
    embeddings = torch.eye(len(table.sentences))
    vectors = ensemble_prompts(embeddings, table, "each")
    assert vectors.negatives.shape[0] == 1
    assert vectors.negative_of.tolist() == [0]
    assert vectors.background.shape[0] == 2
    # Orthonormal sentences: classes share nothing with negatives and background.
    assert (vectors.classes @ torch.cat([vectors.negatives, vectors.background]).T == 0).all()
    torch.testing.assert_close(vectors.classes, normalize(vectors.classes, dim=-1))


def test_dtype_is_kept() -> None:
    table = class_prompts(ZOO, ("en",))
    vectors = ensemble_prompts(torch.ones(len(table.sentences), 4, dtype=torch.bfloat16), table)
    assert vectors.classes.dtype == vectors.background.dtype == torch.bfloat16
    assert vectors.background.shape == (0, 4)


def test_one_embedding_a_sentence_or_an_error() -> None:
    table = class_prompts(ZOO, ("en",))
    with pytest.raises(ShapeError, match=f"3 embeddings for {len(table.sentences)} sentences"):
        ensemble_prompts(torch.ones(3, 4), table)
