"""Credentials in the environment and signed URLs in the inputs: no file, line or metric may hold one of them.

Made secrets go in at every place that a user has; then everything that was written is searched, tables and packed files
after they are opened.
"""

import gzip
import json
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
import yaml

import jobs.label
from pipelines.redact import redact
from tests.jobs.conftest import plain_recipe
from tests.jobs.test_nightly import Nights
from tests.tiny.segmenters import ColourFactory
from tests.tiny.shards import write_tar
from tests.tiny.world import SEEDS, write_world

Call = Callable[..., tuple[int, str, str]]
INLINE = ("--engine", "inline")

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAZZMADEUPKEY00001",
    "AWS_SECRET_ACCESS_KEY": "wJalrZZmade/K7MDENG+bPxRfiCYUPKEY0002",
    "AWS_SESSION_TOKEN": "FwoGZXIvZZmadeSession//////////wEaDUPKEY0003",
    "HF_TOKEN": "hf_ZZmadeUpKey0004abcdefghijkl",
    "OPENAI_API_KEY": "sk-ZZmade-up-key-0005-abcdefgh",
    "MY_VLM_KEY": "vlm-ZZmade-up-key-0006",
}
SIGNATURE = "5f3aZZmadeupsignature0007deadbeef"
PASSWORD = "hunterZZmadeup0008"
SECRETS = (*ENVIRONMENT.values(), SIGNATURE, PASSWORD)

SIGNED = (
    f"https://bucket.example.com/a.jpg?X-Amz-Credential={ENVIRONMENT['AWS_ACCESS_KEY_ID']}%2F20260101%2Fs3"
    f"&X-Amz-Security-Token={quote(ENVIRONMENT['AWS_SESSION_TOKEN'], safe='')}&X-Amz-Signature={SIGNATURE}"
)
WITH_PASSWORD = f"https://robot:{PASSWORD}@images.example.com/b.jpg"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def forms(secret: str) -> set[str]:
    """As it is, as in a URL, as in JSON."""
    return {secret, quote(secret, safe=""), secret.replace("/", "\\/")}


def leaks(data: bytes, where: str) -> list[str]:
    return [f"{where}: {secret}" for secret in SECRETS for form in forms(secret) if form.encode() in data]


def opened(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what is packed in them."""
    data = path.read_bytes()
    yield data
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield json.dumps(table.to_pylist(), default=str).encode()
        yield str(table.schema).encode()
    elif path.suffix == ".gz":
        yield gzip.decompress(data)
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            yield from (packed.read(name) for name in packed.namelist())
    elif path.suffix == ".tar":
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                yield member.name.encode() + b"\n" + (file.read() if file else b"")


def search(*folders: Path) -> tuple[list[str], int]:
    """What leaked below the folders, and how many files were searched."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [leak for path in files for data in opened(path) for leak in leaks(data, str(path))]
    return found + [leak for path in files for leak in leaks(str(path).encode(), "a name")], len(files)


class Session:
    """Commands in one folder, and everything that they said."""

    def __init__(self, root: Path, call: Call) -> None:
        self.root, self.call = root, call
        self.said: list[str] = []

    def __call__(self, *words: str | Path, code: int = 0) -> str:
        found, out, err = self.call(*words)
        assert found == code, err
        self.said += [f"{words[0]} out: {out}", f"{words[0]} err: {err}"]
        return out + err

    def leaked(self) -> list[str]:
        return [leak for said in self.said for leak in leaks(said.encode(), said[:60])]

    def recipe(self, name: str, **fields: Any) -> Path:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(fields))
        return path


def with_secrets(source: Path, target: Path) -> None:
    """Shards of drawn scenes whose sidecars name signed URLs in their fields, in words, and in no field of ours."""
    for shard in sorted(source.glob("*.tar")):
        members: list[tuple[str, bytes]] = []
        with tarfile.open(shard) as tar:
            for number, member in enumerate(tar):
                file = tar.extractfile(member)
                assert file is not None
                data = file.read()
                if member.name.endswith(".json"):
                    fields = json.loads(data) | {
                        "source_url": SIGNED if number % 4 < 2 else WITH_PASSWORD,
                        "license": f"see {WITH_PASSWORD}",
                        "caption": f"taken from {SIGNED} at night",
                        "fetched": {"from": [WITH_PASSWORD, {"by": SIGNED}], "with": ENVIRONMENT["HF_TOKEN"]},
                    }
                    data = json.dumps(fields).replace("&", "\\u0026").encode()  # as Go writes it
                members.append((member.name, data))
        write_tar(target / shard.name, members)


