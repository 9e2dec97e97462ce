"""A shard becomes rows and a closing row, whatever it holds and whatever happens to it."""

import hashlib
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.readers import ReaderConfig, read_shard
from pipelines.rows import SOURCE_ROW, Closing
from pipelines.samples import SampleConfig
from pipelines.shards import Shard, expand_inputs
from pipelines.sidecar import SidecarConfig
from pipelines.storage import StorageOptions
from pipelines.tar import TarConfig
from tests.pipelines.tars import (
    BLOCK,
    END,
    data_at,
    gz,
    header_at,
    make_shard,
    make_tar,
    raw_header,
    raw_member,
    tiny_jpeg,
)
from tests.servers import S3_ENVIRONMENT, Fault, FaultyProxy, S3Server, faulty_proxy, s3_server

QUICK = StorageOptions(
    connect_timeout_s=2, read_timeout_s=1.0, request_timeout_s=2.0, max_attempts=3, block_bytes=2**16
)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    pytest.importorskip("s3fs")
    with s3_server() as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(s3.endpoint) as proxy:
        yield proxy


def rows_of(
    shard: Shard, config: ReaderConfig | None = None, options: StorageOptions | None = None
) -> tuple[list[dict[str, Any]], Closing]:
    """Image rows and the closing row, after checking what every shard must hold to."""
    tables = list(read_shard(shard, config, options))
    assert all(table.schema == SOURCE_ROW for table in tables)
    *rows, last = pa.concat_tables(tables).to_pylist()
    closing = Closing.from_json(last["closing"])
    assert [row["index"] for row in [*rows, last]] == list(range(closing.num_rows + 1))
    assert {row["shard"] for row in [*rows, last]} == {shard.id}
    for row in rows:
        assert row["closing"] is None
        failed = row["error_code"] is not None
        assert (
            (row["image"] is None) == failed == (row["error_stage"] == "read") == bool(row["error_message"])
        )
        assert failed or row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
        assert row["key"].isprintable() or not failed
    return rows, closing


def read(
    folder: Path, archive: bytes, config: ReaderConfig | None = None, name: str = "s.tar"
) -> tuple[list[dict[str, Any]], Closing]:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(archive)
    (shard,) = expand_inputs([str(folder / name)])
    return rows_of(shard, config)


def codes(rows: list[dict[str, Any]]) -> list[tuple[str, str | None]]:
    return [(row["key"], row["error_code"]) for row in rows]


