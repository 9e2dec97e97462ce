"""A set of negatives that a language model and rules wrote says who wrote which; one of rules alone does not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ovsops.images.decode import DecodeConfig
from pipelines.dataset import DatasetJob, SetConfig, dataset_units
from pipelines.dataset_plan import SetRules
from pipelines.dataset_writers import FORMATS
from pipelines.labelled_shards import LabelRun
from pipelines.negatives import negatives_commits
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.training.set_files import SetInput, find_set
from pipelines.training.sets import read_set
from pipelines.training_sets.splits import SplitConfig
from pipelines.units import run_units
from tests.pipelines.chat_server import chat_server
from tests.pipelines.test_negatives_llm import Model, draw
from tests.pipelines.test_negatives_llm import run as write_negatives
from tests.tiny.finehard_reader import read_set as read_as_a_stranger
from tests.tiny.labelled import label, some_images

SPLITS = SplitConfig(val=0.0, test=0.0)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelRun:
    folder = tmp_path_factory.mktemp("labelled")
    return label(folder / "labels", folder / "shards", [some_images(shard, 4) for shard in range(2)])


def write_set(labels: LabelRun, folder: Path, llm: Any) -> dict[str, Any]:
    """Negatives, then the set of them in `folder/set`; its summary."""
    write_negatives(labels, folder / "negatives", llm)
    sources = expand_inputs(labels.manifest["settings"]["input"]["shards"], StorageOptions())
    job = DatasetJob(
        output=str(folder / "set"),
        units=dataset_units(
            labels,
            sources,
            negatives=str(folder / "negatives"),
            negatives_by_unit=negatives_commits(open_storage(str(folder / "negatives"))),
        ),
        manifest={"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "xyz"},
        rules=SetRules(categories={spec.id: spec.name for spec in labels.vocabulary.classes}, splits=SPLITS),
        set=SetConfig(name="tiny", formats=FORMATS),
        vocabulary=labels.vocabulary,
    )
    return run_units(job, InlineEngine(StorageOptions()), run="test")


def read_for_training(folder: Path) -> Any:
    """Images and regions as the train job counts them."""
    given, options = SetInput(url=str(folder)), StorageOptions()
    rows = read_set(find_set(given, options), given, options, DecodeConfig())
    return rows.totals(), rows.regions


def test_a_set_says_who_wrote_each_negative(labels: LabelRun, tmp_path: Path) -> None:
    with chat_server(Model(star="nonsense", ring="echoes")) as chat:
        summary = write_set(labels, tmp_path, draw(chat))
    assert summary["over_limits"] == []
    assert all(report["valid"] for report in summary["sets"].values())
    rows = pd.read_parquet(tmp_path / "negatives" / "negatives").dropna(subset=["negatives"])
    written = {row.instance_uid: list(row.sources) for row in rows.itertuples()}
    out = tmp_path / "set"
    regions = [r for row in pd.read_parquet(out / "finehard-parquet" / "train").regions for r in row]
    with_negatives = [region for region in regions if region["flag_short_neg"]]
    assert with_negatives
    for region in with_negatives:
        assert list(region["neg_sources"]) == written[region["region_uid"]]
    counts = Counter(source for region in with_negatives for source in region["neg_sources"])
    assert summary["set"]["negative_sources"] == counts
    assert min(counts["rule"], counts["llm"]) > 0
    for name in FORMATS:
        card = (out / name / "README.md").read_text()
        assert f"{counts['llm']:,} by a language model, {counts['rule']:,} by rules" in card
        assert json.loads((out / name / "index.json").read_text())["counts"]["negative_sources"] == counts


def test_trainers_read_it_as_they_read_one_of_rules_alone(labels: LabelRun, tmp_path: Path) -> None:
    with chat_server(Model()) as chat:
        summary = write_set(labels, tmp_path / "llm", draw(chat))
    plain = write_set(labels, tmp_path / "rule", None)
    assert "negative_sources" not in plain["set"]
    assert plain["set"].keys() == summary["set"].keys() - {"negative_sources"}
    for path in (tmp_path / "rule" / "set").rglob("*"):
        assert b"neg_sources" not in (path.read_bytes() if path.is_file() else b""), path
    for name in ("finehard-json", "finehard-parquet", "webdataset"):
        found, alone = (read_for_training(tmp_path / kind / "set" / name) for kind in ("llm", "rule"))
        assert found == alone
        assert found[1]["with_negatives"] == plain["set"]["regions_with_negatives"] > 0
    (items,) = read_as_a_stranger(tmp_path / "llm" / "set" / "finehard-json").values()
    assert len(items) == plain["images"]["kept"]
