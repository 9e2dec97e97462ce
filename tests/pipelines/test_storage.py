"""Storage: the same promises on a local folder and on a real S3 server process, then S3 through a faulty proxy."""

import errno
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ovsops.errors import ConfigError, StorageError
from pipelines.redact import redact
from pipelines.storage import ObjectChangedError, Storage, StorageOptions, open_storage, split_url
from pipelines.storage_local import TEMPORARY
from tests.servers import S3_ENVIRONMENT, Fault, FaultyProxy, S3Server, faulty_proxy, s3_server

pytest.importorskip("s3fs")

QUICK = StorageOptions(
    connect_timeout_s=2, read_timeout_s=1.0, request_timeout_s=2.0, max_attempts=4, block_bytes=2**16
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(str(tmp_path / "root"))
    server: S3Server = request.getfixturevalue("s3")
    url = server.make_bucket("contract") + f"/{tmp_path.name}/root"
    return open_storage(url, replace(QUICK, s3_endpoint=server.endpoint))


def behind(proxy: FaultyProxy, s3: S3Server, name: str = "faults") -> Storage:
    return open_storage(s3.make_bucket(name), replace(QUICK, s3_endpoint=proxy.endpoint))


class TestContract:
    def test_a_new_root_is_empty(self, storage: Storage) -> None:
        assert storage.list() == []
        assert storage.list("commits") == []
        assert not storage.exists("commits/a.json")

    def test_what_is_put_is_read(self, storage: Storage) -> None:
        data = os.urandom(200_000)
        storage.put("a/b.bin", b"old")
        storage.put("a/b.bin", data)
        storage.put("a/empty", b"")
        assert storage.read("a/b.bin") == data
        assert storage.read("a/empty") == b""
        with storage.open("a/b.bin") as stream:
            assert stream.info == storage.info("a/b.bin")
            assert stream.info.size == len(data)
            assert stream.read(10) == data[:10]
            stream.seek(-70_000, os.SEEK_END)
            assert stream.read() == data[-70_000:]

    def test_names_are_taken_literally(self, storage: Storage) -> None:
        for name in ("a b%2F+é😀.json", "x?versionId=1", "d/e.f/#g&h"):
            storage.put(name, name.encode())
            assert storage.read(name) == name.encode()
        assert [info.path for info in storage.list()] == sorted(
            ["a b%2F+é😀.json", "x?versionId=1", "d/e.f/#g&h"]
        )

    def test_listing_is_recursive_sorted_and_tagged(self, storage: Storage) -> None:
        for name in ("b/2", "b/1", "b/c/3", "a", "bb"):
            storage.put(name, name.encode())
        assert [info.path for info in storage.list()] == ["a", "b/1", "b/2", "b/c/3", "bb"]
        assert [info.path for info in storage.list("b")] == ["b/1", "b/2", "b/c/3"]
        assert [info.path for info in storage.list("b", recursive=False)] == ["b/1", "b/2"]
        assert [info.path for info in storage.list(name_prefix="b")] == ["b/1", "b/2", "b/c/3", "bb"]
        assert storage.list()[0] == storage.info("a")

    def test_tag_follows_the_content(self, storage: Storage) -> None:
        storage.put("a", b"one")
        before = storage.info("a")
        time.sleep(0.01)
        storage.put("a", b"two")
        assert storage.info("a").tag != before.tag

    def test_create_has_one_winner(self, storage: Storage) -> None:
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda n: storage.create("commits/a.json", b"%d" % n), range(8)))
        assert won.count(True) == 1
        assert storage.read("commits/a.json") == b"%d" % won.index(True)
        assert storage.create("commits/a.json", b"late") is False

    def test_move_replaces_and_delete_forgives(self, storage: Storage) -> None:
        storage.put("src", b"new")
        storage.put("far/dst", b"old")
        storage.move("src", "far/dst")
        assert storage.read("far/dst") == b"new"
        assert not storage.exists("src")
        storage.delete("src")

    def test_missing_is_file_not_found(self, storage: Storage) -> None:
        for call in (storage.read, storage.info, storage.open):
            with pytest.raises(FileNotFoundError):
                call("nowhere/x")
        with pytest.raises(FileNotFoundError):
            storage.move("nowhere/x", "y")

    def test_pickles(self, storage: Storage) -> None:
        storage.put("a", b"1")
        assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"


