"""Training sets of drawn scenes that differ in their negatives alone; which of the negatives are true after all?

python -m benchmarks.loop_closed_sets WORK [--arms none random frequency ours] [--scenes 1200] [--labels RUN]

Labels are the world's true boxes and its own region phrases (`big red striped fish`), which leave plain, matte and
medium unsaid. A negative puts another value that is said into the place of one that is said, and never says or drops
one more, so that it is false wherever the phrase is true. `--labels RUN` tells the same of the captions of a label run
over drawn shards, regions left out that wait for a person: captions may be wrong, and a negative of a wrong caption
may be true.

The corpus is skewed, as photographs are (of FG-OVD's phrases 721 say black and 1 says dark yellow): a thing is
labelled with a chance that falls with the rank of its values (`SKEW`).

    none        no negatives
    random      ten of the false phrases that the rules allow, each as likely as the others
    frequency   ten of the same, each as likely as the corpus says its value
    ours        ten of the same, drawn so that every value goes out of phrases as often as it comes in

A set that is whole in WORK/sets is not written again. Exit 1 where more than 0.5 % of the negatives of ours are true.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from benchmarks.miniature_quality import Row, markdown
from benchmarks.world_negatives import true_phrases
from ovsops.metrics.blind import blind_scores
from ovsops.metrics.fgovd import positive_is_first
from ovsops.miniature.attributes import CLASS_IDS
from ovsops.miniature.captions import region_long, region_phrase, scene_caption
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import Scene, Thing, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.negatives.balance import inclusion
from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.pools import Pool
from ovsops.negatives.sampler import Negatives, NegativeSampler, fit_sampler, parse
from pipelines.training_sets.build import build_sample, region_negatives
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import RegionNegatives
from pipelines.writers.finehard_parquet import FORMAT, finehard_parquet_writer
from pipelines.writers.whole_files import ImageFolder, write_index

Arm = Literal["none", "random", "frequency", "ours"]
ARMS: tuple[Arm, ...] = ("none", "random", "frequency", "ours")
FIRST_SCENE = 500_000
"""Of the training seeds: no scene that a shipped training saw."""
SKEW: Mapping[str, Mapping[str, float]] = {
    "colour": {
        name: 1 / rank
        for rank, name in enumerate(
            ("black", "white", "red", "blue", "green", "yellow", "orange", "purple", "pink"), start=1
        )
    },
    "pattern": {"plain": 1.0, "striped": 1.0, "dotted": 0.3, "checkered": 0.1},
    "material": {"matte": 1.0, "shiny": 1.0, "rough": 0.2},
    "size": {"medium": 1.0, "big": 1.0, "small": 0.2},
}
"""Chance that a thing is labelled: the product over its values."""
MOST_TRUE = 0.005
"""Share of negatives that may be true."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A scene with those of its things that the corpus has."""

    scene: Scene
    kept: tuple[int, ...]
    """Places of the things."""

    def key(self, place: int) -> str:
        """Names a region for good."""
        return f"{self.scene.seed}-{place}"

    def phrase(self, place: int) -> str:
        """What is said of it."""
        return region_phrase(self.scene.things[place], "en")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--labels", type=Path, help="a label run over drawn shards: are its negatives true?")
    options = parser.parse_args(words)
    sets = write_sets(options.work, options.arms, options.scenes)
    print(f"\nNegatives of the sets, {options.scenes} scenes\n\n{markdown(set_rows(sets))}", flush=True)
    if options.labels is not None:
        print(f"\nNegatives of the captions of {options.labels}\n\n{markdown(label_table(options.labels))}")
    return 1 if are_true(sets) else 0


