"""Bad inputs through the whole job: what is bad costs itself alone, has a code, and the run says how it ended.

Each case packs its bad entries between good ones. The numbers are those of a list of thirty inputs that
labelling tools are known to stumble over; decoder and reader have finer tests of their own.
"""

import io
import json
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from jobs.progress import exit_code_of_summary
from ovsops.errors import StorageError
from pipelines.label import LabelJob, run_label
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from tests.servers import Fault, faulty_proxy, s3_server
from tests.tiny import images as draw
from tests.tiny.segmenters import CLASSES, ColourFactory
from tests.tiny.shards import draw_image, encode, write_shards, write_tar

ROOT = Path(__file__).parents[2]
GOOD = encode(draw_image(1))

Members = list[tuple[str, bytes]]


def job_on(patterns: list[str], out: str, storage: StorageOptions | None = None, **changes: Any) -> LabelJob:
    storage = storage or StorageOptions()
    fields: dict[str, Any] = {
        "output": out,
        "shards": tuple(expand_inputs(patterns, storage)),
        "annotator": ColourFactory(),
        "segmenter_name": "colour",
        "classes": CLASSES,
        "manifest": {"schema_version": SCHEMA_VERSION, "recipe": {}},
        "batch": BatchConfig(max_images=4, decode_workers=1, decode_timeout_s=10.0),
        "limits": Limits(max_failed_share=0.0),
        "storage": storage,
    }
    return LabelJob(**fields | changes)


def label(job: LabelJob, run: str = "test") -> dict[str, Any]:
    return run_label(job, InlineEngine(job.storage), run=run)


@dataclass
class Case:
    """Entries of one shard and what must become of them."""

    number: int
    entries: Callable[[], Members]
    codes: dict[str, str] = field(default_factory=dict)
    """Error code by key of the rows that fail."""
    notes: dict[str, str] = field(default_factory=dict)
    """Start of a note by key of rows that are labelled all the same."""
    labelled: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)


def one(name: str, data: Callable[[], bytes]) -> Callable[[], Members]:
    return lambda: [(name, data())]


def cut(share: float) -> Callable[[], bytes]:
    return lambda: GOOD[: int(len(GOOD) * share)]


def impostor_entries() -> Members:
    return [(f"m{i}.jpg", data) for i, data in enumerate(draw.impostors().values())]


def orientation_entries() -> Members:
    return [(f"m{turn}.jpg", draw.with_exif(GOOD, draw.exif_block(turn))) for turn in range(10)]


