"""The steps of a night, joined: labels to sets, failed rows of earlier nights, mistakes in recipes."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobs.label
import jobs.nightly_steps
from jobs.nightly_steps import check_steps
from jobs.recipe import LoadedNightly, LoadedRecipe, load_recipe
from ovsops.miniature.scene import SceneConfig
from ovsops.miniature.splits import seeds_of
from pipelines.ledger import Ledger
from pipelines.storage import open_storage
from pipelines.summary import RunStats, summarise
from pipelines.world_shards import write_world_shards
from tests.jobs.conftest import plain_recipe
from tests.jobs.test_nightly import INLINE, Nights, nights, shard
from tests.tiny.labelled import label, some_images
from tests.tiny.segmenters import ColourFactory
from tests.tiny.shards import draw_image, encode, write_tar

__all__ = ["nights"]
Call = Callable[..., tuple[int, str, str]]
RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"


def colours(monkeypatch: pytest.MonkeyPatch, **flaws: Any) -> None:
    """Labels by colour instead of by the untrained model, which loads and thinks slowly."""
    factory = ColourFactory(**flaws)
    monkeypatch.setattr(jobs.label.RecipeAnnotator, "build", lambda self: factory.build())


def wide_shard(folder: Path, number: int) -> None:
    """Four pictures, the last one 80 pixels wide."""
    sizes = [64, 64, 64, 80]
    members = [
        (f"{number}-{i}.jpg", encode(draw_image(100 * number + i, width=width)))
        for i, width in enumerate(sizes)
    ]
    write_tar(folder / f"shard-{number:03d}.tar", members)


def test_failed_rows_of_earlier_nights(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    wide_shard(nights.root / "in", 1)
    plain = {"canary": None, "keep": {"nights": 1, "min_age_days": 0.0}}
    colours(monkeypatch, refuse_width=80)
    first = nights.run("one", **plain)
    assert first["failures_by_code"] == {"E_MODEL": 1}
    second = nights.run("two", **plain)
    assert second["state"] == "nothing new"
    assert second["retried"] == {"tried": 1, "mended": 0}
    colours(monkeypatch)
    third = nights.run("three", **plain)
    assert third["retried"] == {"tried": 1, "mended": 1}
    assert third["steps"]["retry"]["nights"]["one"]["codes"] == {"E_MODEL": 1}
    (commit,) = Ledger(open_storage(str(nights.out / "nights" / "one" / "label"))).read_all()
    assert (commit.retry, commit.failed, commit.labelled) == (1, 0, 4)
    assert nights.run("four", **plain)["retried"] == {"tried": 0, "mended": 0}

    colours(monkeypatch, refuse_width=80)
    wide_shard(nights.root / "in", 2)
    nights.run("five", **plain)
    nights.change_mapper()
    sixth = nights.run("six", **plain)
    assert sixth["retried"] == {"tried": 0, "mended": 0}
    assert "SHA-256" in sixth["steps"]["retry"]["nights"]["five"]["not_tried"]
    assert sixth["prune"]["nights"] == ["one"]
    assert sixth["prune"]["deleted"] is None
    assert nights.labelled("one")
    seventh = nights.run("seven", **{**plain, "keep": {"nights": 1, "min_age_days": 0.0, "delete": True}})
    assert seventh["prune"]["deleted"] == seventh["prune"]["files"] > 0
    assert nights.labelled("one") == {}
    assert nights.labelled("five")
    assert seventh["shards"]["known"] == 2, "what was deleted is known all the same"


def labelled_by_hand(nights: Nights) -> Callable[..., dict[str, Any]]:
    """In place of the label job: captioned regions of both languages, committed as it would."""

    def run(loaded: LoadedRecipe, **_: Any) -> dict[str, Any]:
        out = Path(loaded.recipe.output)
        label(out, nights.root / "in", [some_images(0), some_images(1)])
        commits = Ledger(open_storage(str(out))).read_all()
        stats = RunStats(started=time.time())
        return summarise(commits, stats, pending=0, limits=loaded.recipe.limits, state="done")

    return run


def test_labels_become_negatives_sets_and_a_sample(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    label(nights.root / "first", nights.root / "in", [some_images(0), some_images(1)])
    monkeypatch.setattr(jobs.nightly_steps, "run_recipe", labelled_by_hand(nights))
    plain: dict[str, Any] = {
        "canary": None,
        "negatives": {"negatives": {"max_iterations": 2}},
        "dataset": {"set": {"formats": ["finehard-json"]}, "splits": {"val": 0.2, "test": 0.2}},
        "audit": {"sample": {"rows": 5}, "pictures": False},
    }
    said = nights.run("one", **plain)
    assert list(said["steps"]) == ["retry", "label", "negatives", "dataset", "audit"]
    assert said["steps"]["negatives"]["regions"]["with_negatives"] == 28
    assert said["steps"]["dataset"]["images"]["kept"] == 10
    assert said["steps"]["dataset"]["sets"]["finehard-json"]["valid"]
    folder = nights.out / "nights" / "one"
    assert list((folder / "dataset" / "finehard-json").glob("*/*.json"))
    assert (folder / "audit" / "audit.csv").is_file()
    assert said["next"]
    assert json.loads((folder / "night.json").read_text()) == said


def test_labels_are_scored_against_the_truth_of_their_scenes(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world_shards(
        nights.root / "in", list(seeds_of("test")[:2]), scenes_per_shard=2, config=SceneConfig()
    )
    colours(monkeypatch)
    label = plain_recipe(nights.root, nights.checkpoints, vocabulary="world")
    evaluate = {
        "truth": {"kind": "world"},
        "bootstrap": {"num_resamples": 20},
        "pictures": {"worst": 0},
    }
    said = nights.run("one", canary=None, label=label, evaluate=evaluate)
    assert 0 <= said["steps"]["evaluate"]["figures"]["mean_iou"] < 1
    assert (nights.out / "nights" / "one" / "evaluate" / "metrics.json").is_file()
    assert not (nights.root / "out").exists(), "the recipe's own output is not written"


def test_a_killed_night_goes_on_where_it_was(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its finished steps are not run again, its name stays, and shards that came since wait for the next night."""
    shard(nights.root / "in", 1, images=2)
    colours(monkeypatch)
    run = jobs.nightly_steps.LabelStep.run
    monkeypatch.setattr(jobs.nightly_steps.LabelStep, "run", _interrupted)
    code, out, _ = nights.ovsops("nightly", nights.recipe(), *INLINE, "--night", "one")
    said = json.loads(out.splitlines()[-1])
    assert (code, said["exit_code"], said["state"]) == (130, 130, "interrupted")
    assert said["finished_steps"] == ["canary", "retry"]
    assert "run the same command again" in said["next"]
    assert json.loads((nights.out / "nights" / "one" / "night.json").read_text()) == said
    monkeypatch.setattr(jobs.nightly_steps.LabelStep, "run", run)
    monkeypatch.setattr(jobs.nightly_steps.CanaryStep, "run", _interrupted)
    shard(nights.root / "in", 2, images=2)
    code, out, err = nights.ovsops("nightly", nights.recipe(), "--night", "two", *INLINE)
    assert code == 2
    assert "night one is not finished" in err
    said = json.loads(nights.ovsops("nightly", nights.recipe(), *INLINE)[1].splitlines()[-1])
    assert (said["night"], said["state"]) == ("one", "done")
    assert nights.labelled("one") == {"shard-001.tar": 2}


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_night_that_cannot_go_on_is_given_up(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    shard(nights.root / "in", 1, images=2)
    colours(monkeypatch)
    run = jobs.nightly_steps.RetryStep.run
    monkeypatch.setattr(jobs.nightly_steps.RetryStep, "run", _interrupted)
    nights.ovsops("nightly", nights.recipe(), *INLINE, "--night", "one")
    monkeypatch.setattr(jobs.nightly_steps.RetryStep, "run", run)
    (nights.out / "nights" / "one" / "steps" / "canary.json").unlink()
    nights.change_mapper()
    said = nights.run("one", code=5)
    assert said["state"] == "failed"
    assert "--give-up" in said["next"]
    assert "mapper" in said["error"]
    said = nights.run("two", "--give-up")
    assert said["state"] == "done"
    assert nights.labelled("two") == {"shard-001.tar": 2}
    assert nights.run("three")["state"] == "nothing new"


def test_a_dry_run_writes_nothing(nights: Nights) -> None:
    shard(nights.root / "in", 1, images=2)
    recipe = nights.recipe(keep={})
    before = sorted(nights.root.rglob("*"))
    code, out, _ = nights.ovsops("nightly", recipe, "--dry-run", "--night", "one")
    assert code == 0
    assert "1 new shard: shard-001.tar" in out
    assert "steps: canary, retry, label" in out
    assert "0 files" in out
    assert sorted(nights.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"label": None}, 2, "label is missing"),
        ({"label": {"use": "nowhere.yaml"}}, 2, "nowhere.yaml"),
        ({"negatives": {"draws": {}}}, 2, "did you mean 'draw'"),
        ({"negatives": "label.yaml"}, 2, "job is 'label'"),
        ({"dataset": {"set": {"formats": []}}}, 2, "formats"),
        ({"audits": {}}, 2, "did you mean 'audit'"),
        ({"canary": {"shards": []}}, 2, "canary.shards is empty"),
        ({"canary": {"shards": "nowhere/*.tar"}}, 2, "matches no file"),
        ({"retry": {"codes": ["E_CORRUPT"]}}, 2, "E_CORRUPT is not retryable"),
        ({"keep": {"nights": 0}}, 2, "keep.nights is 0"),
        ({"output": "s3://bucket/x", "audit": {}}, 2, "audit draws into a folder"),
    ],
)
def test_mistakes(nights: Nights, ovsops: Call, changes: dict[str, Any], code: int, message: str) -> None:
    shard(nights.root / "in", 1, images=1)
    (nights.root / "label.yaml").write_text("job: label\n")
    found, out, err = ovsops("nightly", nights.recipe(**changes), *INLINE)
    assert found == code
    assert message in err
    said = json.loads(out.splitlines()[-1])
    assert (said["state"], said["exit_code"]) == ("not started", code)
    assert not nights.out.exists()


