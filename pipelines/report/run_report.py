"""Everything that a run's page shows, gathered: facts, counts, a gallery, and what lies beside the run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ovsops.errors import ConfigError
from pipelines.report.beside import Beside, look_beside
from pipelines.report.counting import GalleryConfig, RunCounts, choose_images, count_run
from pipelines.report.facts import RunFacts, read_facts
from pipelines.report.gallery import Gallery, make_gallery
from pipelines.report.overlay import category_colour
from pipelines.report.source_pictures import PictureConfig
from pipelines.report.timeline import Timeline, make_timeline
from pipelines.storage import Storage, StorageOptions


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How a page is made."""

    gallery: GalleryConfig = field(default_factory=GalleryConfig)
    pictures: PictureConfig = field(default_factory=PictureConfig)
    max_bytes: int = 15_000_000
    """Bytes of the page at most; pictures are left out where they do not fit."""

    def __post_init__(self) -> None:
        if self.max_bytes < 500_000:
            raise ConfigError(
                f"--max-bytes {self.max_bytes}: a page without pictures needs up to 500,000 bytes"
            )


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """A class as the page names it."""

    id: int
    name: str
    name_zh: str
    """Empty where the vocabulary has no Chinese prompt."""
    kind: str
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class RunReport:
    """All of it. Nothing in it depends on the clock: the same run gives the same page."""

    facts: RunFacts
    counts: RunCounts
    gallery: Gallery
    beside: Beside
    config: ReportConfig

    @cached_property
    def classes(self) -> tuple[ShownClass, ...]:
        """Classes of the vocabulary in its order; ids that it lacks come last."""
        vocabulary = self.facts.vocabulary
        found = []
        for spec in vocabulary.classes:
            chinese = vocabulary.prompts_of(spec, "zh") if "zh" in vocabulary.languages else ()
            found.append(
                ShownClass(
                    id=spec.id,
                    name=spec.name,
                    name_zh=chinese[0] if chinese else "",
                    kind=spec.kind,
                    rgb=category_colour(spec.id),
                )
            )
        unknown = sorted(self.counts.scores.keys() - {each.id for each in found})
        return (
            *found,
            *(
                ShownClass(id=i, name=f"id {i}", name_zh="", kind="thing", rgb=category_colour(i))
                for i in unknown
            ),
        )

    @cached_property
    def place_of(self) -> dict[int, int]:
        """Place of a class in `classes`, by id."""
        return {each.id: place for place, each in enumerate(self.classes)}

    @cached_property
    def timeline(self) -> Timeline | None:
        """None for a run of a version that stored no times."""
        return make_timeline(self.facts.spans)


def gather(
    storage: Storage,
    config: ReportConfig,
    options: StorageOptions,
    *,
    beside: Sequence[Path] = (),
) -> RunReport:
    """Read a run. Raises `OutputError` where no label run wrote; what else is missing is said on the page."""
    facts = read_facts(storage)
    counts = count_run(storage, facts.commits, config.gallery)
    chosen = choose_images(counts, config.gallery)
    gallery = make_gallery(storage, facts.commits, chosen, config.gallery, config.pictures, options)
    found = look_beside(
        facts, beside, regions=gallery.region_uids, shards={candidate.shard for candidate in chosen}
    )
    return RunReport(facts, counts, gallery, found, config)
