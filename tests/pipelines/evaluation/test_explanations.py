"""Every figure is explained, with the numbers that decide it."""

import pytest

from ovsops.metrics.boundary import BoundaryConfig
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.explanations import explain
from pipelines.evaluation.figures import MEANINGS


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
