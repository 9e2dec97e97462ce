"""FG-CLIP 2's loss on two real workers, one of which has no region: none waits, both step alike."""

import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, multiprocessing

from tests.ovsops.losses.fgclip2_workers import run_worker


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("workers")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    multiprocessing.spawn(run_worker, args=(port, str(folder)), nprocs=2)
    return [load_file(str(Path(folder) / f"{rank}.safetensors")) for rank in range(2)]


def test_the_margin_and_all_gradients_are_equal_on_both(workers: list[dict[str, Tensor]]) -> None:
    first, second = workers
    names = set(first) - {"total", "message"}
    assert names == {"margin", "weight", *(f"scalars.{number}" for number in range(4))}
    for name in names:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
        assert float(first[name].abs().sum()) > 0, name
    assert float(first["margin"]) != pytest.approx(0.7)
    assert float(first["total"]) > float(second["total"])


def test_too_few_regions_on_one_are_an_error_on_both(workers: list[dict[str, Tensor]]) -> None:
    messages = {bytes(found["message"].tolist()).decode() for found in workers}
    assert len(messages) == 1
    assert "rank 1 has 0 regions and 0 with negatives" in messages.pop()
