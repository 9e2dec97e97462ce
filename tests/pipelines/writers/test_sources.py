"""Who wrote each negative, in all five formats: written, read by others, checked, and absent where nobody said."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from ovsops.errors import ConfigError
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import TrainingSample
from pipelines.validation.validate import validate_set
from pipelines.writers.card import dataset_card
from pipelines.writers.finehard_parquet import FINEHARD, WITH_IMAGES, with_sources
from pipelines.writers.hf_folder import hf_schema
from pipelines.writers.whole_files import ImageFolder
from tests.pipelines.made_samples import make_negatives, make_region, make_sample
from tests.pipelines.writers.test_training_sets import WRITERS, counted, load_as_the_trainer, write

SOURCES = ("llm",) * 3 + ("rule",) * 7
TABLES = {"finehard-parquet": FINEHARD, "hf": hf_schema(WITH_IMAGES)}


def made(number: int, sources: Any = SOURCES) -> TrainingSample:
    """Two regions: one with negatives that say who wrote them, one without negatives."""
    first = make_region(1, negatives=replace(make_negatives(), sources=sources))
    return make_sample(number, regions=(first, make_region(2, with_negatives=False)))


SAMPLES = [made(0), make_sample(1, regions=(make_region(1, with_negatives=False),)), made(2)]


def write_made(folder: Path, kind: str, samples: list[TrainingSample] = SAMPLES) -> Path:
    (path,) = write(folder, kind, samples, **({"has_sources": True} if kind in TABLES else {}))
    for sample in samples:
        ImageFolder(folder).put(sample)
    if kind == "hf":
        card = dataset_card(counted(samples), Drops(), name="Cups", provenance={}, made=[])
        (folder / "README.md").write_text(card, encoding="utf-8")
    return path


def sources_of(path: Path, kind: str) -> Iterator[Any]:
    """The column of each region, read without code of ours; None where there is none."""
    if kind == "coco":
        annotations = json.loads(path.read_text())["annotations"]
        yield from (annotation.get("negative_sources") for annotation in annotations)
    elif kind == "finehard-json":
        items = json.loads(path.read_text())
        yield from (region.get("neg_sources") for item in items for region in item["bbox_info"])
    elif kind == "webdataset":
        with tarfile.open(path) as tar:
            items = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
        yield from (region.get("neg_sources") for item in items for region in item["regions"])
    else:
        rows = pq.read_table(path)["regions"].to_pylist()
        yield from (region.get("neg_sources") for regions in rows for region in regions)


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_says_who_wrote_each_negative(kind: str, tmp_path: Path) -> None:
    path = write_made(tmp_path, kind)
    nothing = [] if kind in TABLES else None
    assert list(sources_of(path, kind)) == [list(SOURCES), nothing, nothing, list(SOURCES), nothing]
    report = validate_set(tmp_path, kind)  # type: ignore[arg-type]
    assert report.is_valid, report.examples
    assert report.regions_with_negatives == 2


@pytest.mark.parametrize("kind", WRITERS)
def test_sets_of_rules_alone_have_no_such_field(kind: str, tmp_path: Path) -> None:
    (path,) = write(tmp_path, kind, [make_sample(0)])
    assert list(sources_of(path, kind)) == [None, None]
    if kind in TABLES:
        assert pq.read_schema(path).remove_metadata() == TABLES[kind].remove_metadata()
    card = dataset_card(counted([make_sample(0)]), Drops(), name="Cups", provenance={}, made=[])
    assert "neg_sources" not in card
    assert "written by" not in card
    assert "negative_sources" not in counted([make_sample(0)]).to_plain()


@pytest.mark.parametrize("kind", TABLES)
def test_files_of_a_set_have_one_schema_even_where_a_file_has_no_negatives(kind: str, tmp_path: Path) -> None:
    path = write_made(tmp_path, kind, [SAMPLES[1]])
    assert pq.read_schema(path).field("regions").type.value_type.get_field_index("neg_sources") > 0
    assert list(sources_of(path, kind)) == [[]]


@pytest.mark.parametrize("kind", TABLES)
def test_a_file_without_the_column_takes_no_such_negatives(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="open the writer with has_sources=True"):
        write(tmp_path, kind, SAMPLES)


def test_datasets_and_the_trainers_loader_read_such_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is in the dev extra")
    write_made(tmp_path / "hf", "hf")
    (train,) = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache")).values()
    assert [region["neg_sources"] for region in train[0]["regions"]] == [list(SOURCES), []]
    plain = load_as_the_trainer(write(tmp_path / "plain", "finehard-json", [make_sample(0)])[0])
    assert load_as_the_trainer(write_made(tmp_path / "json", "finehard-json", [made(0)])) == plain
    frame = pd.read_parquet(write_made(tmp_path / "parquet", "finehard-parquet"))
    assert frame["regions"][0][0]["neg_sources"].tolist() == list(SOURCES)


def test_the_card_counts_who_wrote() -> None:
    card = dataset_card(counted(SAMPLES), Drops(), name="Cups", provenance={}, made=[])
    assert "| rule | 14 |" in card
    assert "| llm | 6 |" in card
    assert "neg_sources | string\\[] | who wrote each negative" in card
    assert "run the blind test" in card


def test_the_field_is_ours_and_stands_beside_the_types() -> None:
    names = [field.name for field in with_sources(FINEHARD).field("regions").type.value_type]
    assert names.index("neg_sources") == names.index("neg_types") + 1
    assert set(names) - {"neg_sources"} == {field.name for field in FINEHARD.field("regions").type.value_type}


WRONG = [
    (["llm"] * 9, "negatives_columns"),
    (["llm"] * 11, "negatives_columns"),
    (["llm"] * 9 + ["LLM"], "negatives_source"),
    (["rule"] * 9 + [None], "negatives_source"),
    ([["rule"]] * 10, "negatives_source"),
]


@pytest.mark.parametrize("kind", ["finehard-json", "coco"])
@pytest.mark.parametrize(("sources", "rule"), [*WRONG, ("rule", "type"), ({"0": "rule"}, "type")])
def test_wrong_sources_are_found_in_json(kind: str, sources: Any, rule: str, tmp_path: Path) -> None:
    path = write_made(tmp_path, kind)
    document = json.loads(path.read_text())
    if kind == "coco":
        document["annotations"][0]["negative_sources"] = sources
        rule = "negatives_columns" if rule == "type" else rule
    else:
        document[0]["bbox_info"][0]["neg_sources"] = sources
    path.write_text(json.dumps(document))
    broken = validate_set(tmp_path, kind).broken  # type: ignore[arg-type]
    assert set(broken) == {rule}


@pytest.mark.parametrize(("sources", "rule"), WRONG[:4])
def test_wrong_sources_are_found_in_tables(sources: Any, rule: str, tmp_path: Path) -> None:
    path = write_made(tmp_path, "finehard-parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[0]["regions"][0]["neg_sources"] = sources
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    report = validate_set(tmp_path, "finehard-parquet")
    assert set(report.broken) == {rule}
    (example,) = report.examples[rule]
    assert example.field.startswith("regions[0].neg_sources")


def test_sources_that_were_taken_out_by_hand_are_no_fault(tmp_path: Path) -> None:
    path = write_made(tmp_path, "finehard-json")
    items = json.loads(path.read_text())
    for item in items:
        for region in item["bbox_info"]:
            region.pop("neg_sources", None)
    path.write_text(json.dumps(items))
    assert validate_set(tmp_path).is_valid
    items[0]["bbox_info"][0]["neg_sources"] = []
    path.write_text(json.dumps(items))
    assert validate_set(tmp_path).is_valid
