"""What reuse saves at full size, counted without weights."""

import pytest
import torch

from benchmarks.sam3 import count_flops, meta_model


@pytest.mark.nightly
def test_eighty_prompts_cost_at_most_a_tenth_of_eighty_calls() -> None:
    found = count_flops(80, prompts_per_batch=40)
    assert found.reused * 10 <= found.single
    assert found.single / 80 / 1e9 == pytest.approx(6053, rel=0.01)  # an image and a prompt, GFLOP
    assert found.reused_corpus < found.reused


def test_the_full_size_model_gives_the_published_output_shapes() -> None:
    with torch.no_grad():
        found = meta_model()(
            pixel_values=torch.empty(1, 3, 1008, 1008, device="meta"),
            input_ids=torch.zeros(1, 32, dtype=torch.int64, device="meta"),
        )
    shapes = {name: tuple(value.shape) for name, value in found.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        "pred_masks": (1, 200, 288, 288),
        "pred_boxes": (1, 200, 4),
        "pred_logits": (1, 200),
        "presence_logits": (1, 1),
        "semantic_seg": (1, 1, 288, 288),
        "decoder_reference_boxes": (6, 1, 200, 4),
    }
