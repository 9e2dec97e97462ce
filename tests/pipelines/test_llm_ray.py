"""Questions about negatives through Ray Data, by an engine in the place of vLLM, which is not installed here."""

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipelines.llm_batch import BatchError, VllmAsker, VllmConfig
from pipelines.llm_replies import REPLIES
from pipelines.negatives_llm import LlmDraw
from pipelines.runner import RayConfig, RayEngine
from pipelines.storage import StorageOptions
from pipelines.units import run_units
from tests.pipelines.test_llm_asking import NEGATIVES, REGIONS, Batch, Moods, make_draw, make_job, run
from tests.tiny.deaths import files_of
from tests.tiny.labelled import label, some_images

pytestmark = [pytest.mark.nightly, pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

MOODS = {"key": "fails", "star": "nonsense", "ring": "echoes"}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def asker(draw: LlmDraw, build: Callable[..., Any]) -> VllmAsker:
    assert draw.vllm is not None
    return VllmAsker(config=draw.vllm, llm=draw.asked(NEGATIVES), build=build)


def plain_stage(out: Path, asked: Path, last: str = "") -> Callable[..., Any]:
    """What Ray's processor does to rows, in short. At the question `last` it ends, when replies are stored."""
    answer = Moods(MOODS)

    def build(config: Any, preprocess: Callable[..., Any], **shares: Any) -> Callable[[Any], Any]:
        def engine(row: dict[str, Any]) -> dict[str, Any]:
            row = {**row, **preprocess(row)}
            if row["key"] == last:
                until = time.monotonic() + 60
                while not list(out.glob(f"{REPLIES}/*.parquet")) and time.monotonic() < until:
                    time.sleep(0.05)
                raise RuntimeError("CUDA error: out of memory")
            (asked / row["key"]).touch()
            return row | answer(row)

        return lambda dataset: dataset.map(engine, num_cpus=0.25)

    return build


def test_a_stage_that_ends_in_the_middle_is_gone_on_with(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(shard, 4) for shard in range(3)])
    draw = make_draw()
    inline = Batch(draw, Moods(MOODS))
    run(labels, tmp_path / "inline", inline)
    out, first, second = tmp_path / "ray", tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with RayEngine(RayConfig(), StorageOptions()) as engine:
        ends = asker(draw, plain_stage(out, first, last=inline.asked[-2]))
        with pytest.raises(BatchError, match=r"ended: RuntimeError: CUDA error.* run the recipe again"):
            run_units(make_job(labels, out, draw, ends), engine, run="first")
        stored = len(list(out.glob(f"{REPLIES}/*.parquet")))
        assert 1 <= stored <= 2
        goes_on = asker(draw, plain_stage(out, second))
        summary = run_units(make_job(labels, out, draw, goes_on), engine, run="second")
    assert summary["state"] == "done"
    assert len(list(second.iterdir())) == (3 - stored) * REGIONS
    assert len({path.name for folder in (first, second) for path in folder.iterdir()}) == 3 * REGIONS
    assert files_of(out) == files_of(tmp_path / "inline")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with all of a chat model but its weights: each byte is a token."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return str(folder)


def rays_own_but_the_engine(config: Any, **more: Any) -> Any:
    """Ray's `build_processor`: chat template, tokenizer, detokenizer, and how rows that failed travel are Ray's."""
    from ray.data.llm import build_processor
    from ray.llm._internal.batch.stages.base import StatefulStage, StatefulStageUDF

    class Engine(StatefulStageUDF):
        def __init__(self, data_column: str, expected_input_keys: list[str], folder: str) -> None:
            super().__init__(data_column, expected_input_keys)
            self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
            self.answer = Moods(MOODS)

        async def udf(self, batch: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
            for row in batch:
                prompt = self.tokenizer.decode(row["tokenized_prompt"])
                assert prompt == row["prompt"]
                assert prompt.startswith("<system>")
                assert prompt.endswith("<assistant>")
                assert json.loads(row["sampling_params"]["structured_outputs"]["json"])
                found = self.answer(row)
                text = found.get("generated_text", "")
                tokens = self.tokenizer.encode(text).ids
                place = {self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN]}
                yield (
                    {"generated_tokens": tokens, "num_generated_tokens": 0, "generated_text": ""}
                    | found
                    | place
                )

    class Stage(StatefulStage):
        fn: type[StatefulStageUDF] = Engine

        def get_required_input_keys(self) -> dict[str, str]:
            return {"sampling_params": "what the engine wants"}

    processor = build_processor(config, **more)
    (name,) = [name for name in processor.stages if "vLLM" in name]
    processor.stages[name] = Stage(
        fn_constructor_kwargs={"folder": config.model_source},
        map_batches_kwargs={"concurrency": 1, "num_cpus": 0.25},
    )
    return processor


def test_rays_own_processor_gives_what_a_function_of_rows_gives(tmp_path: Path, model: str) -> None:
    """Each of its stages is a process that loads transformers: minutes where cores are few."""
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(shard, 4) for shard in range(3)])
    draw = make_draw(vllm=VllmConfig(model=model, batch_size=4))
    run(labels, tmp_path / "inline", Batch(draw, Moods(MOODS)))
    with RayEngine(RayConfig(), StorageOptions()) as engine:
        job = make_job(labels, tmp_path / "ray", draw, asker(draw, rays_own_but_the_engine))
        summary = run_units(job, engine, run="ray")
    assert summary["llm"]["unanswered"].keys() == {"E_LLM", "E_LLM_REPLY"}
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "inline")