CASES = {
    "1-empty": Case(1, one("m.jpg", bytes), codes={"m": "E_EMPTY"}),
    "2-cut-at-half": Case(2, one("m.jpg", cut(0.5)), codes={"m": "E_TRUNCATED"}),
    "2-cut-at-99": Case(2, one("m.jpg", cut(0.99)), codes={"m": "E_TRUNCATED"}),
    "3-bomb": Case(3, one("m.png", draw.png_bomb), codes={"m": "E_TOO_LARGE"}),
    "4-absurd-side": Case(
        4, one("m.png", lambda: draw.png_bomb(1, 2_000_000_000)), codes={"m": "E_TOO_LARGE"}
    ),
    "4-zero-side": Case(4, one("m.png", lambda: draw.png_bomb(0, 10)), codes={"m": "E_BAD_HEADER"}),
    "5-inflating-text": Case(5, one("m.png", draw.png_text_bomb), labelled=("m",)),
    "6-impostors": Case(
        6, impostor_entries, codes={f"m{i}": "E_MAGIC" for i in range(len(draw.impostors()))}
    ),
    "7-polyglot": Case(7, one("m.jpg", lambda: GOOD + b"PK\3\4zip"), notes={"m": "N_TRAILING_DATA:7"}),
    "7-second-jpeg": Case(7, one("m.jpg", lambda: GOOD + GOOD), notes={"m": f"N_TRAILING_DATA:{len(GOOD)}"}),
    "8-many-scans": Case(
        8, one("m.jpg", lambda: draw.jpeg_of_many_scans(3000)), codes={"m": "E_TOO_COMPLEX"}
    ),
    "9-animation": Case(9, one("m.png", lambda: draw.apng_of_many(10_000)), labelled=("m",)),
    "10-cmyk": Case(
        10,
        one("m.jpg", lambda: draw.encode(draw.Image.fromarray(draw_image(1)).convert("CMYK"))),
        notes={"m": "N_CMYK"},
    ),
    "11-turns": Case(11, orientation_entries, labelled=tuple(f"m{turn}" for turn in range(10))),
    "13-tiny-and-thin": Case(
        13,
        lambda: [
            ("m1.png", draw.encode(np.full((1, 1, 3), 200, np.uint8), "PNG")),
            ("m2.png", draw.encode(np.full((13, 13, 3), 200, np.uint8), "PNG")),
            ("m3.png", draw.encode(np.full((100, 16_000, 3), 200, np.uint8), "PNG")),
        ],
        labelled=("m1", "m2", "m3"),
    ),
    "13-too-long": Case(
        13,
        one("m.png", lambda: draw.encode(np.full((100, 20_000, 3), 200, np.uint8), "PNG")),
        codes={"m": "E_TOO_LARGE"},
    ),
    "18-interleaved": Case(
        18,
        lambda: [("m0.jpg", GOOD), ("m1.jpg", GOOD), ("m0.json", b"{}"), ("m1.json", b"{}")],
        notes={"m0": "N_INTERLEAVED", "m1": "N_INTERLEAVED"},
    ),
    "20-odd-keys": Case(
        20,
        lambda: [(f"{key}.jpg", GOOD) for key in ("m space", "m%2F", "m\U0001f600", "m\u00e9", "me\u0301")],
        labelled=("m space", "m%2F", "m\U0001f600", "m\u00e9"),
        notes={"me\u0301": "N_KEY_NOT_NFC"},
    ),
    "21-pickles": Case(
        21,
        lambda: [
            ("m.jpg", GOOD),
            ("m.pkl", b"cos\nsystem\n(S'touch canary'\ntR."),
            ("m.pt", b"x"),
            ("m.npy", b"y"),
        ],
        labelled=("m",),
        ignored={"pickle": 3},
    ),
    "22-bad-sidecars": Case(
        22,
        lambda: [
            *[("m1.jpg", GOOD), ("m1.json", b'{"a": 1, "a": 2}')],
            *[("m2.jpg", GOOD), ("m2.json", b"[" * 10_000)],
            *[("m3.jpg", GOOD), ("m3.json", b'{"a": NaN}')],
            *[("m4.jpg", GOOD), ("m4.json", b"\xff\xfe")],
            *[("m5.jpg", GOOD), ("m5.json", b'[{"a": 1}]')],
        ],
        notes={f"m{i}": "E_SIDECAR" for i in range(1, 6)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_input(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    members = [("good-a.jpg", GOOD), *case.entries(), ("zood-z.jpg", GOOD)]
    write_tar(tmp_path / "in.tar", members)
    summary = label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "out")))
    images = pd.read_parquet(tmp_path / "out" / "images")
    rows = {row.key: row for row in images.itertuples()}
    assert len(rows) == len(images)
    expected = {"good-a", "zood-z", *case.codes, *case.notes, *case.labelled}
    assert set(rows) == expected
    for key, row in rows.items():
        assert (None if pd.isna(row.error_code) else row.error_code) == case.codes.get(key), key
        assert row.status == ("failed" if key in case.codes else "labelled")
        if key in case.notes:
            assert any(note.startswith(case.notes[key]) for note in row.notes), (key, list(row.notes))
    assert summary["state"] == "done"
    assert exit_code_of_summary(summary) == (3 if case.codes else 0)
    assert summary["images"]["invariant_holds"]
    for reason, count in case.ignored.items():
        assert summary["ignored_members"][reason] == count
    assert not Path("canary").exists()


def test_input_9_frames_are_counted_and_11_turns_are_recorded(tmp_path: Path) -> None:
    members = [("anim.png", draw.apng_of_many(10_000))]
    members += [(f"t{turn}.jpg", draw.with_exif(GOOD, draw.exif_block(turn))) for turn in (1, 6, 9)]
    write_tar(tmp_path / "in.tar", members)
    label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "out")))
    rows = pd.read_parquet(tmp_path / "out" / "images").set_index("key")
    assert rows.num_frames["anim"] == 10_000
    assert list(rows.exif_orientation[["t1", "t6", "t9"]]) == [1, 6, 1]
    assert (rows.width["t1"], rows.height["t1"]) == (rows.height["t6"], rows.width["t6"])


