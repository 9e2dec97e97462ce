"""Every figure is explained, with the numbers that decide it."""

import pytest

from ovsops.metrics.boundary import BoundaryConfig
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.explanations import explain, explain_object_figure
from pipelines.evaluation.figures import MEANINGS
from pipelines.evaluation.object_counts import ObjectsConfig
from pipelines.evaluation.object_figures import OBJECT_MEANINGS


@pytest.mark.parametrize("figure", MEANINGS)
def test_every_figure_has_a_sentence_of_its_own(figure: str) -> None:
    sentence = explain(figure, CountConfig())
    assert sentence.endswith(".")
    assert any(direction in sentence for direction in ("better", "perfect"))
    others = {explain(name, CountConfig()) for name in MEANINGS if name != figure}
    assert sentence not in others


def test_sentences_name_the_numbers_of_the_recipe() -> None:
    config = CountConfig(num_bins=10, boundary=BoundaryConfig(tolerance=0.0125, band=0.05))
    assert "10 bins" in explain("calibration_error", config)
    assert "within 1.25%" in explain("mean_boundary_f", config)
    assert "a band of 5.0%" in explain("mean_boundary_iou", config)


@pytest.mark.parametrize("figure", OBJECT_MEANINGS)
def test_every_figure_of_instances_has_a_sentence(figure: str) -> None:
    sentence = explain_object_figure(figure, ObjectsConfig(min_score=0.25), num_bins=7)
    assert sentence.endswith(".")
    assert any(word in sentence for word in ("better", "perfect"))
    assert "{" not in sentence
    assert ("0.25" in sentence) == (figure == "cg_f1")
    assert ("7 bins" in sentence) == (figure == "instance_ece")
