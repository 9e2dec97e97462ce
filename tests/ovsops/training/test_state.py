"""States on disk: whole or not there, two of them, and only into the model they came from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ovsops.errors import CheckpointError
from ovsops.training.state import Standing, load_state, save_state, states


def trained(*, steps: int = 2, width: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    module = nn.Sequential(nn.Linear(width, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(4, width)).square().sum().backward()
        optimizer.step()
    return module, optimizer


def test_weights_optimiser_random_state_and_standing_come_back(tmp_path: Path) -> None:
    module, optimizer = trained()
    standing = Standing(7, {"total": 0.1 + 0.2}, 3)
    save_state(tmp_path, standing, module, optimizer)
    expected = torch.rand(5)  # what the random state gives next

    other, other_optimizer = trained(steps=5)
    assert load_state(tmp_path, other, other_optimizer) == standing
    torch.testing.assert_close(torch.rand(5), expected, atol=0, rtol=0)
    for (
        name,
        value,
    ) in module.state_dict().items():  # buffers, too: the running mean, and an integer of no axis
        torch.testing.assert_close(other.state_dict()[name], value, atol=0, rtol=0)
    for index, slots in optimizer.state_dict()["state"].items():
        for slot, value in slots.items():
            found = other_optimizer.state_dict()["state"][index][slot]
            torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(value), atol=0, rtol=0)


def test_without_a_state_nothing_is_done_and_nothing_changes(tmp_path: Path) -> None:
    module, optimizer = trained()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert load_state(tmp_path / "states", module, optimizer) == Standing()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_the_two_newest_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    module, optimizer = trained()
    for step in (9, 10, 100):
        save_state(tmp_path, Standing(step), module, optimizer)
    assert [place.name for place in states(tmp_path)] == ["state-00000010", "state-00000100"]
    assert load_state(tmp_path, module, optimizer).step == 100


def test_a_state_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    module, optimizer = trained()
    save_state(tmp_path, Standing(3, {"total": 1.0}, 1), module, optimizer)
    save_state(tmp_path, Standing(3, {"total": 2.0}, 1), module, optimizer)
    assert load_state(tmp_path, module, optimizer).sums == {"total": 2.0}
    assert [place.name for place in tmp_path.iterdir()] == ["state-00000003"]


def test_a_write_that_fails_leaves_the_states_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, optimizer = trained()
    save_state(tmp_path, Standing(1), module, optimizer)
    with monkeypatch.context() as patch:

        def full(*_: object) -> None:
            raise OSError("no space left on device")

        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="no space left"):
            save_state(tmp_path, Standing(2), module, optimizer)
    assert [place.name for place in states(tmp_path)] == ["state-00000001"]
    assert load_state(tmp_path, module, optimizer).step == 1


def test_half_written_states_are_not_seen_and_are_swept(tmp_path: Path) -> None:
    module, optimizer = trained()
    half = tmp_path / ".state-00000005.4242"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    assert load_state(tmp_path, module, optimizer) == Standing()
    save_state(tmp_path, Standing(6), module, optimizer)
    assert [place.name for place in tmp_path.iterdir()] == ["state-00000006"]


def test_the_state_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    save_state(tmp_path, Standing(1), *trained())
    wider, its_optimizer = trained(width=4)
    before = wider.state_dict()["0.weight"].clone()
    with pytest.raises(CheckpointError, match=r"state-00000001 is of another model \(0\.weight differ\)"):
        load_state(tmp_path, wider, its_optimizer)
    assert torch.equal(wider.state_dict()["0.weight"], before)
    named = nn.ModuleDict({"head": nn.Linear(3, 2)})
    with pytest.raises(CheckpointError, match=r"0\.bias, 0\.weight, 1\.bias differ.*another folder"):
        load_state(tmp_path, named, torch.optim.AdamW(named.parameters()))


def test_generators_of_cuda_devices_are_kept_and_set_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: what torch.cuda would be asked for and told."""
    module, optimizer = trained()
    kept = [torch.full((16,), device, dtype=torch.uint8) for device in (3, 7)]
    told: dict[int, Tensor] = {}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: kept)
    save_state(tmp_path, Standing(1), module, optimizer)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: told.update({device: state}))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    load_state(tmp_path, module, optimizer)
    assert {device: state.tolist() for device, state in told.items()} == {0: [3] * 16, 1: [7] * 16}
    told.clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a machine with fewer devices
    load_state(tmp_path, module, optimizer)
    assert list(told) == [0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_state_on_cuda_goes_on_with_the_same_random_numbers(tmp_path: Path) -> None:
    module, optimizer = trained()
    torch.cuda.manual_seed(5)
    save_state(tmp_path, Standing(1), module, optimizer)
    expected = torch.rand(5, device="cuda")
    torch.cuda.manual_seed(6)
    load_state(tmp_path, module, optimizer)
    assert torch.equal(torch.rand(5, device="cuda"), expected)