class TestWhole:
    def test_rows_and_closing(self, tmp_path: Path) -> None:
        archive = make_shard(150)
        rows, closing = read(tmp_path, archive)
        assert [row["key"] for row in rows] == [f"{n:06d}" for n in range(150)]
        assert [row["image"] for row in rows] == [tiny_jpeg(n) for n in range(150)]
        assert rows[7]["caption_short"] == "number 7"
        assert rows[7]["license"] == "cc0"
        assert json.loads(rows[7]["sidecar"]) == {"caption": "number 7", "license": "cc0"}
        assert all(row["notes"] == [] and row["error_code"] is None for row in rows)
        assert closing == Closing(
            num_rows=150, complete=True, sha256=hashlib.sha256(archive).hexdigest(), num_bytes=len(archive)
        )

    def test_tables_stay_small(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(make_shard(150))
        (shard,) = expand_inputs([str(tmp_path)])
        assert [t.num_rows for t in read_shard(shard)] == [64, 64, 23]
        assert [t.num_rows for t in read_shard(shard, ReaderConfig(rows_per_table=100))] == [100, 51]
        assert len(list(read_shard(shard, ReaderConfig(bytes_per_table=1)))) == 151

    def test_reading_twice_gives_equal_tables(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(make_shard(100))
        (shard,) = expand_inputs([str(tmp_path)])
        assert list(read_shard(shard)) == list(read_shard(shard))

    def test_input_17_gzip_named_tar(self, tmp_path: Path) -> None:
        plain, _ = read(tmp_path, make_shard(30))
        packed, closing = read(tmp_path, gz(make_shard(30)))
        drop = ("shard", "index")
        assert [{k: v for k, v in r.items() if k not in drop} for r in packed] == [
            {k: v for k, v in r.items() if k not in drop} for r in plain
        ]
        assert closing.complete

    def test_memory_does_not_grow_with_the_shard(self, tmp_path: Path) -> None:
        config = ReaderConfig(bytes_per_table=2**20, samples=SampleConfig(window_bytes=2**20))
        (tmp_path / "s.tar").write_bytes(
            make_tar((f"{n:04d}.jpg", bytes(2**18)) for n in range(200))
        )  # 50 MiB
        (shard,) = expand_inputs([str(tmp_path)])
        tracemalloc.start()
        for _ in read_shard(shard, config):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * 2**20


class TestBadArchives:
    def test_input_14_hostile_names(self, tmp_path: Path) -> None:
        archive = (
            b"".join(
                raw_member(name, tiny_jpeg())
                for name in (b"../../etc/x.jpg", b"/abs/y.jpg", b"a\nb\x1b[31m.jpg", "\u202egnp.jpg".encode())
            )
            + raw_member(b"L", b"nul\0evil.jpg\0", flag=b"L")
            + raw_member(b"short.jpg", tiny_jpeg())
            + raw_member(b"fine.jpg", tiny_jpeg())
            + END
        )
        before = sorted(tmp_path.rglob("*"))
        rows, closing = read(tmp_path / "in", archive)
        assert codes(rows) == [
            ("../../etc/x.jpg", "E_NAME"),
            ("/abs/y.jpg", "E_NAME"),
            ("a\\nb\\x1b[31m.jpg", "E_NAME"),
            ("\\u202egnp.jpg", "E_NAME"),
            ("nul\\x00evil.jpg", "E_NAME"),
            ("fine", None),
        ]
        assert closing.complete
        assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "in", tmp_path / "in/s.tar"])

    def test_input_15_members_that_are_no_files(self, tmp_path: Path) -> None:
        members: list[tuple[str | tarfile.TarInfo, bytes]] = [("a.jpg", tiny_jpeg())]
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            members.append((info, b""))
        rows, closing = read(tmp_path, make_tar([*members, ("b.jpg", tiny_jpeg())]))
        assert codes(rows) == [("a", None), ("b", None)]
        assert closing.ignored == {"symlink": 1, "hard_link": 1, "fifo": 1, "device": 1, "directory": 1}

    def test_input_16_sizes_that_lie(self, tmp_path: Path) -> None:
        whole = raw_member(b"a.jpg", tiny_jpeg())
        huge = raw_header(b"x.jpg", b"\x80" + (8 * 2**30).to_bytes(11, "big")) + b"x" * 1024
        rows, closing = read(tmp_path, whole + huge)
        assert codes(rows) == [("a", None), ("x", "E_MEMBER_TOO_LARGE")]
        assert (closing.complete, closing.damage_code) == (False, "E_TRUNCATED_ARCHIVE")
        negative = raw_header(b"x.jpg", b"\xff" * 12)
        rows, closing = read(tmp_path, whole + negative + END)
        assert codes(rows) == [("a", None)]
        assert (closing.complete, closing.damage_code) == (False, "E_BAD_HEADER")

    def test_input_16_a_large_member_costs_its_own_row(self, tmp_path: Path) -> None:
        config = ReaderConfig(tar=TarConfig(max_member_bytes=2000))
        rows, closing = read(
            tmp_path,
            make_tar([("a.jpg", tiny_jpeg()), ("b.jpg", b"x" * 2001), ("c.jpg", tiny_jpeg())]),
            config,
        )
        assert codes(rows) == [("a", None), ("b", "E_MEMBER_TOO_LARGE"), ("c", None)]
        assert closing.complete

    def test_input_17_truncated_tar(self, tmp_path: Path) -> None:
        archive = make_shard(50)
        rows, closing = read(tmp_path, archive[: data_at(archive, 50) + 10])
        assert codes(rows) == [(f"{n:06d}", None) for n in range(25)] + [("000025", "E_TRUNCATED_ARCHIVE")]
        assert (closing.complete, closing.damage_code) == (False, "E_TRUNCATED_ARCHIVE")
        assert closing.failed_code == ""
        assert "000025.jpg" in closing.damage

    @pytest.mark.parametrize(
        ("name", "code", "num_rows"),
        [
            ("between", "E_NO_END", 25),
            ("header", "E_TRUNCATED_ARCHIVE", 25),
            ("flipped", "E_BAD_HEADER", 25),
            ("zeros", "E_ZERO_HEADER", 25),
            ("no_end", "E_NO_END", 50),
            ("garbage", "E_TRAILING_DATA", 50),
            ("empty_file", "E_EMPTY_ARCHIVE", 0),
            ("html", "E_BAD_HEADER", 0),
        ],
    )
    def test_input_17_damage_closes_the_shard_as_incomplete(
        self, tmp_path: Path, name: str, code: str, num_rows: int
    ) -> None:
        archive = make_shard(50)
        at, end = header_at(archive, 50), data_at(archive, 99) + BLOCK
        damaged = {
            "between": archive[:at],
            "header": archive[: at + 9],
            "flipped": archive[: at + 3] + bytes([archive[at + 3] ^ 1]) + archive[at + 4 :],
            "zeros": archive[:at] + bytes(BLOCK) + archive[at + BLOCK :],
            "no_end": archive[:end],
            "garbage": archive + b"garbage",
            "empty_file": b"",
            "html": b"<html>404</html>" * 100,
        }[name]
        rows, closing = read(tmp_path, damaged)
        assert codes(rows) == [(f"{n:06d}", None) for n in range(num_rows)]
        assert (closing.complete, closing.damage_code, closing.failed_code) == (False, code, "")
        assert closing.num_bytes == len(damaged)
        last_notes = rows[-1]["notes"] if rows else []
        assert last_notes == (["N_BEFORE_DAMAGE"] if rows else [])

    def test_input_17_an_archive_without_members(self, tmp_path: Path) -> None:
        rows, closing = read(tmp_path, make_tar([]))
        assert (rows, closing.complete, closing.num_rows) == ([], True, 0)

    def test_input_18_interleaved_keys(self, tmp_path: Path) -> None:
        members = [(f"{n}.jpg", tiny_jpeg(n)) for n in range(2)]
        members += [(f"{n}.json", json.dumps({"caption": f"c{n}"}).encode()) for n in range(2)]
        rows, closing = read(tmp_path, make_tar(members))
        assert [(r["key"], r["caption_short"], r["notes"]) for r in rows] == [
            ("0", "c0", ["N_INTERLEAVED"]),
            ("1", "c1", ["N_INTERLEAVED"]),
        ]
        assert closing.complete

    def test_input_19_a_key_twice(self, tmp_path: Path) -> None:
        names = ["a.jpg", "b.jpg", "a.jpg", "c.jpg"]
        rows, _ = read(tmp_path, make_tar((name, tiny_jpeg(n)) for n, name in enumerate(names)))
        assert codes(rows) == [("a", None), ("b", None), ("a", "E_DUPLICATE_KEY"), ("c", None)]
        assert rows[0]["image"] == tiny_jpeg(0)

    def test_input_19_one_key_in_two_shards_and_one_image_under_two_keys(self, tmp_path: Path) -> None:
        for name in ("s-0.tar", "s-1.tar"):
            (tmp_path / name).write_bytes(make_tar([("a.jpg", tiny_jpeg()), ("b.jpg", tiny_jpeg())]))
        found = [rows_of(shard)[0] for shard in expand_inputs([str(tmp_path)])]
        assert [codes(rows) for rows in found] == [[("a", None), ("b", None)]] * 2
        assert len({(row["shard"], row["index"]) for rows in found for row in rows}) == 4
        assert len({row["sha256"] for rows in found for row in rows}) == 1

    def test_input_20_odd_keys(self, tmp_path: Path) -> None:
        names = ["a.b.c", "with space", "x%2Fy", "😀", "é", "e\u0301", "X", "x", "d.e/f"]
        rows, _ = read(tmp_path, make_tar((f"{name}.jpg", tiny_jpeg()) for name in names))
        assert [row["key"] for row in rows] == ["a", *names[1:]]
        assert [row["notes"] for row in rows if row["notes"]] == [["N_KEY_NOT_NFC"]]
        long = "n" * 300
        rows, closing = read(tmp_path, make_tar([(f"{long}.jpg", tiny_jpeg()), ("ok.jpg", tiny_jpeg())]))
        assert [row["error_code"] for row in rows] == ["E_NAME", None]
        assert closing.complete

    def test_input_21_pickles_do_not_run(self, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        payload = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
        members = [(f"a.{e}", payload) for e in ("pkl", "pyd", "pt", "pth", "npy", "pickle")]
        rows, closing = read(tmp_path, make_tar([("a.jpg", tiny_jpeg()), *members]))
        assert codes(rows) == [("a", None)]
        assert closing.ignored == {"pickle": 6}
        assert not canary.exists()

    def test_input_22_bad_sidecars_leave_their_images(self, tmp_path: Path) -> None:
        sidecars = {
            "large": b'{"a": "' + b"x" * 1_000_001 + b'"}',
            "deep": b"[" * 10_000 + b"]" * 10_000,
            "twice": b'{"a": 1, "a": 2}',
            "nan": b'{"a": NaN}',
            "utf8": b'{"a": "\xff"}',
            "list": b'[{"caption": "x"}]',
        }
        members = [
            m for key, data in sidecars.items() for m in ((f"{key}.jpg", tiny_jpeg()), (f"{key}.json", data))
        ]
        rows, closing = read(tmp_path, make_tar(members))
        assert {row["key"]: row["notes"] for row in rows} == {
            "large": ["E_SIDECAR:too_large"],
            "deep": ["E_SIDECAR:too_deep"],
            "twice": ["E_SIDECAR:duplicate_keys"],
            "nan": ["E_SIDECAR:nan"],
            "utf8": ["E_SIDECAR:invalid_utf8"],
            "list": ["E_SIDECAR:not_an_object"],
        }
        assert all(row["sidecar"] is None and row["error_code"] is None for row in rows)
        assert closing.complete

    def test_a_broken_middle_never_shortens_a_run_without_a_word(self, tmp_path: Path) -> None:
        """Whatever single byte breaks, either all images come whole or the closing row says that something
        is wrong.
        """
        archive = make_shard(4)
        whole = [tiny_jpeg(n) for n in range(4)]
        for at in range(0, len(archive), 97):
            damaged = bytearray(archive)
            damaged[at] ^= 0x55
            rows, closing = read(tmp_path, bytes(damaged))
            assert not closing.complete or len(rows) == 4
            assert sum(row["image"] in whole for row in rows) >= len(rows) - 1
            assert closing.failed_code == ""


class TestFolders:
    def test_rows(self, tmp_path: Path) -> None:
        (tmp_path / "in/sub").mkdir(parents=True)
        (tmp_path / "in/Bild 2024.01.02.JPG").write_bytes(tiny_jpeg(1))
        (tmp_path / "in/Bild 2024.01.02.json").write_text('{"caption": "Tag zwei"}')
        (tmp_path / "in/Bild 2024.01.03.jpg").write_bytes(tiny_jpeg(2))
        (tmp_path / "in/sub/a.png").write_bytes(b"")
        (tmp_path / "in/sub/notes.txt").write_text("nothing")
        (tmp_path / "in/sub/link.jpg").symlink_to(tmp_path / "in/Bild 2024.01.03.jpg")
        (tmp_path / "in/x.pkl").write_bytes(b"")
        (shard,) = expand_inputs([str(tmp_path / "in")])
        rows, closing = rows_of(shard)
        assert [(r["key"], r["caption_short"], r["image"]) for r in rows] == [
            ("Bild 2024.01.02", "Tag zwei", tiny_jpeg(1)),
            ("Bild 2024.01.03", None, tiny_jpeg(2)),
            ("sub/a", None, b""),
        ]
        assert closing.ignored == {"orphan_sidecar": 1, "pickle": 1, "symlink": 1}
        assert (closing.complete, closing.sha256, closing.num_bytes) == (True, "", shard.size)

    def test_names_that_are_no_text(self, tmp_path: Path) -> None:
        path = os.fsencode(tmp_path) + b"/\xff\n.jpg"
        try:
            with open(path, "wb") as stream:
                stream.write(tiny_jpeg())
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        (shard,) = expand_inputs([str(tmp_path)])
        rows, closing = rows_of(shard)
        assert codes(rows) == [("\\xff\\n.jpg", "E_NAME")]
        assert closing.complete

    def test_a_large_file_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"x" * 5000)
        (shard,) = expand_inputs([str(tmp_path)])
        rows, _ = rows_of(shard, ReaderConfig(tar=TarConfig(max_member_bytes=4999)))
        assert codes(rows) == [("a", "E_MEMBER_TOO_LARGE")]

    @pytest.mark.parametrize(
        ("change", "code"),
        [("touch", "E_SHARD_CHANGED"), ("grow", "E_SHARD_CHANGED"), ("delete", "E_STORAGE")],
    )
    def test_input_26_a_file_that_changes_fails_the_shard(
        self, tmp_path: Path, change: str, code: str
    ) -> None:
        for n in range(3):
            (tmp_path / f"{n}.jpg").write_bytes(tiny_jpeg(n))
        (shard,) = expand_inputs([str(tmp_path)])
        if change == "touch":
            os.utime(tmp_path / "1.jpg", ns=(1, 1))
        elif change == "grow":
            (tmp_path / "1.jpg").write_bytes(b"longer" * 1000)
        else:
            (tmp_path / "1.jpg").unlink()
        _, closing = rows_of(shard)
        assert (closing.complete, closing.failed_code) == (False, code)


