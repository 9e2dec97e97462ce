"""Gather on one process; two workers of B pairs each against one worker with 2B."""

import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, all_gather_with_gradient, no_gather
from tests.ovsops.losses.two_workers import LOSSES, run_worker, step


def test_one_process_has_what_it_has() -> None:
    tensor = torch.rand(3, 2)
    assert no_gather(tensor) is tensor
    assert no_gather.rank == 0
    assert isinstance(no_gather, Gather)


def test_gathering_without_a_group_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no process group"):
        all_gather_with_gradient()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """What each of two gloo workers found; one spawn for all tests."""
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    multiprocessing.spawn(run_worker, args=(2, port, str(folder)), nprocs=2)
    return [
        {path.stem.partition("-")[2]: load_file(str(path)) for path in sorted(Path(folder).glob(f"{rank}-*"))}
        for rank in range(2)
    ]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_two_workers_are_one_with_the_doubled_batch(
    workers: list[dict[str, dict[str, torch.Tensor]]], name: str
) -> None:
    """The mean of the shares is the loss; gradients averaged by DistributedDataParallel are the gradients."""
    alone = step(name, rank=0, num_ranks=1, gather=no_gather)
    shares = torch.stack([found[name]["loss"] for found in workers])
    torch.testing.assert_close(shares.mean(), alone["loss"], rtol=1e-5, atol=1e-6)
    gradients = [key for key in alone if key.startswith("gradient")]
    assert gradients
    for key in gradients:
        largest = alone[key].abs().max().item()
        assert largest > 1e-6, f"{key} is zero: the comparison would say nothing"
        for found in workers:
            torch.testing.assert_close(found[name][key], alone[key], rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("name", ["siglip", "infonce", "classes"])
def test_without_the_other_workers_pairs_the_loss_is_another(name: str) -> None:
    """The comparison above can fail: halves that do not see each other give something else."""
    halves = [step(name, rank=rank, num_ranks=2, gather=no_gather) for rank in range(2)]
    alone = step(name, rank=0, num_ranks=1, gather=no_gather)
    mean = torch.stack([half["loss"] for half in halves]).mean()
    assert abs(mean - alone["loss"]) > 1e-3


def test_targets_and_centres_are_those_of_the_whole_batch(
    workers: list[dict[str, dict[str, torch.Tensor]]],
) -> None:
    """Ranks with 3 and 5 samples, and one with none."""
    for found in workers:
        for key, value in found["targets"].items():
            torch.testing.assert_close(value, found["expected_targets"][key], rtol=1e-5, atol=1e-6, msg=key)


def test_gradients_are_summed_over_ranks(workers: list[dict[str, dict[str, torch.Tensor]]]) -> None:
    """Each rank weighs the gathered rows by its rank + 1: rows of either get 1 + 2."""
    for rank, found in enumerate(workers):
        assert found["raw"]["gathered"].tolist() == [[0.0], [1.0], [10.0], [11.0]]
        assert found["raw"]["gradient"].tolist() == [[3.0], [3.0]]
        assert found["raw"]["bools"].tolist() == [True, False, True, False]
        assert found["raw"]["rank"] == rank


def test_unequal_ranks_are_refused_on_every_rank(
    workers: list[dict[str, dict[str, torch.Tensor]]],
) -> None:
    for found in workers:
        for case in ("rows", "axes", "dtype"):
            message = bytes(found["refused"][case].tolist()).decode()
            assert "all must hold the same shape and dtype" in message
        assert "(3, 2)" in bytes(found["refused"]["rows"].tolist()).decode()
