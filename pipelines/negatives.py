"""The negatives job: ten negatives for every region of a label run that can have them, a reason for every other.

corpus sample (all shards) -> sampler -> per shard: candidates -> validators -> ten, or a reason -> table -> commit

The sample of the corpus is an artefact of the output (`corpus.json`): a killed run goes on with the very sample that it
began with, and shards that are labelled later get negatives of the same kind.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovsops.errors import ConfigError
from ovsops.negatives.captions import accept
from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig
from ovsops.negatives.corpus import DEFAULT_CAPACITY, CorpusSample
from ovsops.negatives.sampler import NegativeSampler, fit_sampler
from pipelines.labelled_shards import LabelRun, read_committed, source_tasks
from pipelines.llm_asking import ask_ahead
from pipelines.llm_batch import BatchAsker, VllmAsker
from pipelines.llm_questions import QuestionStage
from pipelines.llm_replies import drop_replies
from pipelines.negatives_audit import AuditConfig, audit_rows, audit_strata, write_audit
from pipelines.negatives_checks import ValidatorFactory
from pipelines.negatives_llm import LlmDraw, LlmTally, llm_totals, over_limits
from pipelines.negatives_regions import RegionSource, TextColumn, is_wanted, text_of
from pipelines.negatives_stage import NegativesStage
from pipelines.readers import ReaderConfig
from pipelines.runner import Engine, Placement
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.unit_tools import counted, gather
from pipelines.units import Unit, UnitCommit, UnitJob, UnitStage, row_totals, unit_ledger

logger = logging.getLogger(__name__)

CORPUS = "corpus.json"
"""The sample that all negatives of an output are drawn from."""
NEGATIVES_KINDS = ("negatives",)


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Which texts get negatives, and how many candidates a validator may choose from."""

    texts: tuple[TextColumn, ...] = ("caption_short",)
    """Columns of a region; the first that holds a text is the positive. `prompt` is the name it was found by."""
    review: bool = False
    """Also regions whose label waits for a person. Their captions are often wrong, and a negative of a wrong caption
    may be true."""
    spare: int = 10
    """Candidates beyond ten that take the place of dropped ones; only where there is a validator."""
    corpus_captions: int = DEFAULT_CAPACITY
    """Captions of each language that the corpus sample keeps."""

    def __post_init__(self) -> None:
        if not self.texts or len(set(self.texts)) < len(self.texts):
            raise ConfigError("texts: name one column or more, each once, for example [caption_short]")
        if self.spare < 0 or self.corpus_captions < 1:
            raise ConfigError(
                f"spare is {self.spare}, corpus_captions {self.corpus_captions}: at least 0 and 1 are wanted"
            )