@pytest.fixture
def session(tmp_path: Path, ovsops: Call) -> Session:
    return Session(tmp_path, ovsops)


def test_every_output_of_a_run_and_what_is_made_of_it(
    session: Session, tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path / "drawn", SEEDS[:4])
    with_secrets(tmp_path / "drawn", tmp_path / "in")
    assert search(tmp_path / "in")[0], "the inputs hold them, or the search is blind"
    written = tmp_path / "written"
    written.mkdir()
    run = written / "labels"
    fields = plain_recipe(tmp_path, checkpoints, vocabulary="world", output=str(run))
    label = session.recipe("label", **fields)
    metrics = ("--metrics-file", written / "run.prom")
    session("plan", label)
    session("run", label, *INLINE, "--debug", "--log-format", "json", *metrics)
    session("doctor", label)
    for words in (["status", run], ["status", run, "--json"], ["retry", run, *INLINE], ["overlay", run]):
        session(*words, *(["--out", written / "overlay"] if words[0] == "overlay" else []))
    for name in ("coco", "yolo-seg", "labelstudio", "cvat", "fiftyone", "webdataset", "hf"):
        session("export", run, "--out", written / name, "--to", name)
    session("audit", run, "--out", written / "audit", "--rows", "3")
    session("review", run, "--out", written / "queue.jsonl")
    session("diff", run, run, "--out", written / "diff.json")
    negatives = session.recipe(
        "negatives",
        job="negatives",
        labels=str(run),
        output=str(written / "negatives"),
        negatives={"max_iterations": 2},
    )
    session("run", negatives, *INLINE)
    sets = session.recipe(
        "set",
        job="dataset",
        labels=str(run),
        negatives=str(written / "negatives"),
        output=str(written / "set"),
        build={"prompt_as_expression": True},
        filters={"min_side": 16, "min_region_side": 0.0, "max_aspect": 9.0},
        set={"formats": ["finehard-json", "finehard-parquet", "webdataset", "coco", "hf"]},
        splits={"val": 0.25, "test": 0.0},
    )
    session("run", sets, *INLINE)
    scores = session.recipe(
        "scores",
        job="evaluate",
        labels=str(run),
        truth={"kind": "world"},
        output=str(written / "scores"),
        bootstrap={"num_resamples": 20},
    )
    session("run", scores)
    session("report", run, "--beside", written / "scores")
    found, files = search(written)
    assert found == []
    assert session.leaked() == []
    assert files > 40
    table = pq.read_table(run / "images").to_pylist()
    assert {note for row in table for note in row["notes"]} >= {"N_REDACTED:sidecar", "N_REDACTED:source_url"}
    counted = json.loads((run / "summary.json").read_text())["notes"]["N_REDACTED"]
    assert counted == len(table), "an image counts once, however many of its fields held a secret"
    assert all(json.loads(row["sidecar"])["fetched"]["with"] == "[redacted]" for row in table)
    assert "ovsops_images_total" in (written / "run.prom").read_text()


