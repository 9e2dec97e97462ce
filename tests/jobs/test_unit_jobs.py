"""The verbs over negatives and training sets: run, plan, status, retry, and what each says about mistakes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.recipe import LoadedUnits, load_recipe, recipe_schema, to_yaml
from jobs.unit_jobs import prepare_units, run_unit_recipe
from pipelines.llm_batch import BatchError
from tests.pipelines.chat_server import chat_server, says
from tests.pipelines.test_llm_asking import Batch, Moods, make_draw
from tests.tiny.labelled import label, some_images

Call = Callable[..., tuple[int, str, str]]
RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
INLINE = ("--engine", "inline")
QUICK = {"max_iterations": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    label(tmp_path / "labels", tmp_path / "shards", [some_images(0), some_images(1)])
    return tmp_path


def negatives_recipe(folder: Path, **changes: Any) -> Path:
    recipe = {
        "job": "negatives",
        "labels": str(folder / "labels"),
        "output": str(folder / "negatives"),
        "negatives": QUICK,
    }
    path = folder / "negatives.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def dataset_recipe(folder: Path, **changes: Any) -> Path:
    recipe = {
        "job": "dataset",
        "labels": str(folder / "labels"),
        "negatives": str(folder / "negatives"),
        "output": str(folder / "set"),
        "set": {"formats": ["finehard-json"]},
        "splits": {"val": 0.2, "test": 0.2},
    }
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def test_from_labels_to_a_set(folder: Path, ovsops: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = ovsops("plan", negatives_recipe(folder))
    assert code == 0
    assert "2 to do" in out
    assert not (folder / "negatives").exists()
    code, _, err = ovsops("run", negatives_recipe(folder), *INLINE)
    assert code == 0
    assert "R_NO_TEXT" in err
    assert "audit.csv" in err.replace("\n", "")
    code, out, _ = ovsops("plan", dataset_recipe(folder))
    assert code == 0
    assert "finehard-json" in out
    code, _, err = ovsops("run", dataset_recipe(folder), *INLINE)
    assert code == 0
    assert "files; valid" in err
    assert list((folder / "set" / "finehard-json").glob("*/*.json"))
    for name, kept in (("negatives", 28), ("set", 10)):
        code, out, _ = ovsops("status", str(folder / name), "--json")
        said = json.loads(out)
        assert code == 0
        assert said["shards"] == {"committed": 2, "pending": 0, "unpublished": [], "failed": {}}
        assert said["rows"]["kept"] == kept
        assert ovsops("status", str(folder / name))[0] == 0
        assert ovsops("retry", str(folder / name), *INLINE)[0] == 0
        monkeypatch.setattr("jobs.engines.RayEngine", None)
        code, _, err = ovsops("retry", str(folder / name))
        assert (code, "every shard is done" in err) == (0, True), err


def test_manifest_and_summary_say_what_negatives_were_made_with(folder: Path, ovsops: Call) -> None:
    ovsops("run", negatives_recipe(folder), *INLINE)
    manifest = json.loads((folder / "negatives" / "run.json").read_text())
    made_of = manifest["recipe"]["made_of"]
    assert made_of["labels_recipe_hash"] == "abc"
    assert {len(digest) for digest in made_of["lexicons"].values()} == {64}
    assert manifest["recipe"]["negatives"]["level"] == "hard"
    assert manifest["recipe"]["negatives"]["seed"] == 0
    assert manifest["settings"]["labels"] == str(folder / "labels")


def test_another_recipe_on_the_same_output_is_5(folder: Path, ovsops: Call) -> None:
    recipe = negatives_recipe(folder)
    ovsops("run", recipe, *INLINE)
    code, _, err = ovsops("run", recipe, *INLINE, "--set", "negatives.level=easy")
    assert code == 5
    assert 'negatives.level: "hard" -> "easy"' in err
    code, out, _ = ovsops("plan", recipe, "--set", "negatives.seed=3")
    assert code == 5
    assert "negatives.seed: 0 -> 3" in out.replace("\n", " ")
    assert ovsops("run", recipe, *INLINE, "--set", "audit.rows=3")[0] == 0


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"draws": {}}, 2, "did you mean 'draw'"),
        ({"draw": {"spar": 3}}, 2, "did you mean 'spare'"),
        ({"draw": {"texts": ["caption"]}}, 2, "draw.texts"),
        ({"labels": "nowhere"}, 2, "holds no run.json"),
        ({"negatives": {"level": "harder"}}, 2, "negatives.level"),
        ({"work_on": {"num_cpus": 1000}}, 4, "work_on asks for"),
    ],
)
def test_mistakes_in_a_negatives_recipe(
    folder: Path, ovsops: Call, changes: dict[str, Any], code: int, message: str
) -> None:
    found, _, err = ovsops("run", negatives_recipe(folder, **changes))
    assert found == code
    assert message in err


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"format": ["coco"]}, 2, "format is not a known field"),
        ({"set": {"formats": ["cocoa"]}}, 2, "set.formats"),
        ({"output": "s3://bucket/set"}, 2, "a training set is written into a folder"),
        ({"duplicates": {"min_cosine": 0.9}}, 2, "a label run has none"),
        ({"build": {"keep_without_regions": True}}, 2, "give both the same"),
    ],
)
def test_mistakes_in_a_dataset_recipe(
    folder: Path, ovsops: Call, changes: dict[str, Any], code: int, message: str
) -> None:
    found, _, err = ovsops("run", dataset_recipe(folder, **changes), *INLINE)
    assert found == code
    assert message in err


def test_outputs_of_other_jobs_are_told_apart(folder: Path, ovsops: Call) -> None:
    labels = str(folder / "labels")
    code, _, err = ovsops("run", dataset_recipe(folder, negatives=labels), *INLINE)
    assert code == 2
    assert "is an output of the label job; name one of the negatives job" in err
    ovsops("run", negatives_recipe(folder), *INLINE)
    code, _, err = ovsops("run", dataset_recipe(folder, labels=str(folder / "negatives")), *INLINE)
    assert code == 2
    assert "no output of the label job, but of negatives" in err
    label(folder / "labels", folder / "shards", [some_images(0), some_images(1), some_images(2)])
    code, _, err = ovsops("run", dataset_recipe(folder), *INLINE)
    assert code == 5
    assert "1 of 3 labelled shards have no negatives" in err


def test_a_shard_that_failed_is_tried_again_by_its_code(folder: Path, ovsops: Call) -> None:
    ovsops("run", negatives_recipe(folder), *INLINE)
    shard = sorted((folder / "shards").iterdir())[0]
    shard.rename(folder / "away.tar")
    code, out, _ = ovsops("plan", dataset_recipe(folder))
    assert code == 4
    assert "the images of 1 labelled shard are not where" in out.replace("\n", " ")
    code, _, err = ovsops("run", dataset_recipe(folder), *INLINE)
    assert code == 3
    assert "E_SHARD_MISSING" in err
    (folder / "away.tar").rename(shard)
    code, _, err = ovsops("retry", str(folder / "set"), "--code", "E_STORAGE", *INLINE)
    assert code == 2
    assert "no shard of" in err
    code, _, err = ovsops("retry", str(folder / "set"), "--code", "E_SHARD_MISSING", *INLINE)
    assert code == 0
    assert "files; valid" in err


def test_status_finds_what_is_gone(folder: Path, ovsops: Call) -> None:
    ovsops("run", negatives_recipe(folder), *INLINE)
    next((folder / "negatives" / "negatives").iterdir()).unlink()
    code, out, _ = ovsops("status", str(folder / "negatives"))
    assert code == 1
    assert "BROKEN" in out


@pytest.mark.parametrize("name", ["negatives_miniature", "dataset_miniature", "mine_miniature"])
def test_shipped_recipes_are_whole(name: str, tmp_path: Path) -> None:
    loaded = load_recipe(RECIPES / f"{name}.yaml")
    assert isinstance(loaded, LoadedUnits)
    again = tmp_path / "again.yaml"
    again.write_text(to_yaml(loaded.recipe))
    found = load_recipe(again)
    assert found.recipe == loaded.recipe
    schema = recipe_schema(loaded.recipe.job)
    assert set(schema["properties"]) == set(yaml.safe_load(to_yaml(loaded.recipe)))


def test_a_job_is_a_function_of_its_recipe(folder: Path) -> None:
    loaded = load_recipe(negatives_recipe(folder))
    assert isinstance(loaded, LoadedUnits)
    summary = run_unit_recipe(loaded, engine="inline")
    assert summary["state"] == "done"
    assert summary["regions"]["read"] == 30


ENDPOINT = {"url": "http://127.0.0.1:9/v1", "model": "tiny"}


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"llm": {}}, 2, "neither endpoint nor vllm is given"),
        ({"llm": {"endpoint": ENDPOINT, "vllm": {"model": "m"}}}, 2, "both endpoint and vllm are given"),
        ({"llm": {"vllm": {"model": "m", "replica": 2}}}, 2, "did you mean 'replicas'"),
        ({"llm": {"vllm": {"model": "m"}}}, 2, "run it with `--engine ray`"),
        ({"llm": {"endpoint": ENDPOINT, "shar": 1.0}}, 2, "did you mean 'share'"),
        ({"llm": {"endpoint": ENDPOINT | {"api_key": "x"}}}, 2, "looks like a secret"),
        ({"llm": {"endpoint": ENDPOINT | {"key_from_env": "NO_SUCH_KEY"}}}, 4, "NO_SUCH_KEY is not set"),
        ({"llm": {"endpoint": ENDPOINT}, "validate": None}, 2, "set validate.texts"),
        ({"llm": {"endpoint": ENDPOINT}, "negatives": {"level": "trivial"}}, 2, "level is trivial"),
        (
            {"llm": {"endpoint": ENDPOINT | {"max_cost": 1.0, "input_price": 1.0}}},
            2,
            "each task would be a new one",
        ),
    ],
)
def test_mistakes_about_a_language_model(
    folder: Path, ovsops: Call, changes: dict[str, Any], code: int, message: str
) -> None:
    found, _, err = ovsops("run", negatives_recipe(folder, **changes), *INLINE)
    assert found == code
    assert message in err


def test_a_language_model_in_a_recipe(folder: Path, ovsops: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_KEY", "sk-tiny-0123456789abcdef")
    entries = [{"text": f"a {colour} thing", "type": "colour"} for colour in "abcdefghijklmn"]
    answer = says(json.dumps({"negatives": entries}), {"prompt_tokens": 100, "completion_tokens": 50})
    with chat_server(answer) as chat:
        endpoint = {"url": chat.url, "model": "tiny", "key_from_env": "TINY_KEY", "output_price": 10.0}
        recipe = negatives_recipe(folder, llm={"endpoint": endpoint, "most": 4})
        code, out, _ = ovsops("plan", recipe)
        assert code == 0
        assert "key from TINY_KEY" in out
        assert "4 of ten negatives of 100% of the regions; rules fill up" in out
        code, _, err = ovsops("run", recipe, *INLINE)
        assert code == 0
        assert "requests to tiny" in err
        asked = len(chat.bodies)
        assert ovsops("run", recipe, *INLINE, "--set", "llm.endpoint.concurrency=2")[0] == 0
        assert len(chat.bodies) == asked > 0
        assert ovsops("run", recipe, *INLINE, "--set", "llm.most=5")[0] == 5
        assert ovsops("run", recipe, *INLINE, "--set", "llm.endpoint.temperature=0.7")[0] == 5
    out_folder = folder / "negatives"
    manifest = json.loads((out_folder / "run.json").read_text())
    assert manifest["recipe"]["llm"]["endpoint"]["model"] == "tiny"
    assert manifest["settings"]["llm"]["endpoint"]["key_from_env"] == "TINY_KEY"
    assert {len(digest) for digest in manifest["recipe"]["made_of"]["questions"].values()} == {64}
    summary = json.loads((out_folder / "summary.json").read_text())
    assert summary["llm"]["cost"] > 0
    assert not any(b"sk-tiny" in path.read_bytes() for path in out_folder.rglob("*") if path.is_file())
    assert ovsops("status", str(out_folder))[0] == 0


def test_a_model_that_ray_runs_wants_vllm_before_anything_is_read(folder: Path, ovsops: Call) -> None:
    recipe = negatives_recipe(folder, llm={"vllm": {"model": "m"}}, labels="nowhere")
    for verb in ("plan", "run"):
        code, _, err = ovsops(verb, recipe)
        assert code == 2
        assert "vLLM is not installed here" in err
        assert "pip install 'ray[llm]'" in err.replace("\n", " ")
    assert not (folder / "negatives").exists()


def test_a_model_that_ray_runs_wants_gpus(
    folder: Path, ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.unit_jobs.check_vllm", lambda: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    vllm = {"model": "/models/chat", "gpus_per_replica": 2, "replicas": 2, "accelerator_type": "H100"}
    recipe = negatives_recipe(folder, llm={"vllm": vllm, "share": 0.25})
    for verb in ("plan", "run"):
        code, out, err = ovsops(verb, recipe)
        assert code == 4
        assert "asks for 4 GPUs" in (out + err).replace("\n", " ")
    code, out, _ = ovsops("plan", recipe, "--set", "ray.address=auto")
    assert code == 0
    assert "/models/chat on 4 GPUs (H100)" in out
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    code, out, _ = ovsops("plan", recipe, "--set", "ray.num_cpus=4")
    assert code == 4
    assert "need 6 CPU shares at once, there are 4" in out.replace("\n", " ")
    loaded = load_recipe(recipe)
    assert isinstance(loaded, LoadedUnits)
    manifest = prepare_units(loaded).manifest
    decides, settings = manifest["recipe"]["llm"], manifest["settings"]["llm"]
    assert (decides["vllm"]["model"], decides["vllm"]["seed"], decides["endpoint"]) == (
        "/models/chat",
        0,
        None,
    )
    assert settings["vllm"]["replicas"] == 2
    assert not settings["vllm"].keys() & decides["vllm"].keys()


def test_a_model_that_ray_runs_through_the_verb(
    folder: Path, ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this process's engine, with a stage that gives up first and answers then."""

    class GivesUp:
        def __init__(self, **fields: Any) -> None: ...

        def answers(self, *args: Any) -> Iterator[Any]:
            raise BatchError("E_LLM", "llm.vllm: Ray's stage ended: no GPU")

    class Answers(Batch):
        def __init__(self, **fields: Any) -> None:
            super().__init__(make_draw(vllm=fields["config"]), Moods({"key": "fails"}))

    monkeypatch.setattr("jobs.unit_jobs.check_vllm", lambda: None)
    monkeypatch.setattr("jobs.unit_jobs.gpu_shortage", lambda *args: "")
    monkeypatch.setattr("jobs.unit_jobs.engine_for_units", lambda job, engine: "inline")
    monkeypatch.setattr("pipelines.negatives.VllmAsker", GivesUp)
    llm = {"vllm": {"model": "/models/chat", "output_price": 10.0}, "max_unanswered_share": 0.01}
    recipe = negatives_recipe(folder, llm=llm)
    code, _, err = ovsops("run", recipe)
    assert code == 4
    assert "Ray's stage ended: no GPU" in err
    assert json.loads((folder / "negatives" / "summary.json").read_text())["state"] == "error"
    monkeypatch.setattr("pipelines.negatives.VllmAsker", Answers)
    code, _, err = ovsops("run", recipe)
    assert code == 3  # more without an answer than allowed
    assert "requests to /models/chat" in err
    assert "no answer E_LLM" in err
    assert "The engine failed at this question" in err.replace("\n", " ")
    summary = json.loads((folder / "negatives" / "summary.json").read_text())
    assert summary["llm"]["cost"] == summary["llm"]["vllm"]["output_tokens"] * 10 / 1e6 > 0
    assert ovsops("status", str(folder / "negatives"))[0] == 0
    assert ovsops("run", recipe, "--set", "llm.vllm.replicas=3")[0] == 3
    assert ovsops("run", recipe, "--set", "llm.vllm.temperature=0.1")[0] == 5
