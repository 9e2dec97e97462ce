"""Recipes: read, overridden, split into what decides labels and what does not."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.door import dataclass_tree
from jobs.label_recipe import LabelRecipe, is_setting
from jobs.named_settings import SETTINGS, merge, named_segmenter
from jobs.recipe import JOBS, load_recipe, recipe_class, recipe_from_plain, recipe_schema, to_plain, to_yaml
from jobs.recipe_text import MAX_RECIPE_BYTES, SECRET_KEY, apply_overrides, recipe_hash, split_recipe
from ovsops.backbones.checkpoint import pin_checkpoints
from ovsops.backbones.shipped import miniature_checkpoints
from ovsops.errors import ConfigError
from ovsops.training.shipping import shipped_segmenter
from pipelines.label import LabelJob
from tests.jobs.conftest import plain_recipe

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"


def write(folder: Path, **changes: Any) -> Path:
    """A recipe file in the folder."""
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(plain_recipe(Path("f"), Path("c")) | changes))
    return file


def recipe(**changes: Any) -> LabelRecipe:
    return recipe_from_plain(plain_recipe(Path("f"), Path("c"), **changes), where="recipe r")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_recipes_load(path: Path) -> None:
    load_recipe(path)


@pytest.mark.parametrize("path", sorted(SETTINGS["segmenter",].glob("*.yaml")), ids=lambda p: p.stem)
def test_built_in_settings_of_segmenters_stand_by_their_name(tmp_path: Path, path: Path) -> None:
    file = write(tmp_path, segmenter=path.stem)
    assert load_recipe(file) == load_recipe(file, [f"segmenter.use={path}"])


def test_the_fused_miniatures_have_the_constants_that_were_fitted(tmp_path: Path) -> None:
    """The numbers stand twice, in the setting that people read and in the file that a calibration writes."""
    loaded = load_recipe(write(tmp_path, segmenter="fused_miniature"))
    assert isinstance(loaded.recipe, LabelRecipe)
    shipped = pin_checkpoints(shipped_segmenter(miniature_checkpoints()))
    assert pin_checkpoints(loaded.recipe.segmenter) == shipped


def test_a_setting_replaces_the_segmenter_of_a_resolved_recipe(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, segmenter="fused_miniature"))
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(to_yaml(loaded.recipe))
    other = load_recipe(resolved, ["segmenter=scclip_miniature"])
    assert isinstance(other.recipe, LabelRecipe)
    assert other.recipe.segmenter == named_segmenter("scclip_miniature")


@pytest.mark.parametrize(
    ("use", "field", "value"),
    [("cass_miniature", "prior_weight", 0.1), ("scclip_miniature", "area_threshold", 0.1)],
)
def test_published_values_of_a_data_set_are_one_word(
    tmp_path: Path, use: str, field: str, value: float
) -> None:
    loaded = load_recipe(write(tmp_path, segmenter={"use": use, "published": "voc_21", "class_chunk": 4}))
    assert isinstance(loaded.recipe, LabelRecipe)
    assert getattr(loaded.recipe.segmenter, field) == value
    assert loaded.recipe.segmenter.class_chunk == 4  # type: ignore[union-attr]


def test_fields_beside_a_named_setting_change_it(tmp_path: Path) -> None:
    file = write(tmp_path, segmenter={"use": "fused_miniature", "threshold": 0.25})
    loaded = load_recipe(file, ["segmenter.stride=128"])
    assert isinstance(loaded.recipe, LabelRecipe)
    assert (loaded.recipe.segmenter.threshold, loaded.recipe.segmenter.stride) == (0.25, 128)
    assert loaded.recipe.segmenter.grid == 16


@pytest.mark.parametrize(
    ("segmenter", "message"),
    [
        (
            "fused_miniatur",
            "segmenter.use is 'fused_miniatur': no such file .*did you mean 'fused_miniature'",
        ),
        ({"use": 3}, "segmenter.use is '3': no such file"),
        ({"use": "clip_miniature", "published": "voc_21"}, "clip has no values by data set"),
        ({"use": "cass_miniature", "published": "voc21"}, "no published values for 'voc21'"),
        ("not_a_setting.yaml", "not_a_setting.yaml: expected the fields of `segmenter`"),
        (
            {"use": "scclip_miniature", "kind": "fused"},
            "of kind scclip, but .* kind fused: `--set segmenter=scclip",
        ),
    ],
)
def test_a_setting_that_is_none_is_refused(tmp_path: Path, segmenter: Any, message: str) -> None:
    (tmp_path / "not_a_setting.yaml").write_text("threshold: 0.5")
    with pytest.raises(ConfigError, match=message):
        load_recipe(write(tmp_path, segmenter=segmenter))


def test_the_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    made = recipe(languages=["en", "zh"])
    path = tmp_path / "r.yaml"
    path.write_text(to_yaml(made))
    assert load_recipe(path).recipe == made


def test_one_pattern_needs_no_list() -> None:
    assert recipe(input={"shards": "a.tar"}) == recipe(input={"shards": ["a.tar"]})


def test_a_placement_keeps_the_jobs_defaults_for_what_it_leaves_out() -> None:
    default = LabelJob.__dataclass_fields__["segment_on"].default_factory()  # type: ignore[misc]
    assert recipe().segment_on == default
    changed = recipe(segment_on={"num_gpus": 0.5}).segment_on
    assert (changed.actors, changed.num_gpus, changed.num_cpus) == (default.actors, 0.5, default.num_cpus)


def test_overrides_reach_fields_that_are_missing_or_null() -> None:
    plain = {"a": {"b": 1, "n": None}}
    changed = apply_overrides(plain, ["a.b=2.5", "a.n.x=[1, two]", "new.deep=null", "a.t=x=y"])
    assert changed == {"a": {"b": 2.5, "n": {"x": [1, "two"]}, "t": "x=y"}, "new": {"deep": None}}
    assert plain == {"a": {"b": 1, "n": None}}


@pytest.mark.parametrize("override", ["a.b", "=3", "a..b=1", "a.b.c=1"])
def test_an_override_that_cannot_be_applied_says_so(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        apply_overrides({"a": {"b": 1}}, [override])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"storage": {"aws_secret_access_key": "x"}}, r"storage\.aws_secret_access_key looks like a secret"),
        ({"api_key": "x"}, "api_key looks like a secret"),
        ({"output": "s3://user:hunter22@bucket/x"}, "value of output holds a credential"),
        ({"job": "trian"}, "job is 'trian'; this version knows label, "),
        ({"vocabulary": []}, "vocabulary"),
        ({"languages": []}, "languages is empty"),
        ({"segment_on": {"actors": 0}}, "segment_on.actors is 0"),
        ({"model": {"device": "cuda"}}, "model.device is cuda, but segment_on.num_gpus is 0"),
        ({"input": {"shards": []}}, "input.shards is empty"),
        ({"segmentr": {}}, "segmentr is not a known field; did you mean 'segmenter'"),
    ],
)
def test_recipes_that_cannot_run_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_a_secret_is_not_repeated_in_the_message() -> None:
    with pytest.raises(ConfigError) as error:
        recipe(output="s3://user:hunter22@bucket/x")
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("job", JOBS)
def test_no_field_of_a_recipe_is_taken_for_a_secret(job: str) -> None:
    """Else the resolved recipe of an output could not be read again."""
    names = [f.name for kind in dataclass_tree(recipe_class(job)) for f in fields(kind)]
    assert [name for name in names if SECRET_KEY.search(name)] == []


def test_environment_variables_are_text() -> None:
    assert recipe(output="$HOME/out").output == "$HOME/out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "comes twice"),
        ("a: &x 1\nb: *x", "alias"),
        ("- a", "expected fields"),
        ("a: [", "not usable YAML"),
        ("a: !!python/object/apply:os.system [id]", "not usable YAML"),
        ("#" * (MAX_RECIPE_BYTES + 1), "over 1000000 bytes"),
    ],
)
def test_yaml_that_is_not_plain_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: cannot be read"):
        load_recipe(tmp_path / "no.yaml")


def test_the_two_halves_of_a_recipe_make_it_whole_again() -> None:
    plain = to_plain(recipe())
    labels, settings = split_recipe(plain)
    assert merge(labels, settings) == plain


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("output", True),
        ("input.shards", True),
        ("input.reader.tar.max_members", False),
        ("vocabulary", False),
        ("languages", False),
        ("decode.max_side", False),
        ("segmenter.threshold", False),
        ("segmenter.dino.source", True),
        ("segmenter.dino.revision", True),
        ("segmenter.dino.sha256", False),
        ("segmenter.views_per_batch", True),
        ("regions.min_region_share", False),
        ("batch.skip_under_side", False),
        ("batch.max_images", True),
        ("model.device", True),
        ("model.dtype", False),
        ("limits.max_failed_share", True),
        ("ray.address", True),
        ("segment_on.actors", True),
        ("ask_on.actors", True),
        ("ask.endpoint.url", True),
        ("ask.endpoint.max_cost", True),
        ("ask.endpoint.model", False),
        ("ask.endpoint.temperature", False),
        ("ask.max_regions", False),
        ("ask.ground.fgclip2.source", True),
        ("ask.ground.fgclip2.sha256", False),
        ("captioner.florence2.source", True),
        ("captioner.reading.task", False),
        ("cache", True),
        ("a_field_of_tomorrow", False),
    ],
)
def test_what_may_change_between_starts(path: str, setting: bool) -> None:
    assert is_setting(path) is setting


def test_the_hash_is_of_labels_alone_and_of_the_vocabularys_content() -> None:
    def hashed(**changes: Any) -> str:
        return recipe_hash(split_recipe(to_plain(recipe(**changes)))[0])

    vocabulary = plain_recipe(Path("f"), Path("c"))["vocabulary"]
    assert hashed() == hashed(output="elsewhere", cache="c", limits={}, batch={"max_images": 9})
    assert hashed() != hashed(regions={"min_region_share": 0.1})
    assert hashed() != hashed(batch={"skip_under_side": 9})
    assert hashed() != hashed(vocabulary=vocabulary | {"templates": {"en": ["the {}."]}})


def test_the_cache_folder_is_field_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe(cache="/c").cache_dir == Path("/c")
    monkeypatch.setenv("OVSOPS_CACHE", "/e")
    assert recipe().cache_dir == Path("/e")
    monkeypatch.delenv("OVSOPS_CACHE")
    assert recipe().cache_dir == Path("~/.cache/ovsops").expanduser()


def test_the_model_follows_the_gpu() -> None:
    made = recipe(segment_on={"num_gpus": 1})
    assert vars(made.model.resolve(num_gpus=1)) == {"device": "cuda", "dtype": "bfloat16"}
    assert vars(made.model.resolve(num_gpus=0)) == {"device": "cpu", "dtype": "float32"}


def test_the_schema_has_every_field_of_a_resolved_recipe() -> None:
    schema = recipe_schema()
    assert set(schema["properties"]) == set(to_plain(recipe()))
    assert {"type": "string"} in schema["$defs"]["InputConfig"]["properties"]["shards"]["anyOf"]
    assert "description" in schema["$defs"]["SegmenterConfig"]["properties"]["threshold"]
    assert yaml.safe_load(to_yaml(recipe()))["job"] == "label"
