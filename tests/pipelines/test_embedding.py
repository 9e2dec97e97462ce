"""Vectors of a labelled run: real files, the miniature FG-CLIP 2."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.images.decode import decode_image
from ovsops.regions.region_vectors import RegionVectors
from pipelines.embedding import EmbedConfig, EmbedJob, embed_units, embedded_commits, read_vectors
from pipelines.labelled_shards import open_label_run
from pipelines.mining import EMBEDDED
from pipelines.readers import ReaderConfig, read_shard
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import run_units
from tests.pipelines.test_label_job import make_job, run_inline
from tests.tiny.shards import write_shards

OPTIONS = StorageOptions()
CHECKPOINT = Checkpoint(source="miniature:fgclip2")
VOCABULARY = {
    "name": "colours",
    "languages": ["en"],
    "templates": {"en": "plain"},
    "classes": [{"id": 1, "name": "red thing"}, {"id": 7, "name": "bright stuff", "kind": "stuff"}],
}
MANIFEST = {"schema_version": SCHEMA_VERSION, "recipe": {"job": "test"}, "recipe_hash": "abc"}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("labelled")
    write_shards(root / "in", num_shards=2, images_per_shard=5, broken_every=4)
    job = make_job(
        [str(root / "in" / "*.tar")], root / "labels", manifest=MANIFEST | {"vocabulary": VOCABULARY}
    )
    run_inline(job)
    return root


def embed(root: Path, out: Path, **config) -> dict:
    labels = open_label_run(str(root / "labels"), OPTIONS)
    job = EmbedJob(
        output=str(out),
        units=embed_units(labels, expand_inputs([str(root / "in" / "*.tar")], OPTIONS)),
        manifest=MANIFEST,
        labels=labels,
        checkpoint=CHECKPOINT,
        config=EmbedConfig(**config),
    )
    with InlineEngine(OPTIONS) as engine:
        return run_units(job, engine, run="test")


def table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def test_every_region_has_its_vector(labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "vectors"
    summary = embed(labelled, out, images_at_once=3)
    instances = table(labelled / "labels" / "instances")
    regions, images = table(out / "regions"), table(out / "images")
    assert regions.schema == images.schema == EMBEDDED
    assert summary["regions"]["invariant_holds"]
    assert summary["regions"]["embedded"] == regions.num_rows > 5
    assert regions["uid"].to_pylist() == instances["instance_uid"].to_pylist()
    assert images["uid"].to_pylist() == list(dict.fromkeys(instances["image_uid"].to_pylist()))

    # one by hand
    vectors = RegionVectors.load(CHECKPOINT)
    shard = expand_inputs([str(labelled / "in" / "*.tar")], OPTIONS)[0]
    rows = [row for part in read_shard(shard, ReaderConfig(), OPTIONS) for row in part.to_pylist()]
    first = instances.to_pylist()[0]
    listed = {row["image_uid"]: row for row in table(labelled / "labels" / "images").to_pylist()}
    data = rows[listed[first["image_uid"]]["index"]]["image"]
    x, y, width, height = first["bbox"]
    box = np.array([[x, y, x + width, y + height]], np.float32)
    found = vectors.of_image(decode_image(data).pixels, box)
    np.testing.assert_allclose(regions["vector"].to_pylist()[0], found.regions[0], atol=1e-5)
    np.testing.assert_allclose(images["vector"].to_pylist()[0], found.image, atol=1e-5)

    # as contexts of negatives
    labels = open_label_run(str(labelled / "labels"), OPTIONS)
    vectors_storage = open_storage(str(out), OPTIONS)
    commits = embedded_commits(vectors_storage)
    assert set(commits) == {unit.id for unit in labels.shards}
    by_uid = {
        uid: vector
        for commit in commits.values()
        for uid, vector in read_vectors(vectors_storage, commit.tables["regions"]).items()
    }
    assert list(by_uid) == instances["instance_uid"].to_pylist()
    np.testing.assert_array_equal(by_uid[first["instance_uid"]], np.float32(regions["vector"].to_pylist()[0]))


def test_shards_that_are_gone_are_named(labelled: Path) -> None:
    labels = open_label_run(str(labelled / "labels"), OPTIONS)
    with pytest.raises(ConfigError, match="2 labelled shards are not among the inputs"):
        embed_units(labels, [])
    with pytest.raises(ConfigError, match="images_at_once"):
        EmbedConfig(images_at_once=0)