class TestLocal:
    def test_nothing_unfinished_is_left_or_listed(self, tmp_path: Path) -> None:
        storage = open_storage(str(tmp_path))
        storage.put("a", b"1")
        storage.create("a", b"2")
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / f"{TEMPORARY}killed").write_bytes(b"half")
        assert [info.path for info in storage.list()] == ["a"]
        assert storage.sweep() == 1
        assert list((tmp_path / "sub").iterdir()) == []

    def test_links_are_marked_and_linked_folders_not_entered(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a.tar").write_bytes(b"1")
        (tmp_path / "b.tar").symlink_to(tmp_path / "real" / "a.tar")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "broken").symlink_to(tmp_path / "nothing")
        storage = open_storage(str(tmp_path))
        assert [(info.path, info.is_link) for info in storage.list()] == [
            ("b.tar", True),
            ("real/a.tar", False),
        ]
        assert storage.count_linked_folders() == 2

    def test_writes_and_the_removal_of_empty_folders_do_not_get_in_each_others_way(
        self, tmp_path: Path
    ) -> None:
        storage = open_storage(str(tmp_path / "out"))
        storage.put("kept", b"1")
        with ThreadPoolExecutor(2) as pool:
            pruning = pool.submit(lambda: [storage.prune("a/b") for _ in range(400)])
            for _ in range(100):
                storage.put("a/b/c", b"1")
                storage.delete("a/b/c")
            pruning.result()
        storage.prune("a/b")
        storage.prune("not/there")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]

    def test_a_folder_that_goes_while_it_is_made_is_made_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, calls = Path.mkdir, []

        def raced(self: Path, *args: Any, **kwargs: Any) -> None:
            calls.append(self)
            if len(calls) == 1:
                raise FileExistsError(errno.EEXIST, "File exists", str(self))
            real(self, *args, **kwargs)

        storage = open_storage(str(tmp_path / "out"))
        monkeypatch.setattr(Path, "mkdir", raced)
        storage.put("a/b", b"1")
        assert storage.read("a/b") == b"1"
        assert len(calls) > 1

    @pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
    def test_paths_stay_below_the_root(self, tmp_path: Path, path: str) -> None:
        with pytest.raises(StorageError, match="relative path without"):
            open_storage(str(tmp_path)).put(path, b"x")

    def test_errors_say_what_and_where(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match=r"cannot write .*/file/x"):
            open_storage(str(tmp_path)).put("file/x", b"1")

    def test_file_urls(self, tmp_path: Path) -> None:
        (tmp_path / "a b").write_bytes(b"1")
        assert open_storage(f"file://{tmp_path}").read("a b") == b"1"
        assert split_url(f"file://{tmp_path}/a%20b") == (str(tmp_path), "a b")


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "match"),
        [
            ("gs://bucket/x", "gs:// is not known"),
            ("s3:///x", "bucket is missing"),
            ("s3://user:hunter2@bucket/x", "holds credentials"),
        ],
    )
    def test_refused(self, url: str, match: str) -> None:
        with pytest.raises(ConfigError, match=match) as caught:
            open_storage(url)
        assert "hunter2" not in str(caught.value)

    def test_split(self) -> None:
        assert split_url("s3://b/p/q.tar") == ("s3://b/p", "q.tar")
        assert split_url("s3://b/q.tar") == ("s3://b", "q.tar")

    def test_endpoint_with_credentials_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="holds credentials") as caught:
            StorageOptions(s3_endpoint="http://me:hunter2@host")
        assert "hunter2" not in str(caught.value)


class TestRedact:
    @pytest.mark.parametrize(
        ("text", "secret"),
        [
            ("key AKIAIOSFODNN7EXAMPLE used", "AKIAIOSFODNN7EXAMPLE"),
            ("https://b/x?X-Amz-Signature=deadbeef&a=1", "deadbeef"),
            ("https://b/x?Signature=abc%2F1", "abc%2F1"),
            ("https://b/x?sv=2020&sig=xyz", "xyz"),
            ("https://me:pass@host/x", "pass"),
            ("the password: hunter2, and more", "hunter2"),
            ("password=opensesame", "opensesame"),
            ("Authorization: AWS4-HMAC-SHA256 Credential=x", "Credential=x"),
        ],
    )
    def test_takes_out(self, text: str, secret: str) -> None:
        assert secret not in redact(text)
        assert "[redacted]" in redact(text)

    def test_leaves_a_caption_that_speaks_of_secrets(self) -> None:
        text = "a sign with the secret: love, and the password: open sesame"
        assert redact(text) == text

    def test_leaves_ordinary_text(self) -> None:
        text = "https://example.org/a.jpg?size=large: 404 not found, see s3://bucket/key"
        assert redact(text) == text