@dataclass(frozen=True, kw_only=True)
class NegativesJob(UnitJob):
    """Everything a negatives run needs, resolved. Units are `negatives_units` of `labels`."""

    labels: LabelRun
    negatives: NegativeConfig = field(default_factory=NegativeConfig)
    draw: DrawConfig = field(default_factory=DrawConfig)
    validators: ValidatorFactory | None = None
    """Builds, on the worker, what candidates are shown to."""
    llm: LlmDraw | None = None
    """A language model that writes, too. Its texts want a validator of texts."""
    asker: BatchAsker | None = None
    """Who answers the questions to `llm.vllm`; None is Ray's own stage."""
    audit: AuditConfig = field(default_factory=AuditConfig)
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """As the label run read its shards; used where a validator looks at pixels."""
    fitted: list[NegativeSampler] = field(default_factory=list, init=False, repr=False, compare=False)
    """The sampler, when it is."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """One folder of tables."""
        return NEGATIVES_KINDS

    def begin(self, storage: Storage, engine: Engine) -> None:
        """Sample the corpus, once for an output."""
        if storage.exists(CORPUS):
            return
        sample = CorpusSample(capacity=self.draw.corpus_captions)
        calls = [
            {
                "labels": self.labels.url,
                "options": self.labels.storage,
                "table": commit.tables["instances"],
                "texts": self.draw.texts,
                "review": self.draw.review,
                "max_chars": self.negatives.max_chars,
                "capacity": self.draw.corpus_captions,
            }
            for commit in self.labels.commits
        ]
        for plain in gather(engine, sample_shard, calls):
            sample.merge(CorpusSample.from_plain(plain, where="a shard's captions"))
        data = json.dumps(sample.to_plain(), ensure_ascii=False, sort_keys=True)
        storage.create(CORPUS, data.encode("utf-8", "surrogatepass") + b"\n")
        logger.info("corpus: %s captions, sample %s", dict(sample.num_seen), sample.digest()[:12])

    def ahead(self, storage: Storage, engine: Engine, units: Sequence[Unit], run: str) -> None:
        """Ask the model of a batch stage about all these units, but for those whose replies are stored."""
        if self.llm is None or self.llm.vllm is None or not units:
            return
        questions = QuestionStage(
            self.output,
            self.storage,
            run,
            labels=self.labels.url,
            regions=self.regions(storage),
            draw=self.llm,
            vllm=self.llm.vllm,
        )
        ask_ahead(
            storage,
            engine,
            units,
            questions,
            self.asker or VllmAsker(config=self.llm.vllm, llm=self.llm.asked(self.negatives)),
            placement=Placement(num_cpus=self.work_on.num_cpus),
            stop_after=self.llm.stop_after,
        )

    def stage(self, storage: Storage, run: str) -> UnitStage:
        """The sampler travels to the workers."""
        return NegativesStage(
            self.output,
            self.storage,
            run,
            labels=self.labels.url,
            regions=self.regions(storage),
            validators=self.validators,
            reader=self.reader,
            llm=self.llm,
        )

    def regions(self, storage: Storage) -> RegionSource:
        """How regions get their candidates by rule."""
        return RegionSource(
            categories={spec.id: spec.name for spec in self.labels.vocabulary.classes},
            sampler=self.sampler(storage),
            texts=self.draw.texts,
            count=NUM_NEGATIVES + (self.draw.spare if self.validators is not None else 0),
            review=self.draw.review,
        )

    def sampler(self, storage: Storage) -> NegativeSampler:
        """Fitted on the output's own sample, once."""
        if not self.fitted:
            self.fitted.append(fit_sampler(self.sample(storage), self.negatives))
        return self.fitted[0]

    def sample(self, storage: Storage) -> CorpusSample:
        """The output's own sample of the corpus."""
        return CorpusSample.from_plain(
            json.loads(storage.read(CORPUS).decode("utf-8", "surrogatepass")),
            where=f"{storage.url}/{CORPUS}",
        )

    def totals(self, commits: Sequence[UnitCommit]) -> dict[str, Any]:
        """Regions with and without negatives."""
        found = {
            "regions": row_totals(commits, "with_negatives"),
            "level": self.negatives.level,
            "languages": counted(commits, "languages"),
            "types": counted(commits, "types"),
            "candidates_dropped": counted(commits, "dropped"),
        }
        if self.llm is None:
            return found
        tally = LlmTally.of(commit.counts["llm"] for commit in commits)
        return found | {"sources": counted(commits, "sources"), "llm": llm_totals(tally, self.llm)}

    def end(
        self, storage: Storage, engine: Engine, commits: Sequence[UnitCommit]
    ) -> tuple[dict[str, Any], list[str]]:
        """Write the sample for a person to read; what a model replied is in the tables now."""
        drop_replies(storage)
        calls = [
            {
                "output": self.output,
                "options": self.storage,
                "table": commit.tables["negatives"],
                "config": self.audit,
                "seed": self.negatives.seed,
            }
            for commit in commits
        ]
        chosen = audit_rows(gather(engine, audit_strata, calls), self.audit)
        files = write_audit(storage, chosen)
        sample = self.sample(storage)
        over = []
        if self.llm is not None:
            over = over_limits(LlmTally.of(commit.counts["llm"] for commit in commits), self.llm)
        return {
            "corpus": {"captions": dict(sample.num_seen), "sample_sha256": sample.digest()},
            "audit": {"rows": len(chosen), "files": files},
        }, over


def sample_shard(
    labels: str,
    options: StorageOptions,
    table: Mapping[str, Any],
    *,
    texts: tuple[TextColumn, ...],
    review: bool,
    max_chars: int,
    capacity: int,
) -> dict[str, Any]:
    """The corpus sample of one labelled shard, as plain data. Every region is a caption of its own."""
    sample = CorpusSample(capacity=capacity)
    rows = read_committed(open_storage(labels, options), table, ["instance_uid", "decision", *texts])
    for row in rows.to_pylist():
        if not is_wanted(row, review=review):
            continue
        caption, language = accept(text_of(row, texts), None, max_chars=max_chars)
        if caption is not None:
            sample.add(caption, "zh" if language == "zh" else "en", row["instance_uid"])
    return sample.to_plain()


def negatives_units(labels: LabelRun, sources: Sequence[Shard] = ()) -> tuple[Unit, ...]:
    """A unit for every committed shard; `sources` as in `source_tasks`, where a validator looks at pixels."""
    tasks = zip(labels.shards, source_tasks(labels, sources), strict=True)
    return tuple(Unit(shard=shard, task=task) for shard, task in tasks)


def negatives_commits(storage: Storage) -> dict[str, UnitCommit]:
    """The committed shards of a negatives output, by unit."""
    return {commit.shard: commit for commit in unit_ledger(storage, NEGATIVES_KINDS).read_all()}