def test_a_night(
    session: Session, tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory = ColourFactory()
    monkeypatch.setattr(jobs.label.RecipeAnnotator, "build", lambda self: factory.build())
    nights = Nights(tmp_path, checkpoints, session.call)
    write_world(tmp_path / "drawn", SEEDS[:1])
    with_secrets(tmp_path / "drawn", tmp_path / "in")
    session(
        "nightly",
        nights.recipe(canary=None),
        "--night",
        "one",
        *INLINE,
        "--metrics-file",
        tmp_path / "n.prom",
    )
    found, files = search(nights.out)
    assert (found, session.leaked(), files > 5) == ([], [], True)
    assert leaks((tmp_path / "n.prom").read_bytes(), "metrics") == []


BAD_INPUTS = {
    "a signed archive": f"input.shards={SIGNED.replace('a.jpg', 'a.tar')}",
    "a signed key of a bucket": f"input.shards=s3://bucket/a.tar?X-Amz-Signature={SIGNATURE}",
    "a password in a bucket's URL": f"input.shards=s3://robot:{PASSWORD}@bucket/a.tar",
    "a missing file": f"input.shards=/nowhere/a.tar?X-Amz-Signature={SIGNATURE}",
    "an output": f"output=s3://robot:{PASSWORD}@bucket/out",
    "a server": f"storage.s3_endpoint=http://robot:{PASSWORD}@127.0.0.1:9",
    "a vocabulary": f"vocabulary={SIGNED}",
    "a checkpoint": f"segmenter.mapper.source={WITH_PASSWORD}",
    "a key as a field": f"storage.aws_secret_access_key={ENVIRONMENT['AWS_SECRET_ACCESS_KEY']}",
    "a key as a value": f"output={ENVIRONMENT['HF_TOKEN']}",
    "no such field": f"input.{ENVIRONMENT['OPENAI_API_KEY']}=1",
    "a value of another type": f"batch.max_images={ENVIRONMENT['MY_VLM_KEY']}",
    "no field at all": f"{WITH_PASSWORD}",
    "no YAML": f"output=[{SIGNED}",
}


@pytest.mark.parametrize("override", BAD_INPUTS.values(), ids=BAD_INPUTS)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_starts_that_fail(
    session: Session, tmp_path: Path, checkpoints: Path, override: str, log_format: str
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    label = session.recipe("label", **plain_recipe(tmp_path, checkpoints, output=str(written / "out")))
    metrics = ("--metrics-file", written / "m.prom")
    code, out, err = session.call(
        "run", label, *INLINE, "--debug", "--log-format", log_format, *metrics, "--set", override
    )
    assert code in (2, 4), err
    assert leaks((out + err).encode(), "said") == []
    assert search(written)[0] == []


@pytest.mark.parametrize(
    "words",
    [
        ["status", f"s3://robot:{PASSWORD}@bucket/out"],
        ["status", "s3://bucket/out", "--endpoint-url", f"http://robot:{PASSWORD}@127.0.0.1:9"],
        ["report", f"/nowhere/{SIGNATURE}?X-Amz-Signature={SIGNATURE}", "--debug"],
        ["export", f"nowhere?X-Amz-Signature={SIGNATURE}", "--out", "x"],
        ["plan", f"r.yaml?X-Amz-Signature={SIGNATURE}"],
        ["nightly", f"r.yaml?X-Amz-Signature={SIGNATURE}"],
        ["frobnicate", WITH_PASSWORD],
        ["status", "x", f"--token={ENVIRONMENT['HF_TOKEN']}"],
        ["status", "x", WITH_PASSWORD],
        ["plan", "x.yaml", "--metrics-file", f"/nowhere/{ENVIRONMENT['HF_TOKEN']}.prom"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_words_of_the_command_line(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], log_format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = session.call(*words, "--log-format", log_format)
    assert code != 0
    said = (out + err).replace(f"/nowhere/{SIGNATURE}", "")  # a path of the user's own
    assert leaks(said.encode(), "said") == []


class Echo(BaseHTTPRequestHandler):
    """A server that refuses, and repeats in its answer all that it was sent, as some proxies do."""

    def _refuse(self) -> None:
        told = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
        body = (
            f"<Error><Code>AccessDenied</Code><Message>refused:\n{told}{self.path}</Message></Error>".encode()
        )
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        self._refuse()

    def do_HEAD(self) -> None:
        self._refuse()

    def do_PUT(self) -> None:
        self._refuse()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_that_repeats_what_it_was_sent(
    session: Session, tmp_path: Path, checkpoints: Path, log_format: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        storage = {"s3_endpoint": f"http://127.0.0.1:{server.server_address[1]}", "max_attempts": 1}
        fields = plain_recipe(
            tmp_path, checkpoints, storage=storage, input={"shards": "s3://bucket/in/*.tar"}
        )
        label = session.recipe("label", **fields)
        text = session("run", label, *INLINE, "--debug", "--log-format", log_format, code=4)
        session("plan", label, code=4)
        server.shutdown()
        thread.join()
    assert "AccessDenied" in text or "403" in text
    assert session.leaked() == []
    assert search(tmp_path / "out")[0] == []


def test_names_of_variables_and_values_that_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false1234567890ab",  # no name of a secret
        "SOME_TOKEN": "localhost-name",  # no digit
        "OTHER_TOKEN": "abc12",  # short
        "SORT_KEY": "created at 2026-01-01",  # words
    }.items():
        monkeypatch.setenv(name, value)
        assert redact(f"say {value}!") == f"say {value}!"
    monkeypatch.setenv("THEIR_API_KEY", "a-9f8e7d6c5b4a")
    assert redact("say a-9f8e7d6c5b4a!") == "say [redacted]!"
    monkeypatch.setenv("THEIR_API_KEY", "b-9f8e7d6c5b4b")
    assert redact("say b-9f8e7d6c5b4b!") == "say [redacted]!"