def test_missing_weights_are_4_and_nothing_is_written(nights: Nights) -> None:
    shard(nights.root / "in", 1, images=1)
    shutil.rmtree(nights.checkpoints / "mapper")
    assert nights.run("one", code=4)["state"] == "not started"
    assert not nights.out.exists()


def test_the_command_line_changes_fields_of_a_step(tmp_path: Path) -> None:
    recipe = RECIPES / "nightly_miniature.yaml"
    loaded = load_recipe(recipe, ["label.segmenter.threshold=0.7", "negatives.negatives.level=easy"])
    assert isinstance(loaded, LoadedNightly)
    check_steps(loaded)
    found = jobs.nightly_steps.label_recipe(loaded, "out", only=["a.tar"])
    assert found.recipe.segmenter is not None
    assert getattr(found.recipe.segmenter, "threshold", None) == 0.7
    assert found.recipe.input.only == ("a.tar",)
    assert found.recipe.input.shards == ("demo-out/shards",)
    negatives = jobs.nightly_steps.load_step(loaded, "negatives", {"labels": "a", "output": "b"})
    assert (negatives.recipe.negatives.level, negatives.recipe.labels) == ("easy", "a")


def test_run_takes_a_nightly_recipe_and_other_recipes_do_not_pass_for_one(
    nights: Nights, ovsops: Call
) -> None:
    shard(nights.root / "in", 1, images=1)
    code, out, _ = ovsops("run", nights.recipe(), "--print-config")
    assert code == 0
    assert "job: nightly" in out
    code, _, err = ovsops("nightly", RECIPES / "negatives_miniature.yaml")
    assert code == 2
    assert "this verb wants `job: nightly`" in err