class TestFaults:
    def test_input_28_a_burst_of_503_is_waited_out(self, s3: S3Server, proxy: FaultyProxy) -> None:
        storage = behind(proxy, s3)
        storage.put("a", b"data")
        for method, call in (
            ("GET", lambda: storage.read("a")),
            ("PUT", lambda: storage.put("b", b"x")),
            ("HEAD", lambda: storage.info("a")),
        ):
            proxy.faults.append(Fault("status", times=2, status=503, method=method))
            call()
            assert proxy.faults.pop().times == 0
        assert storage.read("b") == b"x"

    def test_input_28_endless_503_ends_and_says_so(self, s3: S3Server, proxy: FaultyProxy) -> None:
        storage = behind(proxy, s3)
        storage.put("a", b"data")
        proxy.faults.append(Fault("status", times=100, status=503))
        with pytest.raises(StorageError, match="503 SlowDown after 4 attempts"):
            storage.read("a")
        assert proxy.faults[0].times == 100 - QUICK.max_attempts  # no layer below retries on its own

    def test_input_28_403_is_not_repeated_and_tells_no_secret(
        self, s3: S3Server, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        storage = behind(proxy, s3)
        storage.put("a", b"data")
        proxy.faults.append(Fault("status", times=100, status=403))
        with caplog.at_level("DEBUG"), pytest.raises(StorageError, match="check the credentials") as caught:
            storage.read("a")
        assert proxy.faults[0].times == 99
        ours = " ".join(
            record.getMessage() for record in caplog.records if record.name.startswith("pipelines")
        )
        for secret in (
            S3_ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            "Signature=abc123",
        ):
            assert secret not in str(caught.value) + ours

    def test_input_28_404_is_not_repeated(self, s3: S3Server, proxy: FaultyProxy) -> None:
        storage = behind(proxy, s3)
        before = len(proxy.requests)
        with pytest.raises(FileNotFoundError):
            storage.read("nothing")
        assert len(proxy.requests) == before + 1

    def test_input_28_no_such_bucket(self, s3: S3Server) -> None:
        storage = open_storage("s3://no-such-bucket/x", replace(QUICK, s3_endpoint=s3.endpoint))
        with pytest.raises(StorageError, match="no bucket is called 'no-such-bucket'"):
            storage.list()

    def test_input_28_no_server(self) -> None:
        options = replace(QUICK, s3_endpoint="http://127.0.0.1:9", max_attempts=2)
        with pytest.raises(StorageError, match="after 2 attempts; check the server"):
            open_storage("s3://bucket/x", options).read("a")

    def test_input_28_a_cut_body_goes_on_where_it_stopped(self, s3: S3Server, proxy: FaultyProxy) -> None:
        storage = behind(proxy, s3)
        data = os.urandom(150_000)
        storage.put("a", data)
        proxy.faults.append(Fault("cut", at=50_000))
        assert storage.read("a") == data
        ranges = [r for method, _, r in proxy.requests if method == "GET"]
        assert ranges[0] == "bytes=0-65535"
        first, last = ranges[1].removeprefix("bytes=").split("-")
        assert 0 < int(first) <= 50_000
        assert last == "65535"

    @pytest.mark.parametrize("kind", ["stall", "trickle"])
    def test_input_28_a_slow_body_is_given_up(self, s3: S3Server, proxy: FaultyProxy, kind: str) -> None:
        storage = behind(proxy, s3)
        storage.put("a", os.urandom(60_000))
        proxy.faults.append(Fault(kind, times=1, at=1000, seconds=5))
        started = time.monotonic()
        assert len(storage.read("a")) == 60_000
        assert time.monotonic() - started < 5

    def test_input_26_an_object_replaced_between_blocks_is_noticed(
        self, s3: S3Server, proxy: FaultyProxy
    ) -> None:
        storage = behind(proxy, s3)
        storage.put("a", b"1" * 200_000)
        with storage.open("a") as stream:
            stream.read(10)
            storage.put("a", b"2" * 200_000)
            with pytest.raises(ObjectChangedError, match="replaced while"):
                stream.read()

    def test_create_knows_its_own_bytes_after_a_lost_answer(self, s3: S3Server, proxy: FaultyProxy) -> None:
        storage = behind(proxy, s3, "lost")
        proxy.faults.append(Fault("lose", method="PUT", path="commit.json"))
        assert storage.create("commit.json", b"mine") is True
        proxy.faults.append(Fault("lose", method="PUT", path="commit.json"))
        assert storage.create("commit.json", b"other") is False

    def test_listing_pages(self, s3: S3Server) -> None:
        client, url = s3.client(), s3.make_bucket("pages")
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(lambda n: client.put_object(Bucket="pages", Key=f"c/{n:05d}", Body=b""), range(1100))
            )
        found = open_storage(url, replace(QUICK, s3_endpoint=s3.endpoint, request_timeout_s=30)).list("c")
        assert [info.path for info in found] == [f"c/{n:05d}" for n in range(1100)]

    def test_threads_share_one_session(self, s3: S3Server) -> None:
        storage = open_storage(s3.make_bucket("threads"), replace(QUICK, s3_endpoint=s3.endpoint))
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                storage.put(f"{number}", b"%d" % number)
                assert storage.read(f"{number}") == b"%d" % number
            except BaseException as error:  # noqa: BLE001  threads hand their error to the test
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