def are_true(sets: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether more negatives of ours are true than may be."""
    return "ours" in sets and sets["ours"]["true"] > MOST_TRUE * sets["ours"]["negatives"]


def write_sets(work: Path, arms: Sequence[Arm], num_scenes: int) -> dict[str, dict[str, Any]]:
    """The set of every arm below WORK/sets, and what is told of each; those that are there are not written again."""
    folder = work / "sets"
    asked = {"scenes": num_scenes, "first": FIRST_SCENE, "skew": SKEW}
    told: dict[str, dict[str, Any]] = {}
    corpus: list[Labelled] = []
    sampler: NegativeSampler | None = None
    for arm in arms:
        facts = folder / f"{arm}.json"
        if facts.is_file() and (before := json.loads(facts.read_text("utf-8")))["asked"] == asked:
            told[arm] = before["told"]
            continue
        if sampler is None:
            corpus = list(labelled_scenes(num_scenes))
            sampler = fitted(corpus)
        told[arm] = write_set(folder / arm, arm, corpus, sampler)
        facts.write_text(json.dumps({"asked": asked, "told": told[arm]}) + "\n", "utf-8")
    return told


def label_rows_of(run: Path) -> Iterator[tuple[Scene, list[dict[str, Any]]]]:
    """Scenes of a label run over drawn shards, with its regions that have a caption and wait for nobody."""
    tables = {
        name: [
            row for path in sorted((run / name).glob("*.parquet")) for row in pq.read_table(path).to_pylist()
        ]
        for name in ("images", "instances")
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for row in tables["instances"]:
        if row["caption_short"] and row["decision"] != "review":
            found.setdefault(row["image_uid"], []).append(row)
    for image in tables["images"]:
        yield draw_scene(int(image["key"])), found.get(image["image_uid"], [])


def label_table(run: Path) -> list[Row]:
    """Negatives of what a label run says, against the record of the thing that its box covers best."""
    labelled = list(label_rows_of(run))
    sample = CorpusSample()
    for _, regions in labelled:
        for region in regions:
            sample.add(region["caption_short"], "en", region["instance_uid"])
    sampler = fit_sampler(sample)
    table: list[Row] = []
    for arm in ("random", "frequency", "ours"):
        told = {"captions": 0, "on no thing": 0, "wrong captions": 0, "refused": 0, "negatives": 0, "true": 0}
        for scene, regions in labelled:
            for region in regions:
                told["captions"] += 1
                thing = covered(scene, region["bbox"])
                if thing is None:
                    told["on no thing"] += 1
                    continue
                truths = true_phrases(thing, "en")
                told["wrong captions"] += region["caption_short"] not in truths
                found = drawn_negatives(arm, sampler, region["caption_short"], region["instance_uid"])
                if found is None:
                    told["refused"] += 1
                    continue
                told["negatives"] += len(found.texts)
                told["true"] += len(truths.intersection(found.texts))
        share = told["true"] / max(1, told["negatives"])
        table.append({"set": arm, **told, "true": f"{told['true']} ({share:.2%})"})
    return table


def covered(scene: Scene, bbox: Sequence[float]) -> Thing | None:
    """The thing whose box has the largest IoU with a COCO box, if that is half or more."""
    x, y, w, h = bbox
    best, most = None, 0.5
    for thing in scene.things:
        left, top, width, height = thing.box_xywh
        across = max(0.0, min(x + w, left + width) - max(x, left))
        down = max(0.0, min(y + h, top + height) - max(y, top))
        iou = across * down / (w * h + width * height - across * down)
        if iou >= most:
            best, most = thing, iou
    return best


def set_rows(sets: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row a set."""
    return [
        {"set": arm, **told, "true": f"{told['true']} ({told['true'] / max(1, told['negatives']):.2%})"}
        for arm, told in sets.items()
    ]


def labelled_scenes(count: int) -> Iterator[Labelled]:
    """Scenes with two labelled things or more, in the order of their seeds."""
    found = 0
    for seed in seeds_of("train")[FIRST_SCENE:]:
        scene = draw_scene(seed)
        draws = np.random.default_rng([7, seed]).random(len(scene.things))
        kept = tuple(
            place
            for place, (thing, draw) in enumerate(zip(scene.things, draws, strict=True))
            if draw < chance(thing)
        )
        if len(kept) >= 2:
            found += 1
            yield Labelled(scene=scene, kept=kept)
        if found == count:
            return


def chance(thing: Thing) -> float:
    """That the corpus labels a thing."""
    return float(np.prod([values[getattr(thing, name)] for name, values in SKEW.items()]))


def fitted(corpus: Sequence[Labelled]) -> NegativeSampler:
    """The generator on the corpus's own phrases."""
    sample = CorpusSample()
    for labelled in corpus:
        for place in labelled.kept:
            sample.add(labelled.phrase(place), "en", labelled.key(place))
    return fit_sampler(sample)


def arm_negatives(
    arm: Arm, sampler: NegativeSampler, labelled: Labelled, place: int
) -> RegionNegatives | None:
    """The negatives of one region, or None where the generator refuses the phrase."""
    return drawn_negatives(arm, sampler, labelled.phrase(place), labelled.key(place))


def drawn_negatives(arm: Arm, sampler: NegativeSampler, text: str, key: str) -> RegionNegatives | None:
    """The same for any phrase."""
    ours = sampler.negatives_for(text, "en", key)
    if not isinstance(ours, Negatives):
        return None
    if arm == "ours":
        return region_negatives(ours)
    phrase = parse(ours.positive, "en")
    pool = sampler.pool_of(phrase, None)
    assert not isinstance(pool, str), "what was accepted has candidates"
    weights = pool.log_weights if arm == "frequency" else np.zeros_like(pool.log_weights)
    generator = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()[:8]))
    start = generator.random()
    order = generator.permutation(len(weights))  # systematic sampling of a random order: no pair is favoured
    picks = order[
        np.searchsorted(np.cumsum(inclusion(weights)[order]), start + np.arange(NUM_NEGATIVES), side="right")
    ]
    texts = [replaced(sampler, phrase, int(slot), int(term)) for slot, term in pool_pairs(pool, picks)]
    types = tuple(phrase.slots[int(slot)].type for slot, _ in pool_pairs(pool, picks))
    return RegionNegatives(texts=tuple(texts), types=types, positive=ours.positive)


