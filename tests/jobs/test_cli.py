"""Every verb and every exit code, on real checkpoints of the real architectures (tiny, untrained)."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from jobs import cli
from jobs.places import check_place
from ovsops.errors import CheckpointError, ConfigError, OutputError, StorageError
from pipelines.lock import OutputLock
from pipelines.schemas import SCHEMA_VERSION
from pipelines.storage import open_storage
from tests.tiny.shards import write_shards

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]

INLINE = ("--engine", "inline")


def summary(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def test_a_run_labels_everything_and_says_where_it_is(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    code, _, err = ovsops("run", write_recipe(), *INLINE)
    assert code == 0
    assert str(tmp_path / "out" / "images") in err.replace("\n", "")
    assert summary(tmp_path)["images"]["labelled"] == 6
    images = pd.read_parquet(tmp_path / "out" / "images")
    assert set(images.status) == {"labelled"}
    assert list(images.license) == ["CC0"] * 6
    instances = pd.read_parquet(tmp_path / "out" / "instances")
    assert set(instances.category_id) <= {1, 7}
    assert instances.segmenter.str.match(r"fused/corrected/[0-9a-f]{12}$").all()


def test_the_manifest_says_what_the_labels_were_made_with(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    ovsops("run", write_recipe(), *INLINE)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    assert {"python", "ovsops", "torch", "transformers", "ray"} <= manifest["versions"].keys()
    assert set(manifest["checkpoints"]) == {"siglip", "dino", "mapper"}
    assert all("sha256:" in identity for identity in manifest["checkpoints"].values())
    assert manifest["vocabulary"]["classes"][1]["id"] == 7
    assert manifest["recipe"]["segmenter"]["dino"].keys() == {"sha256"}
    assert len(manifest["recipe_hash"]) == 64
    assert "threshold" not in json.dumps(manifest["settings"])


def test_again_is_resume_from_any_folder_of_the_same_weights(
    write_recipe: Write, ovsops: Call, tmp_path: Path, checkpoints: Path
) -> None:
    recipe = write_recipe()
    assert ovsops("run", recipe, *INLINE)[0] == 0
    os.symlink(checkpoints / "dinov2", tmp_path / "moved")
    moved = ("--set", f"segmenter.dino.source={tmp_path / 'moved'}", "--set", "batch.max_images=2")
    assert ovsops("run", recipe, *INLINE, *moved)[0] == 0
    assert summary(tmp_path)["this_run"]["images"] == 0


def test_another_recipe_on_the_same_output_is_5_and_names_the_field(
    write_recipe: Write, ovsops: Call
) -> None:
    recipe = write_recipe()
    ovsops("run", recipe, *INLINE)
    code, _, err = ovsops("run", recipe, *INLINE, "--set", "segmenter.threshold=0.4")
    assert code == 5
    assert "segmenter.threshold: 0.3 -> 0.4" in err


def test_a_class_that_moves_is_5_and_named(write_recipe: Write, ovsops: Call) -> None:
    recipe = write_recipe()
    ovsops("run", recipe, *INLINE)
    code, _, err = ovsops("run", recipe, *INLINE, "--set", "vocabulary.classes=[{id: 1, name: wall}]")
    assert code == 5
    assert "append-only" in err
    assert "'wall' moved from id 7 to 1" in err


def test_a_locked_output_is_5(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    recipe = write_recipe()
    with OutputLock(open_storage(str(tmp_path / "out"))):
        code, _, err = ovsops("run", recipe, *INLINE)
    assert code == 5
    assert "used by process" in err


def test_over_the_limits_is_3_and_everything_else_is_labelled(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe(broken_every=3, limits={"max_failed_share": 0.2})
    code, _, err = ovsops("run", recipe, *INLINE)
    assert code == 3
    assert "2 of 6 images failed" in err.replace("\n", " ")
    assert summary(tmp_path)["failures_by_code"] == {"E_TRUNCATED": 2}
    assert summary(tmp_path)["images"]["labelled"] == 4


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--set", "segmenter.treshold=1"], 2, "did you mean 'threshold'"),
        (["--set", "segmenter.grid=big"], 2, "segmenter.grid"),
        (["--set", "input.shards=nothing/*.tar"], 2, "nothing/*.tar matches no file"),
        (["--set", "vocabulary=foto"], 2, "no built-in vocabulary"),
        (["--set", "languages=[zh]"], 2, "zh"),
        (["--set", "segmenter.dino.source=no/such"], 4, "no/such"),
        (["--set", f"segmenter.dino.sha256={'f' * 64}"], 4, "SHA-256"),
        (["--set", "segment_on.num_gpus=1"], 4, "--set segment_on.num_gpus=0"),
        (["--frobnicate"], 2, "--frobnicate"),
    ],
)
def test_what_cannot_run_ends_before_it_starts(
    write_recipe: Write, ovsops: Call, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    got, _, err = ovsops("run", write_recipe(), *INLINE, *words)
    assert (got, says in err) == (code, True), err
    assert "Traceback" not in err
    assert [p.name for p in tmp_path.glob("out/*")] == (["summary.json"] if code == 4 else [])


def test_a_start_that_fails_leaves_a_summary_that_says_why(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    code, _, _ = ovsops("run", write_recipe(), "--set", "segmenter.mapper.source=nowhere", *INLINE)
    assert code == 4
    assert summary(tmp_path)["state"] == "not started"
    assert "nowhere" in summary(tmp_path)["error"]
    code, _, err = ovsops("run", write_recipe(), *INLINE)
    assert code == 0, err
    assert summary(tmp_path)["state"] == "done"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("{}/file", "is a file"),
        ("{}/file/out", "is a file"),
        ("{}/file/deeper/out", "is a file"),
        ("/proc/nowhere/out", "no folder can be made in /proc"),
    ],
)
def test_an_output_that_cannot_be_made_is_2(
    write_recipe: Write, ovsops: Call, tmp_path: Path, output: str, says: str
) -> None:
    (tmp_path / "file").write_text("")
    recipe = write_recipe(output=output.format(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    for verb in (("run", *INLINE), ("run",), ("plan",))[: 2 if "no folder" in says else 3]:
        code, out, err = ovsops(verb[0], recipe, *verb[1:])
        assert (code, says in (out + err).replace("\n", " ")) == (2, True), err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_may_not_be_written_is_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    for refused, kind in (
        (errno.EROFS, ConfigError),
        (errno.EACCES, ConfigError),
        (errno.ENOSPC, StorageError),
    ):
        with pytest.raises(kind, match=os.strerror(refused)):
            check_place(str(tmp_path / "not" / "yet"))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ConfigError, match="not writable for you"):
        check_place(str(tmp_path / "out"))
    check_place("s3://bucket/out")


@pytest.mark.parametrize("words", [["nonsense"], ["run"], ["export", "x", "--to", "yolo", "--out", "y"]])
def test_usage_is_2(ovsops: Call, words: list[str]) -> None:
    assert ovsops(*words)[0] == 2


def test_help_is_0_and_loads_neither_ray_nor_torch() -> None:
    program = "import sys; sys.argv[1:] = ['--help']; from jobs.cli import main\ntry: main()\nexcept SystemExit as e: "
    program += "print(e.code, [m for m in ('ray', 'torch', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip().endswith("0 []")
    for verb in ("run", "plan", "status", "retry", "export", "overlay", "doctor", "schema"):
        assert verb in done.stdout


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (CheckpointError("x"), 4),
        (StorageError("x"), 4),
        (OutputError("x"), 5),
        (KeyboardInterrupt(), 130),
        (AssertionError("x"), 1),
        (ValueError("x"), 1),
    ],
)
def test_errors_have_codes(
    ovsops: Call, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "load", fail)
    got, _, err = ovsops("run", "recipe.yaml")
    assert got == code
    assert "Traceback" not in err
    assert ("internal error" in err) is (code == 1)
    if code != 130:
        assert "Traceback" in ovsops("run", "recipe.yaml", "--debug")[2]


def test_names_from_archives_do_not_reach_the_terminal_raw(
    ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConfigError("member a\x1b[31m\u202eb\nsecond line AKIAIOSFODNN7EXAMPLE")

    monkeypatch.setattr(cli, "load", fail)
    _, _, err = ovsops("run", "recipe.yaml")
    assert "\x1b" not in err
    assert "\u202e" not in err
    assert "AKIA" not in err
    assert "\nsecond line" in err


def test_print_config_runs_nothing_and_prints_a_recipe(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    code, out, _ = ovsops("run", write_recipe(), "--print-config", "--set", "segmenter.threshold=0.4")
    assert code == 0
    assert yaml.safe_load(out)["segmenter"]["threshold"] == 0.4
    assert not (tmp_path / "out").exists()


def test_plan_writes_nothing_and_names_what_would_fail(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe()
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = ovsops("plan", recipe)
    assert code == 0
    assert "2 shards" in out
    assert "6 images" in out
    assert "2 classes (1 thing), 2 prompts" in out
    assert sorted(tmp_path.rglob("*")) == before
    code, out, _ = ovsops("plan", recipe, "--set", "segment_on.num_gpus=1")
    assert code == 4
    assert "would fail" in out
    ovsops("run", recipe, *INLINE)
    assert "2 shards; 0 to label" in ovsops("plan", recipe)[1]
    assert ovsops("plan", recipe, "--set", "segmenter.threshold=0.4")[0] == 5


def test_status_counts_failures_with_examples(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(broken_every=3), *INLINE)
    code, out, _ = ovsops("status", tmp_path / "out")
    assert code == 0
    assert "E_TRUNCATED" in out
    assert "000002" in out
    state = json.loads(ovsops("status", tmp_path / "out", "--json")[1])
    assert state["images"] | {"instances": 0} == {
        "read": 6, "labelled": 4, "skipped": 0, "failed": 2, "instances": 0, "invariant_holds": True,
    }  # fmt: skip
    assert state["examples"]["E_TRUNCATED"][0]["shard"] == "shard-000000.tar"


def test_status_knows_what_is_not_done(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(), *INLINE)
    write_shards(tmp_path / "in", num_shards=3, images_per_shard=3)
    state = json.loads(ovsops("status", tmp_path / "out", "--json")[1])
    assert state["shards"]["pending"] == 1
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    code, out, _ = ovsops("status", tmp_path / "out")
    assert code == 0
    assert "the inputs cannot be listed" in out


def test_status_is_not_0_when_rows_are_lost(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(), *INLINE)
    commit = next((tmp_path / "out" / "commits").iterdir())
    record = json.loads(commit.read_text())
    commit.write_text(json.dumps(record | {"labelled": record["labelled"] - 1}))
    code, out, _ = ovsops("status", tmp_path / "out")
    assert code == 1
    assert "BROKEN" in out
    commit.write_text(json.dumps(record))
    (tmp_path / "out" / record["tables"]["images"]["published"]).unlink()
    assert ovsops("status", tmp_path / "out")[0] == 1


def test_status_of_a_folder_without_a_run_is_2(ovsops: Call, tmp_path: Path) -> None:
    code, _, err = ovsops("status", tmp_path)
    assert code == 2
    assert "holds no run.json" in err


def test_status_shows_who_holds_the_lock(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(), *INLINE)
    with OutputLock(open_storage(str(tmp_path / "out"))):
        assert f"locked by process {os.getpid()}" in ovsops("status", tmp_path / "out")[1].replace("\n", " ")


def test_the_version_is_that_of_the_package(ovsops: Call) -> None:
    assert ovsops("--version") == (0, f"ovsops {version('ovsops')}\n", "")


def test_codes_that_no_image_has_are_refused(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(), *INLINE)
    for code, message in (
        ("E_TIME_OUT", "no image fails with this (did you mean 'E_TIMEOUT'?)"),
        ("E_FOO", "those that a retry can mend are E_DECODER_CRASH, E_MODEL, E_STORAGE, E_TIMEOUT"),
        ("S_SMALL", "left out on purpose"),
    ):
        exit_code, _, err = ovsops("retry", tmp_path / "out", "--code", "E_MODEL", "--code", code)
        assert exit_code == 2
        assert message in err


def test_retry_needs_nothing_but_the_output(
    write_recipe: Write, ovsops: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_recipe(broken_every=3)
    ovsops("run", recipe, *INLINE)
    recipe.unlink()
    monkeypatch.chdir("/")
    code, _, _ = ovsops("retry", tmp_path / "out", "--code", "E_TRUNCATED", *INLINE)
    assert code == 0
    assert summary(tmp_path)["this_run"]["retried_images"] == 2
    assert ovsops("retry", tmp_path / "out", "--code", "E_TIMEOUT", *INLINE)[0] == 0
    assert summary(tmp_path)["this_run"]["retried_images"] == 0


def test_with_nothing_to_do_no_engine_is_started(
    write_recipe: Write, ovsops: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("jobs.engines.RayEngine", never)
    recipe = write_recipe(broken_every=3)
    assert "Ray was started" in ovsops("run", recipe)[2], "without labels there is work for it"
    assert ovsops("run", recipe, *INLINE)[0] == 0
    code, _, err = ovsops("run", recipe)
    assert (code, "every shard is labelled" in err) == (0, True), err
    code, _, err = ovsops("retry", tmp_path / "out", "--code", "E_MODEL")
    assert (code, "nothing to try again: no image failed with E_MODEL" in err) == (0, True), err
    assert "Ray was started" in ovsops("retry", tmp_path / "out")[2], "two images failed"
    assert ovsops("run", recipe, "--set", "segmenter.threshold=0.4")[0] == 5, "recipes are compared as ever"
    gone = next((tmp_path / "out" / "images").glob("*.parquet"))
    gone.unlink()
    code, _, err = ovsops("run", recipe)
    assert (code, "tables of 1 committed" in err) == (5, True), err


def test_export_and_overlays(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    ovsops("run", write_recipe(), *INLINE)
    code, out, err = ovsops("export", tmp_path / "out", "--to", "coco", "--out", tmp_path / "coco")
    assert code == 0, err
    document = json.loads((tmp_path / "coco" / "instances.json").read_text())
    rows = sum(pq.read_table(p).num_rows for p in (tmp_path / "out" / "instances").iterdir())
    assert len(document["annotations"]) == rows > 0
    assert f"6 images and {rows} annotations" in out
    code, _, _ = ovsops("overlay", tmp_path / "out", "--out", tmp_path / "pictures", "--limit", "4")
    assert code == 0
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4


def test_doctor_looks_at_machine_and_recipe(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    recipe = write_recipe()
    code, out, _ = ovsops("doctor", recipe)
    assert code == 0, out
    assert "a second writer is refused" in out
    assert not (tmp_path / "out").exists()
    code, out, _ = ovsops("doctor", recipe, "--set", "segmenter.dino.source=no/such")
    assert code == 4
    assert "FAILED" in out


def test_schema_is_json(ovsops: Call) -> None:
    code, out, _ = ovsops("schema")
    assert code == 0
    assert json.loads(out)["properties"]["segmenter"]
    assert json.loads(ovsops("schema", "evaluate")[1])["properties"]["truth"]
    assert ovsops("schema", "nothing")[0] == 2


def test_json_logs_are_one_object_a_line(write_recipe: Write, ovsops: Call) -> None:
    _, _, err = ovsops("--log-format", "json", "run", write_recipe(), *INLINE)
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {"time", "level", "logger", "message"} == set(lines[0])
    assert any("6" in line["message"] or "shards" in line["message"] for line in lines)


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.nightly)])
def test_a_signal_ends_a_run_with_a_summary_and_130_and_it_goes_on(
    write_recipe: Write, tmp_path: Path, sent: signal.Signals
) -> None:
    recipe = write_recipe()
    write_shards(tmp_path / "in", num_shards=40, images_per_shard=12)
    command = [sys.executable, "-m", "jobs.cli", "run", str(recipe), *INLINE]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` has it ignored
    )
    deadline = time.monotonic() + 90
    while not list((tmp_path / "out" / "commits").glob("*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    state = summary(tmp_path)
    assert state["state"] == "interrupted"
    assert 0 < state["shards"]["committed"] < 40
    assert not (tmp_path / "out" / "_lock.json").exists()


@pytest.mark.ray
def test_ray_and_inline_write_the_same_bytes(
    write_recipe: Write, ovsops: Call, tmp_path: Path, local_ray: None
) -> None:
    recipe = write_recipe()
    assert ovsops("run", recipe, *INLINE)[0] == 0
    assert ovsops("run", recipe, "--set", f"output={tmp_path / 'ray'}")[0] == 0
    for kind in ("images", "instances"):
        inline = {p.name: p.read_bytes() for p in (tmp_path / "out" / kind).iterdir()}
        assert inline == {p.name: p.read_bytes() for p in (tmp_path / "ray" / kind).iterdir()}


def test_status_loads_no_model_library() -> None:
    """It is looked at often, and those take seconds to load."""
    code = "import sys; from jobs.cli import run_command; run_command(['status', 'nowhere'])"
    code += "; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
