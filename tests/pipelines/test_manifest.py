"""An output continues only with the recipe that began it."""

from pathlib import Path

import pytest

from ovsops.errors import NoRunError, OutputError
from pipelines.manifest import claim_output, differences, read_manifest
from pipelines.schemas import SCHEMA_VERSION
from pipelines.storage import StorageOptions, open_storage
from pipelines.training.job import OUTPUT_VERSION


def manifest(threshold: float, ray: str = "2.60") -> dict:
    recipe = {"segmenter": {"threshold": threshold, "dilations": [1, 2]}, "languages": ["en"]}
    return {"schema_version": SCHEMA_VERSION, "recipe": recipe, "versions": {"ray": ray}}


def test_the_same_recipe_goes_on_whatever_the_versions(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), StorageOptions())
    claim_output(storage, manifest(0.5))
    assert claim_output(storage, manifest(0.5, ray="2.61"))["versions"] == {"ray": "2.60"}


def test_a_changed_field_is_named_with_both_values(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), StorageOptions())
    claim_output(storage, manifest(0.5))
    with pytest.raises(OutputError, match=r"segmenter\.threshold: 0\.5 -> 0\.6"):
        claim_output(storage, manifest(0.6))


def test_a_job_is_refused_by_the_version_of_its_own_output_alone(tmp_path: Path) -> None:
    """A training of version 2 goes on, whatever version the tables of labels have by now."""
    storage = open_storage(str(tmp_path), StorageOptions())
    claim_output(storage, manifest(0.5) | {"schema_version": OUTPUT_VERSION})
    claim_output(storage, manifest(0.5) | {"schema_version": OUTPUT_VERSION})
    message = f"written with schema {OUTPUT_VERSION}, this version writes {OUTPUT_VERSION + 1}"
    with pytest.raises(OutputError, match=message):
        claim_output(storage, manifest(0.5) | {"schema_version": OUTPUT_VERSION + 1})


def test_outputs_of_trainings_that_exist_keep_their_version() -> None:
    assert OUTPUT_VERSION == 2


def test_a_folder_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        read_manifest(open_storage(str(tmp_path), StorageOptions()))


def test_differences_reach_into_lists_and_missing_keys() -> None:
    assert list(differences({"a": [1, 2], "b": 1}, {"a": [1, 3]})) == ["a[1]: 2 -> 3", "b: 1 -> null"]
    assert list(differences({"a": [1]}, {"a": [1, 2]})) == ["a: [1] -> [1, 2]"]


def test_the_output_of_a_nightly_recipe_names_its_newest_run(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    for night in ("2026-11-20", "2026-11-21"):
        storage.put(f"nights/{night}/label/run.json", b"{}")
    with pytest.raises(NoRunError, match=r"output of a nightly recipe.*/nights/2026-11-21/label$"):
        read_manifest(storage)
    with pytest.raises(NoRunError, match="no run of ovsops wrote there"):
        read_manifest(open_storage(str(tmp_path / "nights")))
