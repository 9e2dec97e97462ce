"""The verbs on a bucket, through a real S3 server process."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def test_run_status_retry_and_export_on_a_bucket(
    s3: S3Server,
    write_recipe: Callable[..., Path],
    ovsops: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3.make_bucket("labels")
    output, inline = f"{bucket.rstrip('/')}/out", ("--engine", "inline")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    recipe = write_recipe(broken_every=3, output=output)
    assert ovsops("doctor", recipe)[0] == 0
    code, _, err = ovsops("run", recipe, *inline)
    assert code == 0, err
    state = json.loads(ovsops("status", output, "--json")[1])
    assert state["images"]["labelled"] == 4
    assert state["failures_by_code"] == {"E_TRUNCATED": 2}
    assert ovsops("retry", output, *inline)[0] == 0
    assert ovsops("export", output, "--out", tmp_path / "coco")[0] == 0
    assert len(json.loads((tmp_path / "coco" / "instances.json").read_text())["images"]) == 4
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert ovsops("status", output, "--endpoint-url", s3.endpoint)[0] == 0
