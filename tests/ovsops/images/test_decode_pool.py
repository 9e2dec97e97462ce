import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from ovsops.errors import ConfigError, ImageDecodeError, OvsopsError
from ovsops.images import decode_pool
from ovsops.images.decode import DecodeConfig, DecodedImage, decode_image
from ovsops.images.decode_pool import DecodePool
from ovsops.images.decode_worker import READY, WorkerOptions, receive
from tests.tiny import images

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(num_workers=2) as pool:
        yield pool


def code_of(pool: DecodePool, data: bytes) -> str:
    error = pool.submit(data).exception(timeout=60)
    assert isinstance(error, ImageDecodeError), error
    return error.code


def wait_for(fact: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def equal(one: DecodedImage, other: DecodedImage) -> bool:
    facts = [(i.exif_orientation, i.num_frames, i.format, i.notes) for i in (one, other)]
    return (
        facts[0] == facts[1] and one.pixels.shape == other.pixels.shape and (one.pixels == other.pixels).all()
    )


def test_a_pool_decodes_as_this_process_does(pool: DecodePool) -> None:
    turned = images.with_exif(images.jpeg(40, 30), images.exif_block(6))
    for data in (images.jpeg(), turned + b"PK", images.animated(3, "WEBP"), images.jpeg(1, 1)):
        image = pool.submit(data).result()
        assert equal(image, decode_image(data))
        assert image.pixels.flags.writeable


def test_results_do_not_share_memory(pool: DecodePool) -> None:
    futures = [pool.submit(images.jpeg(seed=seed)) for seed in range(12)]
    for seed, future in enumerate(futures):
        assert (future.result().pixels == decode_image(images.jpeg(seed=seed)).pixels).all()


def test_map_keeps_order_and_hands_out_errors(pool: DecodePool) -> None:
    files = [images.jpeg(8, 8 + k) if k % 3 else images.jpeg()[:200] for k in range(20)]
    results = list(pool.map(iter(files), ahead=3))
    assert [r.code if isinstance(r, ImageDecodeError) else r.pixels.shape[1] for r in results] == [
        "E_TRUNCATED" if k % 3 == 0 else 8 + k for k in range(20)
    ]


def test_map_reads_ahead_within_bounds(pool: DecodePool) -> None:
    taken = []

    def source() -> Iterator[bytes]:
        for k in range(50):
            taken.append(k)
            yield images.jpeg(8, 8)

    results = pool.map(source(), ahead=5)
    next(results)
    assert len(taken) == 6
    results.close()


def test_errors_keep_code_and_message(pool: DecodePool) -> None:
    data = images.jpeg()[:300]
    with pytest.raises(ImageDecodeError) as here:
        decode_image(data)
    error = pool.submit(data).exception()
    assert (error.code, str(error)) == (here.value.code, str(here.value))
    assert code_of(pool, b"") == "E_EMPTY"


def test_threads_may_share_a_pool(pool: DecodePool) -> None:
    failures = []

    def use(seed: int) -> None:
        data = images.jpeg(20 + seed, 30, seed)
        expected = decode_image(data)
        for _ in range(10):
            if not equal(pool.submit(data).result(), expected):
                failures.append(seed)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_workers_have_no_torch_and_no_credentials(pool: DecodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-pass-on")
    with DecodePool(num_workers=1) as fresh:
        (pid,) = fresh.worker_pids
        assert b"do-not-pass-on" not in Path(f"/proc/{pid}/environ").read_bytes()
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "simplejpeg" in maps
        assert "libtorch" not in maps
        assert "pyarrow" not in maps


def test_an_image_over_its_time_fails_alone() -> None:
    with DecodePool(DecodeConfig(max_scans=100_000), num_workers=2, timeout_s=1.5) as pool:
        before = set(pool.worker_pids)
        futures = [pool.submit(images.jpeg(seed=seed)) for seed in range(3)]
        slow = pool.submit(images.jpeg_of_many_scans(20_000))
        futures += [pool.submit(images.jpeg(seed=seed)) for seed in range(3, 10)]
        assert isinstance(error := slow.exception(), ImageDecodeError)
        assert error.code == "E_TIMEOUT"
        assert "1.5 s" in str(error)
        assert [future.result().pixels.shape for future in futures] == [(48, 64, 3)] * 10
        assert pool.submit(images.jpeg()).result().format == "JPEG"
        wait_for(lambda: not all(is_running(pid) for pid in before))


def test_a_worker_killed_from_outside_costs_nothing() -> None:
    with DecodePool(num_workers=1) as pool:
        (pid,) = pool.worker_pids
        os.kill(pid, signal.SIGSTOP)
        future = pool.submit(images.jpeg())
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        assert future.result().format == "JPEG"
        (successor,) = pool.worker_pids
        assert successor != pid
        os.kill(successor, signal.SIGKILL)  # this one is idle
        wait_for(lambda: not is_running(successor))
        assert pool.submit(images.jpeg()).result().format == "JPEG"


def test_an_image_that_crashes_its_decoder_twice_fails_alone() -> None:
    with DecodePool(DecodeConfig(max_scans=100_000), num_workers=1, timeout_s=60.0) as pool:
        crashing = pool.submit(images.jpeg_of_many_scans(20_000))
        healthy = pool.submit(images.jpeg())
        killed: set[int] = set()
        while len(killed) < 2:
            time.sleep(0.1)
            for pid in set(pool.worker_pids) - killed:
                if "VmRSS" in (status := Path(f"/proc/{pid}/status").read_text()) and (
                    int(status.partition("VmHWM:")[2].split()[0]) > 65_000  # has begun to decode
                ):
                    os.kill(pid, signal.SIGSEGV)
                    killed.add(pid)
        assert isinstance(error := crashing.exception(), ImageDecodeError)
        assert error.code == "E_DECODER_CRASH"
        assert "SIGSEGV" in str(error)
        assert healthy.result().format == "JPEG"


def test_bombs_cost_no_memory() -> None:
    with DecodePool(num_workers=1, memory_bytes=300 << 20) as pool:
        pid = pool.worker_pids
        assert code_of(pool, images.png_bomb()) == "E_TOO_LARGE"
        assert (pool.submit(images.png_text_bomb()).result().pixels == 7).all()
        assert pool.worker_pids == pid


def test_an_image_over_the_memory_of_a_worker_fails_alone() -> None:
    data = images.png(6000, 6000, 1, 0, bytes(6000 * 751))
    with DecodePool(num_workers=1, memory_bytes=200 << 20) as pool:
        assert code_of(pool, data) == "E_MEMORY"
        assert pool.submit(images.jpeg()).result().format == "JPEG"


def test_large_images_come_back_whole() -> None:
    data = images.encode(np.tile(images.photo_pixels(41, 30), (100, 100, 1)))
    with DecodePool(num_workers=1) as pool:
        assert (pool.submit(data).result().pixels == decode_image(data).pixels).all()
        assert pool.submit(images.jpeg(9, 9)).result().pixels.shape == (9, 9, 3)


def test_close_cancels_what_waits_and_ends_the_workers() -> None:
    pool = DecodePool(num_workers=1)
    (pid,) = pool.worker_pids
    data = images.jpeg(500, 500)
    futures = [pool.submit(data) for _ in range(200)]
    pool.close()
    pool.close()
    assert all(future.done() for future in futures)
    with pytest.raises(CancelledError):
        futures[-1].result()
    assert not is_running(pid)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(images.jpeg())


def test_lost_workers_leak_no_files() -> None:
    with DecodePool(num_workers=1) as pool:
        pool.submit(images.jpeg()).result()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            os.kill(pool.worker_pids[0], signal.SIGKILL)
            pool.submit(images.jpeg()).result()
        assert len(os.listdir("/proc/self/fd")) == before


PARENT = """
import sys, time
from ovsops.images.decode import DecodeConfig
from ovsops.images.decode_pool import DecodePool
from tests.tiny import images
pool = DecodePool(DecodeConfig(max_scans=100_000), num_workers=2, timeout_s=2.0)
pool.submit(images.jpeg_of_many_scans(20_000))
print(*pool.worker_pids, flush=True)
time.sleep(60)
"""


def test_a_killed_parent_leaves_no_orphans() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert len(pids) == 2
    wait_for(lambda: not any(is_running(pid) for pid in pids), seconds=30)


def test_the_alarm_ends_an_endless_decode() -> None:
    data = images.jpeg_of_many_scans(20_000)
    options = WorkerOptions(
        config=DecodeConfig(max_scans=100_000), memory_bytes=4 << 30, alarm_s=0.5, pixels_fd=-1
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        worker = subprocess.Popen(
            [sys.executable, "-m", "ovsops.images.decode_worker", options.to_json()],
            stdin=theirs.fileno(),
            cwd=REPOSITORY,
        )
        assert receive(ours, len(READY)) == READY
        ours.sendall(len(data).to_bytes(8, "little") + data)
        assert worker.wait(timeout=30) == -signal.SIGALRM


def test_a_worker_that_cannot_start_is_no_fault_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_pool, "_worker_environment", lambda: {"PYTHONPATH": "/nonexistent"})
    monkeypatch.setattr(decode_pool.sys, "executable", "/bin/false")
    with pytest.raises(OvsopsError, match="decode worker exited with status 1") as caught:
        DecodePool(num_workers=1)
    assert not isinstance(caught.value, ImageDecodeError)


@pytest.mark.parametrize("arguments", [{"num_workers": 0}, {"timeout_s": 0.0}])
def test_a_pool_of_nothing_is_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="decode pool of"):
        DecodePool(**arguments)


@pytest.mark.ray
def test_a_pool_lives_and_dies_with_its_ray_actor(local_ray: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    class Decoder:
        def __init__(self) -> None:
            self.pool = DecodePool(num_workers=2)

        def decode(self, files: list[bytes]) -> tuple[list[int], list[str]]:
            results = list(self.pool.map(files))
            codes = [r.code if isinstance(r, ImageDecodeError) else r.format for r in results]
            return list(self.pool.worker_pids), codes

    actor = Decoder.remote()
    pids, codes = ray.get(actor.decode.remote([images.jpeg(), images.jpeg()[:99], images.jpeg()]))
    assert codes == ["JPEG", "E_TRUNCATED", "JPEG"]
    ray.kill(actor)
    wait_for(lambda: not any(is_running(pid) for pid in pids))