def test_input_12_places_and_thumbnails_do_not_reach_the_output(tmp_path: Path) -> None:
    secret = b"SECRET-PLACE"
    data = draw.with_exif(GOOD, b"Exif\0\0II*\0\x08\0\0\0\0\0" + secret)
    write_tar(tmp_path / "in.tar", [("m.jpg", data)])
    label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "out")))
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file() and secret in p.read_bytes()]


@pytest.mark.parametrize(
    "name",
    ["../../etc/x.jpg", "/abs/x.jpg", "a\nb.jpg", "\x1b[31mred.jpg", "\u202egpj.x.jpg", "n" * 300 + ".jpg"],
)
def test_input_14_hostile_names_are_rows_with_a_safe_key(name: str, tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", [("good.jpg", GOOD), (name, GOOD), ("z.jpg", GOOD)])
    summary = label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "out")))
    images = pd.read_parquet(tmp_path / "out" / "images")
    bad = images[images.error_code == "E_NAME"]
    assert len(bad) == 1
    assert (images.status == "labelled").sum() == 2
    assert bad.key.iloc[0].isprintable()
    assert len(bad.key.iloc[0]) <= 300
    assert exit_code_of_summary(summary) == 3


def test_input_15_links_and_devices_are_ignored_and_counted(tmp_path: Path) -> None:
    kinds = {b"1": "hard_link", b"2": "symlink", b"3": "device", b"6": "fifo"}
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for kind in kinds:
            info = tarfile.TarInfo(f"x{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("good.jpg")
        info.size = len(GOOD)
        tar.addfile(info, io.BytesIO(GOOD))
    summary = label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "out")))
    assert summary["images"]["read"] == summary["images"]["labelled"] == 1
    assert sum(summary["ignored_members"].values()) == 4
    assert exit_code_of_summary(summary) == 0