def pool_pairs(pool: Pool, picks: np.ndarray) -> list[tuple[int, int]]:
    """Slot and term of candidates with one change."""
    return list(zip(pool.slots[picks, 0].tolist(), pool.terms[picks, 0].tolist(), strict=True))


def replaced(sampler: NegativeSampler, phrase: Phrase, slot: int, term: int) -> str:
    """The phrase with one slot changed."""
    types = sampler.frequencies["en"].lexicon.types
    return phrase.replaced({slot: types[phrase.slots[slot].type].terms[term].surface})


def write_set(folder: Path, arm: Arm, corpus: Sequence[Labelled], sampler: NegativeSampler) -> dict[str, Any]:
    """The training set of an arm; counts of its negatives, and how many the world's record makes true."""
    drops, images = Drops(), ImageFolder(folder)
    told: dict[str, Any] = {"regions": 0, "with negatives": 0, "negatives": 0, "true": 0}
    rows: list[list[str]] = []
    groups: list[int] = []
    with finehard_parquet_writer(folder, "train") as writer:
        for labelled in corpus:
            found = {
                labelled.key(place): negatives
                for place in labelled.kept
                if arm != "none" and (negatives := arm_negatives(arm, sampler, labelled, place)) is not None
            }
            for place in labelled.kept:
                told["regions"] += 1
                if (negatives := found.get(labelled.key(place))) is None:
                    continue
                told["with negatives"] += 1
                told["negatives"] += len(negatives.texts)
                told["true"] += len(
                    true_phrases(labelled.scene.things[place], "en").intersection(negatives.texts)
                )
                rows.append([negatives.positive, *negatives.texts])
                groups.append(labelled.scene.seed)
            image, instances, data = label_rows(labelled)
            sample = build_sample(
                image,
                instances,
                data,
                categories={number: name for name, number in CLASS_IDS.items()},
                negatives=found,
                drops=drops,
            )
            assert sample is not None, f"scene {labelled.scene.seed}: {drops}"
            images.put(sample)
            writer.add(sample)
        write_index(folder, FORMAT, writer.finish(), {})
    if rows:
        scores, num_texts = blind_scores(rows, groups)
        told["blind"] = float(positive_is_first(scores, num_texts).double().mean())
    return told


def label_rows(labelled: Labelled) -> tuple[dict[str, Any], list[dict[str, Any]], bytes]:
    """A scene as rows of the label job's tables, with its bytes; labels are the world's."""
    scene, sample = labelled.scene, scene_sample(labelled.scene)
    height, width, _ = scene.image.shape
    image = {
        "status": "labelled",
        "image_uid": sample["__key__"],
        "key": sample["__key__"],
        "sha256": hashlib.sha256(sample["png"]).hexdigest(),
        "width": width,
        "height": height,
        "caption_short": scene_caption(scene, "en", "short"),
        "caption_long": scene_caption(scene, "en", "long"),
    }
    instances = [
        {
            "instance_uid": labelled.key(place),
            "category_id": CLASS_IDS[scene.things[place].noun],
            "bbox": list(scene.things[place].box_xywh),
            "score": 1.0,
            "caption_short": labelled.phrase(place),
            "caption_long": region_long(scene, place, "en").removesuffix(".").lower(),
        }
        for place in labelled.kept
    ]
    return image, instances, sample["png"]


if __name__ == "__main__":
    sys.exit(main())
