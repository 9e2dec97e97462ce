import math
from collections.abc import Sequence

import numpy as np
import pytest

from ovsops.errors import ConfigError
from ovsops.negatives.candidates import CandidateNegatives, RegionContext, Validator
from ovsops.negatives.margin_check import (
    NEVER,
    MarginConfig,
    MarginSample,
    MarginValidator,
    fit_margins,
    margins_of,
)

VECTORS = {"red": [1.0, 0.0], "blue": [0.0, 1.0], "reddish": [0.8, 0.6], "red again": [1.0, 0.0]}


class Encoder:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([VECTORS[text] for text in texts], np.float32)


def region(*texts: str, types: tuple[str, ...] | None = None) -> CandidateNegatives:
    return CandidateNegatives(
        key="r",
        positive="red",
        language="zh",
        texts=texts,
        types=types or ("colour",) * len(texts),
        sources=("rule",) * len(texts),
    )


def seen(x: float, y: float) -> RegionContext:
    return RegionContext(feature=np.array([x, y], np.float32))


def test_a_negative_that_beats_the_caption_goes() -> None:
    validator = MarginValidator(Encoder())
    assert isinstance(validator, Validator)
    rows = [region("blue", "reddish"), region("blue", "reddish")]
    found = validator.validate(rows, [seen(1, 0), seen(0.8, 0.6)])
    assert found == [[None, None], [None, "V_MARGIN"]]  # cosines 0.8 0.6 1.0


def test_a_tie_is_kept_at_zero_and_goes_below() -> None:
    row, context = [region("red again")], [seen(1, 0)]
    assert MarginValidator(Encoder()).validate(row, context) == [[None]]
    strict = MarginValidator(Encoder(), MarginConfig(margin=-0.05))
    assert strict.validate(row, context) == [["V_MARGIN"]]


def test_margins_by_type_and_language() -> None:
    config = MarginConfig(margin=0.5, margins={"colour": 0.1, "colour.zh": -0.5, "size": NEVER})
    assert config.of("colour", "en") == 0.1
    assert config.of("colour", "zh") == -0.5
    assert config.of("pattern", "en") == 0.5
    assert config.of("colour+pattern", "zh") == 0.5
    validator = MarginValidator(Encoder(), config)
    row = region("reddish", "reddish", types=("colour", "size"))
    assert validator.validate([row], [seen(1, 0)]) == [["V_MARGIN", None]]  # 0.2 below the caption


def test_what_nobody_saw() -> None:
    contexts = [RegionContext(), seen(0, 0)]
    rows = [region("blue"), region("blue")]
    assert MarginValidator(Encoder()).validate(rows, contexts) == [["V_NO_FEATURE"], ["V_NO_FEATURE"]]
    kept = MarginValidator(Encoder(), MarginConfig(keep_unseen=True))
    assert kept.validate(rows, contexts) == [[None], [None]]
    assert MarginValidator(Encoder()).validate([], []) == []


def test_each_text_is_encoded_once_and_batches_change_nothing() -> None:
    rows = [region("blue", "reddish"), region("reddish"), region("blue")]
    contexts = [seen(1, 0), seen(0.6, 0.8), RegionContext()]
    encoder = Encoder()
    together = margins_of(rows, contexts, encoder)
    assert sorted(encoder.asked) == ["blue", "red", "reddish"]
    for row, context, found in zip(rows, contexts, together, strict=True):
        (alone,) = margins_of([row], [context], Encoder())
        assert (found is None and alone is None) or np.array_equal(found, alone)
    assert together[1] is not None
    np.testing.assert_allclose(together[1], [0.96 - 0.6], atol=1e-6)


@pytest.mark.parametrize("fields", [{"margin": -2.1}, {"margins": {"size": 3.1}}, {"margin": math.nan}])
def test_margins_out_of_range(fields) -> None:
    with pytest.raises(ConfigError, match="a difference of cosines"):
        MarginConfig(**fields)


def test_fitted_margins() -> None:
    lies = [MarginSample(kind="colour", gap=i / 100, is_true=False) for i in range(-99, 1)]  # -0.99 ... 0.00
    truths = [MarginSample(kind="colour", gap=gap, is_true=True) for gap in (-0.5, -0.045, 0.0, 0.3)]
    few = [MarginSample(kind="size", gap=0.0, is_true=False)]
    found = fit_margins([*lies, *truths, *few], max_false_alarms=0.05)
    assert set(found) == {"colour"}
    fitted = found["colour"]
    assert fitted.margin == pytest.approx(-0.05)
    assert (fitted.false_alarms, fitted.recall) == (0.05, 0.75)
    none = fit_margins(lies, max_false_alarms=0.0)["colour"]
    assert (none.margin, none.false_alarms) == (0.0, 0.0)
    assert math.isnan(none.recall)
    with pytest.raises(ConfigError, match="max_false_alarms"):
        fit_margins([], max_false_alarms=1.0)