class TestReplaced:
    def test_input_26_before_it_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(make_shard(3))
        (shard,) = expand_inputs([str(tmp_path)])
        (tmp_path / "s.tar").write_bytes(make_shard(3, first=7))
        rows, closing = rows_of(shard)
        assert (rows, closing.complete, closing.failed_code) == ([], False, "E_SHARD_CHANGED")
        assert "is not the file that was listed" in closing.failed

    def test_input_26_while_it_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "s.tar").write_bytes(make_shard(200))
        (shard,) = expand_inputs([str(tmp_path)])
        tables = read_shard(shard)
        next(tables)
        (tmp_path / "new").write_bytes(make_shard(200, first=500))
        os.replace(tmp_path / "new", tmp_path / "s.tar")
        closing = Closing.from_json(list(tables)[-1].to_pylist()[-1]["closing"])
        assert (closing.complete, closing.failed_code) == (False, "E_SHARD_CHANGED")

    def test_input_26_on_s3_while_it_is_read(self, s3: S3Server) -> None:
        client, url = s3.client(), s3.make_bucket("replaced")
        options = replace(QUICK, s3_endpoint=s3.endpoint)
        client.put_object(Bucket="replaced", Key="s.tar", Body=make_shard(200))
        (shard,) = expand_inputs([f"{url}/s.tar"], options)
        tables = read_shard(
            shard, ReaderConfig(rows_per_table=4, samples=SampleConfig(window_samples=2)), options
        )
        next(tables)
        client.put_object(Bucket="replaced", Key="s.tar", Body=make_shard(200, first=500))
        rest = pa.concat_tables(list(tables)).to_pylist()
        closing = Closing.from_json(rest[-1]["closing"])
        assert closing.failed_code == "E_SHARD_CHANGED"
        new = {tiny_jpeg(n) for n in range(500, 700)}
        assert not new & {row["image"] for row in rest}


