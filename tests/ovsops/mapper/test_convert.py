"""Published .pth projections become safetensors once."""

from pathlib import Path

import pytest
import torch

from ovsops.errors import CheckpointError
from ovsops.mapper.convert import convert_talk2dino, renamed_talk2dino
from ovsops.mapper.model import load_mapper


def published(*, second: str = "hidden_layers.0") -> dict[str, torch.Tensor]:
    """The names and shapes of vitb_mlp_infonce.pth (commit 4918c2d), random values."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "linear_layer.weight": (768, 512),
        "linear_layer.bias": (768,),
        f"{second}.weight": (768, 768),
        f"{second}.bias": (768,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("second", ["hidden_layers.0", "linear_layer2"])
def test_old_and_new_names_give_the_published_projection(tmp_path: Path, second: str) -> None:
    weights = published(second=second)
    torch.save(weights, tmp_path / "vitb.pth")
    convert_talk2dino(tmp_path / "vitb.pth", tmp_path / "mapper.safetensors")
    mapper = load_mapper(tmp_path)
    assert sum(p.numel() for p in mapper.parameters()) == 984_576  # the published count
    text = torch.randn(3, 512, generator=torch.Generator().manual_seed(1))
    hidden = torch.tanh(text @ weights["linear_layer.weight"].T + weights["linear_layer.bias"])
    expected = hidden @ weights[f"{second}.weight"].T + weights[f"{second}.bias"]
    torch.testing.assert_close(mapper(text), expected, atol=1e-4, rtol=1e-4)


def test_the_given_dictionary_is_not_changed() -> None:
    weights = published(second="linear_layer2")
    before = list(weights)
    renamed_talk2dino(weights, where="test")
    assert list(weights) == before


def test_old_and_new_name_together_are_refused() -> None:
    weights = published() | {"linear_layer2.weight": torch.zeros(768, 768)}
    with pytest.raises(CheckpointError, match="given twice"):
        renamed_talk2dino(weights, where="test")


def test_other_variants_are_named() -> None:
    with pytest.raises(CheckpointError, match="attn_weights belongs to a variant"):
        renamed_talk2dino({"attn_weights": torch.zeros(12)}, where="test")


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("unpickled",)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"linear_layer.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="no file of plain torch weights"):
        convert_talk2dino(tmp_path / "evil.pth", tmp_path / "out.safetensors")
    assert "unpickled" not in capsys.readouterr().out
    assert not (tmp_path / "out.safetensors").exists()
