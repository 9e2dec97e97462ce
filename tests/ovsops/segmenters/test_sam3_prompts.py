"""SAM 3 text features: bytes and back, and what is refused."""

import pytest
import torch

from ovsops.errors import CheckpointError, ShapeError
from ovsops.segmenters.sam3_prompts import Sam3TextFeatures
from tests.ovsops.segmenters.conftest import random_text


def some(**fields: object) -> Sam3TextFeatures:
    given: dict[str, object] = {
        "class_ids": (3, 7),
        "query_class": torch.tensor([1, 2, 0]),
        "prompts": ("cat", "猫", "wall"),
        "tokens": torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.tensor([[True, True, False, False]] * 3),
        "identity": "x",
    }
    return Sam3TextFeatures(**(given | fields))  # type: ignore[arg-type]


def test_bytes_and_back() -> None:
    text = some()
    data = text.to_bytes()
    found = Sam3TextFeatures.from_bytes(data)
    assert data == found.to_bytes()
    assert (found.class_ids, found.prompts, found.identity) == (text.class_ids, text.prompts, text.identity)
    for name in ("query_class", "tokens", "attention_mask"):
        assert torch.equal(getattr(found, name), getattr(text, name))
    assert found.to("cpu").num_classes == 2


@pytest.mark.parametrize("data", [b"", b"nonsense", random_text().to_bytes()])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="SAM 3 text features"):
        Sam3TextFeatures.from_bytes(data)


def test_a_vocabulary_without_prompts_is_refused() -> None:
    with pytest.raises(ShapeError, match="hold no prompt"):
        some(
            query_class=torch.zeros(0, dtype=torch.int64),
            prompts=(),
            tokens=torch.zeros(0, 4, 8),
            attention_mask=torch.zeros(0, 4, dtype=torch.bool),
        )


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="2 prompts, 3 classes of prompts"):
        some(prompts=("cat", "wall"))
    with pytest.raises(ShapeError, match=r"from 1 to 3; 0 \(background\) to 2"):
        some(query_class=torch.tensor([1, 2, 3]))