class TestStorageFaults:
    def shard(self, s3: S3Server, proxy: FaultyProxy) -> tuple[Shard, StorageOptions]:
        options = replace(QUICK, s3_endpoint=proxy.endpoint)
        url = s3.make_bucket("shards")
        s3.client().put_object(Bucket="shards", Key="s.tar", Body=make_shard(60))
        (shard,) = expand_inputs([f"{url}/s.tar"], options)
        return shard, options

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("status", times=2, status=503),
            Fault("status", times=2, status=500),
            Fault("cut", times=1, at=20_000),
            Fault("cut", times=2, at=10),
            Fault("stall", times=1, at=30_000, seconds=4),
        ],
        ids=["503", "500", "cut", "cut twice", "slow"],
    )
    def test_input_28_faults_that_pass_change_nothing(
        self, s3: S3Server, proxy: FaultyProxy, fault: Fault
    ) -> None:
        shard, options = self.shard(s3, proxy)
        expected = list(read_shard(shard, None, options))
        proxy.faults.append(replace(fault))
        assert list(read_shard(shard, None, options)) == expected
        assert proxy.faults[0].times == 0

    @pytest.mark.parametrize("status", [403, 404, 503])
    def test_input_28_faults_that_stay_close_the_shard_as_failed(
        self, s3: S3Server, proxy: FaultyProxy, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        shard, options = self.shard(s3, proxy)
        proxy.faults.append(Fault("status", times=10_000, status=status))
        with caplog.at_level("DEBUG"):
            rows, closing = rows_of(shard, None, options)
        assert (rows, closing.complete, closing.failed_code) == ([], False, "E_STORAGE")
        assert 10_000 - proxy.faults[0].times <= options.max_attempts
        told = closing.to_json() + " ".join(
            record.getMessage() for record in caplog.records if record.name.startswith("pipelines")
        )
        assert S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in told
        assert S3_ENVIRONMENT["AWS_ACCESS_KEY_ID"] not in told
        assert "Signature=abc123" not in told

    def test_input_28_a_server_that_falls_silent_midway(self, s3: S3Server, proxy: FaultyProxy) -> None:
        shard, options = self.shard(s3, proxy)
        config = ReaderConfig(rows_per_table=4, samples=SampleConfig(window_samples=2))
        tables = read_shard(shard, config, options)
        first = next(tables)
        proxy.faults.append(Fault("status", times=10_000, status=503))
        *_, last = tables
        closing = Closing.from_json(last.to_pylist()[-1]["closing"])
        assert first.num_rows == 4
        assert closing.failed_code == "E_STORAGE"
        assert "503" in closing.failed

    def test_a_folder_on_s3(self, s3: S3Server) -> None:
        client, url = s3.client(), s3.make_bucket("photos")
        for n in range(3):
            client.put_object(Bucket="photos", Key=f"in/{n}.jpg", Body=tiny_jpeg(n))
        client.put_object(Bucket="photos", Key="in/2.json", Body=b'{"caption": "two"}')
        options = replace(QUICK, s3_endpoint=s3.endpoint)
        (shard,) = expand_inputs([f"{url}/in"], options)
        rows, closing = rows_of(shard, None, options)
        assert [(row["key"], row["caption_short"]) for row in rows] == [
            ("0", None),
            ("1", None),
            ("2", "two"),
        ]
        assert closing.complete


def test_equals_tarfile_on_images(tmp_path: Path) -> None:
    """A second opinion on which bytes belong to which key."""
    archive = make_shard(30)
    rows, _ = read(tmp_path, archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        expected = {
            m.name[:-4]: reader.extractfile(m).read()  # type: ignore[union-attr]
            for m in reader.getmembers()
            if m.name.endswith(".jpg")
        }
    assert {row["key"]: row["image"] for row in rows} == expected


def test_sidecar_fields_are_the_recipe_s(tmp_path: Path) -> None:
    archive = make_tar([("a.jpg", tiny_jpeg()), ("a.json", b'{"rights": "PD", "license": "no"}')])
    rows, _ = read(tmp_path, archive, ReaderConfig(sidecar=SidecarConfig(license_fields=("rights",))))
    assert rows[0]["license"] == "PD"
