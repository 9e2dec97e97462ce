"""CLIP's text tower: the cut to the longest prompt is exact."""

import pytest
import torch
from transformers import CLIPModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.clip import ClipText

PROMPTS = ["a cat", "a photo of the large dog in a video game", "猫", "x" * 200]


@pytest.fixture(scope="module")
def text(clip_checkpoint: ResolvedCheckpoint) -> ClipText:
    return ClipText(clip_checkpoint, device="cpu", dtype=torch.float32)


def test_embeddings_are_those_of_the_whole_model_at_full_length(
    text: ClipText, clip_checkpoint: ResolvedCheckpoint
) -> None:
    whole = CLIPModel.from_pretrained(str(clip_checkpoint.folder), local_files_only=True).eval()
    rows = text.tokenizer(PROMPTS)
    ids = torch.tensor([row + [0] * (77 - len(row)) for row in rows])
    with torch.no_grad():
        expected = whole.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(text.encode(PROMPTS).embeddings, expected, atol=2e-5, rtol=1e-4)


def test_running_longer_than_needed_changes_nothing(text: ClipText) -> None:
    rows = text.tokenizer(PROMPTS[:3])
    torch.testing.assert_close(text.embed_ids(rows), text.embed_ids(rows, pad_to=77), atol=1e-5, rtol=1e-5)


def test_batches_share_lengths(text: ClipText, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[list[int]] = []
    original = text.embed_ids

    def counted(rows: list[list[int]]) -> torch.Tensor:
        lengths.append([len(row) for row in rows])
        return original(rows)

    monkeypatch.setattr(text, "embed_ids", counted)
    found = text.encode(["a" * 9, "b", "c" * 9, "d", "b"], batch_size=2)
    assert lengths == [[3, 3], [11, 11]]
    torch.testing.assert_close(found.embeddings[1], found.embeddings[4])


def test_a_long_prompt_is_cut_and_still_ends(text: ClipText) -> None:
    row = text.tokenizer(["x" * 200])[0]
    assert len(row) == 77
    assert (row[0], row[-1]) == (text.tokenizer.bos, text.tokenizer.eos)