def test_input_16_a_member_that_claims_8_gib_ends_the_shard_as_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in.tar", [("good.jpg", GOOD)])
    info = tarfile.TarInfo("huge.jpg")
    info.size = 8 * 2**30
    whole = path.read_bytes()[: 512 + (len(GOOD) + 511) // 512 * 512]
    path.write_bytes(whole + info.tobuf(tarfile.GNU_FORMAT) + b"only a few bytes")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = label(job_on([str(path)], str(tmp_path / "out")))
    rows = pd.read_parquet(tmp_path / "out" / "images").set_index("key")
    assert rows.status["good"] == "labelled"
    assert rows.status["huge"] == "failed"
    assert list(summary["shards"]["damaged"]) == ["in.tar"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


@pytest.mark.parametrize("damage", ["cut", "no-end", "garbage", "gzip-named-tar", "empty"])
def test_input_17_damaged_archives_keep_what_could_be_read(damage: str, tmp_path: Path) -> None:
    import gzip

    path = write_tar(tmp_path / "in.tar", [("a.jpg", GOOD), ("b.jpg", GOOD), ("c.jpg", GOOD)])
    data = path.read_bytes()
    member = 512 + (len(GOOD) + 511) // 512 * 512
    changed = {
        "cut": data[: 2 * member + 700],
        "no-end": data[: 3 * member],
        "garbage": data + b"garbage" * 100,
        "gzip-named-tar": gzip.compress(data),
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    summary = label(job_on([str(path)], str(tmp_path / "out")))
    labelled = {"cut": 2, "no-end": 3, "garbage": 3, "gzip-named-tar": 3, "empty": 0}
    assert summary["images"]["labelled"] == labelled[damage]
    assert summary["images"]["invariant_holds"]
    is_damaged = damage != "gzip-named-tar"
    assert bool(summary["shards"]["damaged"]) == is_damaged
    assert exit_code_of_summary(summary) == (3 if is_damaged else 0)


def test_input_19_same_keys_and_same_bytes_overwrite_nothing(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "in" / "one.tar", [("k.jpg", GOOD), ("k.jpg", encode(draw_image(5))), ("l.jpg", GOOD)]
    )
    write_tar(tmp_path / "in" / "two.tar", [("k.jpg", GOOD)])
    label(job_on([str(tmp_path / "in" / "*.tar")], str(tmp_path / "out")))
    images = pd.read_parquet(tmp_path / "out" / "images")
    assert len(images) == images.image_uid.nunique() == 4
    assert list(images.error_code.dropna()) == ["E_DUPLICATE_KEY"]
    assert (images.status == "labelled").sum() == 3


def test_input_26_a_shard_replaced_while_it_is_read_fails_and_is_not_mixed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in" / "a.tar", [(f"{i:03}.jpg", encode(draw_image(i))) for i in range(9)])
    write_tar(tmp_path / "in" / "b.tar", [("good.jpg", GOOD)])

    class Replacing(ColourFactory):
        def segment(self, images):
            if images[0].shape[1] == 64 and not (tmp_path / "replaced").exists():
                (tmp_path / "replaced").touch()
                fresh = write_tar(tmp_path / "fresh.tar", [("other.jpg", GOOD)])
                fresh.rename(path)
            return super().segment(images)

    from pipelines.readers import ReaderConfig

    job = job_on(
        [str(tmp_path / "in" / "*.tar")],
        str(tmp_path / "out"),
        annotator=Replacing(),
        reader=ReaderConfig(rows_per_table=2),
    )
    summary = label(job)
    assert summary["shards"]["failed"]["a.tar"].startswith("E_SHARD_CHANGED")
    assert summary["shards"]["committed"] == 1
    assert exit_code_of_summary(summary) == 3
    again = label(job_on([str(tmp_path / "in" / "*.tar")], str(tmp_path / "out")), run="again")
    assert set(pd.read_parquet(tmp_path / "out" / "images").key) == {"other", "good"}
    assert exit_code_of_summary(again) == 0


def test_input_28_bursts_of_503_are_ridden_out_and_403_fails_the_shard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with s3_server() as server, faulty_proxy(server.endpoint) as proxy:
        url = server.make_bucket("in28")
        for name in ("a.tar", "b.tar"):
            data = write_tar(tmp_path / name, [("k.jpg", GOOD)]).read_bytes()
            server.client().put_object(Bucket="in28", Key=name, Body=data)
        options = StorageOptions(s3_endpoint=proxy.endpoint, read_timeout_s=5.0, max_attempts=5)
        job = job_on([f"{url}/*.tar"], str(tmp_path / "out"), options)
        proxy.faults.append(Fault("status", status=503, times=2, path="a.tar"))
        proxy.faults.append(Fault("status", status=403, times=50, path="b.tar"))
        summary = label(job)
        assert summary["images"]["labelled"] == 1
        assert list(summary["shards"]["failed"]) == ["b.tar"]
        assert exit_code_of_summary(summary) == 3
        proxy.faults.clear()
        again = label(job, run="again")
        assert again["images"]["labelled"] == 2
    said = caplog.text + json.dumps(summary)
    assert "ovsops-tests-secret" not in said
    assert "Signature" not in said


def test_input_29_a_full_disk_stops_the_run_and_the_next_one_completes_it(tmp_path: Path) -> None:
    write_shards(tmp_path / "in", num_shards=3, images_per_shard=30)
    arguments = json.dumps([str(tmp_path / "in" / "*.tar"), str(tmp_path / "out")])
    command = [sys.executable, "-m", "tests.small_disk_job", arguments]
    full = subprocess.run([*command, "4096"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "File too large" in full.stderr
    done = subprocess.run([*command, "0"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    images = pd.read_parquet(tmp_path / "out" / "images")
    assert len(images) == images.image_uid.nunique() == 90


def test_input_29_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "in.tar", [("k.jpg", GOOD)])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        label(job_on([str(tmp_path / "in.tar")], str(tmp_path / "file" / "out")))
