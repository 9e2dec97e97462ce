"""The dataset job: labels, negatives and bytes to sets that loaders read; the same bytes however it was interrupted."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ovsops.errors import ConfigError, OutputError
from ovsops.negatives.config import NegativeConfig
from pipelines.dataset import DatasetJob, SetConfig, dataset_units
from pipelines.dataset_plan import PLAN, SetRules
from pipelines.dataset_writers import FORMATS
from pipelines.labelled_shards import LabelRun
from pipelines.negatives import NegativesJob, negatives_commits, negatives_units
from pipelines.runner import InlineEngine, Step
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.training_sets.duplicates import DuplicateConfig
from pipelines.training_sets.filters import FilterConfig
from pipelines.training_sets.splits import SplitConfig
from pipelines.units import run_units
from tests.tiny.deaths import Deaths, Killed, files_of
from tests.tiny.finehard_reader import read_file, read_set
from tests.tiny.labelled import TinyImage, label, some_images

QUICK = NegativeConfig(max_iterations=2)
SPLITS = SplitConfig(val=0.2, test=0.2)


class Made:
    """A label run with its negatives, in a folder."""

    def __init__(self, folder: Path, shards: Sequence[Sequence[TinyImage]]) -> None:
        self.folder, self.shards = folder, shards
        self.labels: LabelRun = label(folder / "labels", folder / "shards", shards)
        self.negatives = str(folder / "negatives")
        run(
            NegativesJob(
                output=self.negatives,
                units=negatives_units(self.labels),
                manifest={"schema_version": SCHEMA_VERSION, "recipe": {}},
                labels=self.labels,
                negatives=QUICK,
            )
        )

    def sources(self) -> list[Shard]:
        return expand_inputs([str(self.folder / "shards")], StorageOptions())

    def job(self, out: Path, *, sources: Sequence[Shard] | None = None, **changes: Any) -> DatasetJob:
        rules: dict[str, Any] = {
            "categories": {spec.id: spec.name for spec in self.labels.vocabulary.classes},
            "splits": SPLITS,
        }
        for name in ("build", "filters", "duplicates", "splits"):
            if name in changes:
                rules[name] = changes.pop(name)
        fields: dict[str, Any] = {
            "output": str(out),
            "units": dataset_units(
                self.labels,
                self.sources() if sources is None else sources,
                negatives=self.negatives,
                negatives_by_unit=negatives_commits(open_storage(self.negatives)),
            ),
            "manifest": {"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "xyz"},
            "rules": SetRules(**rules),
            "set": SetConfig(name="tiny", formats=FORMATS, check_images="whole"),
            "vocabulary": self.labels.vocabulary,
        }
        return DatasetJob(**fields | changes)


def run(job: Any, engine: InlineEngine | None = None) -> dict[str, Any]:
    return run_units(job, engine or InlineEngine(job.storage), run="test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    shards = [some_images(0), some_images(1), some_images(2)]
    shards[1][0] = replace(shards[0][0], key="copy")
    shards[2][0] = replace(shards[0][1], key="alike", quality=70)
    return Made(tmp_path_factory.mktemp("made"), shards)


@pytest.fixture(scope="module")
def reference(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    summary = run(made.job(out))
    assert summary["over_limits"] == []
    return out


def samples(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "samples")


def test_every_image_has_a_row_and_every_set_is_valid(made: Made, reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    rows = samples(reference)
    assert len(rows) == 18
    assert rows.reason.value_counts().to_dict() == {"D_NOT_LABELLED": 3, "D_EXACT_DUPLICATE": 1}
    assert summary["images"] == {
        "read": 18,
        "kept": 14,
        "left_out": 4,
        "by_reason": {"D_NOT_LABELLED": 3, "D_EXACT_DUPLICATE": 1},
        "invariant_holds": True,
    }
    assert summary["left_out"]["D_REGION_TEXT"] == 4
    assert {name: report["valid"] for name, report in summary["sets"].items()} == dict.fromkeys(FORMATS, True)
    assert {report["images"] for report in summary["sets"].values()} == {14}
    assert summary["set"]["regions_with_negatives"] == rows.regions_with_negatives.sum() > 30


def test_copies_and_look_alikes_lie_in_one_split(reference: Path) -> None:
    rows = samples(reference)
    splits = rows[rows.split.notna()].groupby("group").split.nunique()
    assert (splits == 1).all()
    alike = rows[rows.key.isin(["000001", "alike"])]
    assert alike.group.nunique() == alike.split.nunique() == 1
    assert alike.sha256.nunique() == 2
    assert rows.split.nunique() == 3


def test_look_alikes_can_be_dropped(made: Made, tmp_path: Path) -> None:
    run(made.job(tmp_path / "out", duplicates=DuplicateConfig(drop_near=True)))
    assert samples(tmp_path / "out").reason.value_counts()["D_NEAR_DUPLICATE"] == 1


def test_images_are_the_bytes_that_came(made: Made, reference: Path) -> None:
    came = {hashlib.sha256(i.data).hexdigest(): i.data for some in made.shards for i in some}
    for name in ("finehard-json", "finehard-parquet", "coco"):
        paths = [path for path in (reference / name / "images").rglob("*") if path.is_file()]
        assert len(paths) == 14
        assert all(path.read_bytes() == came[path.stem] for path in paths)
    table = pd.read_parquet(reference / "hf" / "data")
    assert all(row.image["bytes"] == came[row.sha256] for row in table.itertuples())


def test_a_strict_reader_reads_the_whole_finehard_set(reference: Path) -> None:
    rows = samples(reference)
    kept = rows[rows.reason.isna()]
    read = read_set(reference / "finehard-json")
    assert {split: len(items) for split, items in read.items()} == kept.split.value_counts().to_dict()
    regions = [region for items in read.values() for item in items for region in item.regions]
    assert len(regions) == kept.regions.sum()
    assert sum(bool(region.hard_group) for region in regions) == kept.regions_with_negatives.sum()
    assert any(item.is_chinese for items in read.values() for item in items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda region: region["short_expr_negs"].pop("9"), "9 negatives"),
        (lambda region: region["short_expr_negs"].update({"10": "a pink cup"}), "11 negatives"),
        (lambda region: region["bbox"].__setitem__(0, 0.99), "is no x1 y1 x2 y2"),
        (lambda region: region.pop("long_expr"), "long_expr is missing"),
        (lambda region: region.pop("flag_short_neg"), "flag_short_neg is missing"),
        (lambda region: region["short_expr_negs"].update({"3": region["short_expr"]}), "comes twice"),
    ],
)
def test_the_reader_is_strict(reference: Path, tmp_path: Path, change: Any, message: str) -> None:
    path = next((reference / "finehard-json" / "train").glob("*.json"))
    items = json.loads(path.read_text())
    change(next(r for item in items for r in item["bbox_info"] if r["flag_short_neg"]))
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(items))
    with pytest.raises(ValueError, match=message):
        read_file(broken, reference / "finehard-json")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_readers_of_others_read_the_other_sets(reference: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is in the dev extra")
    wds = pytest.importorskip("webdataset", reason="webdataset is in the dev extra")
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is in the dev extra")
    counts = samples(reference).query("reason.isna()").split.value_counts().to_dict()
    opened = datasets.load_dataset(str(reference / "hf"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in opened.items()} == counts
    assert opened["train"][0]["image"].size == (96, 64)
    for split, count in counts.items():
        paths = sorted(str(path) for path in (reference / "webdataset" / split).glob("*.tar"))
        read = list(wds.WebDataset(paths, shardshuffle=False, empty_check=False).decode())
        assert len(read) == count
        assert {len(region["short_expr_negs"]) for each in read for region in each["json"]["regions"]} <= {
            0,
            10,
        }
    sets = [coco.COCO(str(path)) for path in sorted((reference / "coco" / "annotations").glob("*.json"))]
    images = [image["id"] for each in sets for image in each.dataset["images"]]
    regions = [region["id"] for each in sets for region in each.dataset["annotations"]]
    assert len(images) == len(set(images)) == 14
    assert len(regions) == len(set(regions)) == samples(reference).regions.sum()
    assert sets[0].annToMask(sets[0].dataset["annotations"][0]).shape == (64, 96)


def test_cards_say_how_the_set_is_read(reference: Path) -> None:
    for name, word in {"hf": "load_dataset", "webdataset": "WebDataset", "coco": "COCO("}.items():
        assert word in (reference / name / "README.md").read_text()


class LastFirst(InlineEngine):
    """Does the last unit first."""

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        return super().units(tasks[::-1], step)


def test_the_order_of_units_changes_no_byte(made: Made, reference: Path, tmp_path: Path) -> None:
    job = made.job(tmp_path / "out")
    run(replace(job, units=job.units[::-1]), LastFirst(StorageOptions()))
    assert files_of(tmp_path / "out") == files_of(reference)


def test_killed_at_changes_of_the_disk_it_leaves_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path / "made", [some_images(0, 3), some_images(1, 3)])
    quick = {
        "set": SetConfig(formats=("finehard-json", "webdataset", "coco"), check_images="none"),
        "duplicates": DuplicateConfig(max_bits=1),
    }
    deaths = Deaths(monkeypatch)
    with deaths.die_at(-1):
        run(made.job(tmp_path / "whole", **quick))
    whole, changes = files_of(tmp_path / "whole"), deaths.count
    assert changes > 30
    for point in range(0, 2 * changes, 7):  # odd and even: before a change and after one
        out = tmp_path / f"killed-{point}"
        with pytest.raises(Killed), deaths.die_at(point):
            run(made.job(out, **quick))
        (out / "_lock.json").unlink(missing_ok=True)
        summary = run(made.job(out, **quick))
        assert summary["shards"] == {"committed": 2, "pending": 0, "failed": {}}, point
        assert summary["over_limits"] == [], point
        assert files_of(out) == whole, point


def test_shards_whose_bytes_changed_or_went_are_not_in_the_set(tmp_path: Path) -> None:
    made = Made(tmp_path, [some_images(0), some_images(1), some_images(2)])
    changed, gone, _ = sorted((tmp_path / "shards").iterdir())
    whole = changed.read_bytes(), gone.read_bytes()
    data = bytearray(whole[0])
    data[700] ^= 1
    changed.write_bytes(bytes(data))
    gone.unlink()
    summary = run(made.job(tmp_path / "out"))
    failed = summary["shards"]["failed"]
    assert failed[changed.name].startswith("E_SHARD_CHANGED: ")
    assert failed[gone.name].startswith("E_SHARD_MISSING: ")
    assert summary["over_limits"] == ["2 shards failed (limits.max_failed_shards is 0)"]
    assert "sets" not in summary
    changed.write_bytes(whole[0])
    gone.write_bytes(whole[1])
    summary = run(made.job(tmp_path / "out"))
    assert summary["over_limits"] == []
    assert summary["this_run"]["shards"] == 2


def test_a_set_is_planned_once(tmp_path: Path) -> None:
    run(Made(tmp_path, [some_images(0)]).job(tmp_path / "out"))
    more = Made(tmp_path, [some_images(0), some_images(1)])
    with pytest.raises(OutputError, match="1 shards are new, 0 are gone, 0 have other negatives"):
        run(more.job(tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["state"] == "error"
    run(
        more.job(
            tmp_path / "next", keep_splits_of=str(tmp_path / "out"), splits=SplitConfig(val=0.9, test=0.05)
        )
    )
    before, after = (samples(tmp_path / name).set_index("image_uid").split for name in ("out", "next"))
    assert after[before.dropna().index].equals(before.dropna())
    with pytest.raises(OutputError, match=f"holds no {PLAN}"):
        run(more.job(tmp_path / "last", keep_splits_of=str(tmp_path / "negatives")))


def test_negatives_of_other_labels_are_refused(made: Made) -> None:
    with pytest.raises(OutputError, match="3 of 3 labelled shards have no negatives"):
        dataset_units(made.labels, made.sources(), negatives="here", negatives_by_unit={})


def test_a_set_without_negatives(made: Made, tmp_path: Path) -> None:
    units = dataset_units(made.labels, made.sources(), negatives=None, negatives_by_unit={})
    summary = run(made.job(tmp_path / "out", units=units))
    assert summary["set"]["regions_with_negatives"] == 0
    assert summary["over_limits"] == []


def test_classes_are_balanced_over_the_whole_set(made: Made, reference: Path, tmp_path: Path) -> None:
    before = json.loads((reference / "summary.json").read_text())["set"]["categories"]
    most = max(before.values())
    summary = run(made.job(tmp_path / "out", filters=FilterConfig(max_per_class=most // 2)))
    dropped = summary["left_out"]["D_REGION_BALANCE"]
    assert dropped > 0
    assert summary["set"]["regions"] == sum(before.values()) - dropped


def test_licences_that_are_not_allowed_are_counted(tmp_path: Path) -> None:
    shard = some_images(0)
    shard[1], shard[2] = replace(shard[1], license="all rights reserved"), replace(shard[2], license=None)
    made = Made(tmp_path, [shard])
    filters = FilterConfig(licenses=("cc0",), unknown_license="drop")
    summary = run(made.job(tmp_path / "out", filters=filters))
    assert summary["images"]["by_reason"] == {"D_LICENSE": 1, "D_LICENSE_UNKNOWN": 1, "D_NOT_LABELLED": 1}


def test_an_image_that_is_left_out_takes_no_copy_with_it(tmp_path: Path) -> None:
    kept, other = some_images(0), some_images(1)
    other[0] = replace(kept[0], key="copy", license="all rights reserved")
    made = Made(tmp_path, [kept, other])
    run(made.job(tmp_path / "out", filters=FilterConfig(licenses=("CC0",))))
    rows = samples(tmp_path / "out").set_index("key")
    assert rows.reason["copy"] == "D_LICENSE"
    assert pd.isna(rows.reason[kept[0].key])


def test_nothing_left_is_said(made: Made, tmp_path: Path) -> None:
    summary = run(made.job(tmp_path / "out", filters=FilterConfig(min_side=1000)))
    assert summary["over_limits"] == ["no image is left: nothing was written; `left_out` says why"]


def test_files_that_are_gone_are_said(made: Made, tmp_path: Path) -> None:
    few = SetConfig(formats=("finehard-json",))
    run(made.job(tmp_path / "out", set=few))
    next((tmp_path / "out" / "finehard-json" / "train").glob("*.json")).unlink()
    with pytest.raises(OutputError, match="files of 1 committed shards are gone or were changed"):
        run(made.job(tmp_path / "out", set=few))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SetConfig(formats=()), "name one or more of"),
        (lambda: SetConfig(formats=("coco", "coco")), "each once"),
        (lambda: SetConfig(max_file_bytes=0), "max_file_bytes is 0"),
        (lambda: SetRules(categories={}, duplicates=DuplicateConfig(min_cosine=0.9)), "a label run has none"),
        (lambda: SetRules(categories={}, filters=FilterConfig(keep_without_regions=True)), "differ"),
    ],
)
def test_what_is_no_config(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
