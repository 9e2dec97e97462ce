"""The loop closed: labels of drawn scenes, negatives, a training set, a fine-tuned FG-CLIP 2, and what it knows after.

python -m benchmarks.loop_closed WORK --start FOLDER [--arms none random frequency ours] [--scenes 1200] [--steps 200]
    [--batch 8] [--seed 0] [--test-scenes 300] [--labels RUN] [--json FILE]

Labels are the world's true boxes and its own region phrases (`big red striped fish`), which leave plain, matte and
medium unsaid. A negative puts another value that is said into the place of one that is said, and never says or drops
one more, so that it is false wherever the phrase is true.

The corpus is skewed, as photographs are (of FG-OVD's phrases 721 say black and 1 says dark yellow): a thing is
labelled with a chance that falls with the rank of its values (`SKEW`). The test set is not: held-out scenes whose
values are all as frequent, negatives drawn evenly from the world's record, so that a blind model is at chance; it is
printed beside.

`--labels RUN` tells the same of the captions of a label run over drawn shards: these may be wrong, and a negative of a
wrong caption may be true.

Arms differ in the negatives alone: same start, scenes, batches, steps and seed.

    none        no negatives: the hard terms weigh nothing
    random      ten of the false phrases that the rules allow, each as likely as the others
    frequency   ten of the same, each as likely as the corpus says its value
    ours        ten of the same, drawn so that every value goes out of phrases as often as it comes in

An arm that is whole is not trained again; one that was killed goes on. Exit 1 where a bar is missed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.fgclip2_quality import first_scenes
from benchmarks.miniature_quality import Row, interval, markdown, recall
from benchmarks.world_negatives import true_phrases
from jobs.recipe import LoadedTrain, load_recipe
from jobs.train import LineTrainObserver, run_training
from ovsops.errors import TrainingError
from ovsops.metrics.blind import blind_scores
from ovsops.metrics.bootstrap import bootstrap, paired_bootstrap
from ovsops.metrics.fgovd import expression_similarity, positive_is_first
from ovsops.miniature.attributes import CLASS_IDS, COLOURS, MATERIALS, NOUNS, PATTERNS, SIZES, Word
from ovsops.miniature.captions import region_long, region_phrase, scene_caption
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import Scene, Thing, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.negatives.balance import inclusion
from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.sampler import Negatives, NegativeSampler, fit_sampler, parse
from ovsops.training.fgclip2_quality import caption_ranks, encode_scenes, load_fgclip2
from ovsops.training.fgclip2_scenes import corners
from ovsops.training.quality import share_right
from ovsops.training.scenes import LENGTHS, bank_of
from pipelines.training_sets.build import build_sample, region_negatives
from pipelines.training_sets.drops import Drops
from pipelines.training_sets.record import RegionNegatives
from pipelines.writers.finehard_parquet import FORMAT, finehard_parquet_writer
from pipelines.writers.whole_files import ImageFolder, write_index

Arm = Literal["none", "random", "frequency", "ours"]
ARMS: tuple[Arm, ...] = ("none", "random", "frequency", "ours")
FIRST_SCENE = 500_000
"""Of the training seeds: no scene that a shipped training saw."""
NUM_CANDIDATES = 256
"""Scenes of the retrieval."""
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
RECIPE = Path(__file__).parents[1] / "jobs/recipes/train_fgclip2_set_miniature.yaml"
VALUES: Mapping[str, tuple[Word, ...]] = {
    "colour": COLOURS,
    "pattern": PATTERNS,
    "material": MATERIALS,
    "size": SIZES,
    "noun": NOUNS,
}
BARS = {"none": 0.30, "random": 0.03, "frequency": 0.03}
"""What ours must gain over each, in shares of the rows."""
MOST_TRUE, MOST_LOST = 0.005, 0.02
"""Share of negatives that may be true; what R@1 may lose."""


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
    parser.add_argument("--start", type=Path, required=True, help="an FG-CLIP 2 after stage 1")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test-scenes", type=int, default=300)
    parser.add_argument("--labels", type=Path, help="a label run over drawn shards: are its negatives true?")
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    sets = write_sets(options)
    print(f"\nNegatives of the sets, {options.scenes} scenes\n\n{markdown(list(set_rows(sets)))}", flush=True)
    labels = [] if options.labels is None else label_table(options.labels)
    if labels:
        print(f"\nNegatives of the captions of {options.labels}\n\n{markdown(labels)}", flush=True)
    scenes = [draw_scene(seed) for seed in seeds_of("test")[: options.test_scenes]]
    rows = held_out(scenes)
    found = {"start": measured(options, "start", options.start, scenes, rows)}
    for arm in options.arms:
        found[arm] = measured(options, arm, train_arm(options, arm), scenes, rows)
    accuracies, gains, retrieval = (
        accuracy_table(found, rows),
        gain_table(found, rows),
        retrieval_table(found),
    )
    titles = (
        f"11-way on {len(rows.texts)} regions of {len(scenes)} test scenes; chance is 0.091",
        "Gain of ours, paired",
        f"Retrieval among {NUM_CANDIDATES} scenes",
    )
    for title, table in zip(titles, (accuracies, gains, retrieval), strict=True):
        print(f"\n{title}\n\n{markdown(table)}", flush=True)
    sentences = missed(sets, gains, retrieval)
    print("\n" + "\n".join(sentences or ["every bar is reached"]))
    if options.json:
        told = {
            "sets": sets,
            "accuracy": accuracies,
            "gains": gains,
            "retrieval": retrieval,
            "missed": sentences,
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return 1 if sentences else 0


def write_sets(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The set of every arm below WORK/sets, and what is told of each; those that are there are not written again."""
    folder = options.work / "sets"
    asked = {"scenes": options.scenes, "first": FIRST_SCENE, "skew": SKEW}
    told: dict[str, dict[str, Any]] = {}
    corpus: list[Labelled] = []
    sampler: NegativeSampler | None = None
    for arm in options.arms:
        facts = folder / f"{arm}.json"
        if facts.is_file() and (before := json.loads(facts.read_text("utf-8")))["asked"] == asked:
            told[arm] = before["told"]
            continue
        if sampler is None:
            corpus = list(labelled_scenes(options.scenes))
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
        table.append({"negatives": arm, **told, "true": f"{told['true']} ({share:.2%})"})
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


def set_rows(sets: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """A row a set."""
    for arm, told in sets.items():
        if arm != "none":
            share = told["true"] / max(1, told["negatives"])
            yield {"set": arm, **told, "true": f"{told['true']} ({share:.2%})"}


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


def pool_pairs(pool: Any, picks: np.ndarray) -> list[tuple[int, int]]:
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
                if (negatives := arm_negatives(arm, sampler, labelled, place)) is not None
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
                negatives={} if arm == "none" else found,
                drops=drops,
            )
            assert sample is not None, f"scene {labelled.scene.seed}: {drops}"
            images.put(sample)
            writer.add(sample)
        write_index(folder, FORMAT, writer.finish(), {})
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


def train_arm(options: argparse.Namespace, arm: Arm) -> Path:
    """Fine-tune on the arm's set, as `ovsops run` does with the recipe and these fields; the checkpoint."""
    fields = {
        "input.set": options.work / "sets" / arm,
        "output": options.work / "trained" / arm,
        "program.start.source": options.start,
        "program.batch_size": options.batch,
        "program.seed": options.seed,
        "loop.num_steps": options.steps,
    }
    loaded = load_recipe(RECIPE, [f"{name}={value}" for name, value in fields.items()])
    assert isinstance(loaded, LoadedTrain)
    summary = run_training(loaded, engine="inline", observer=LineTrainObserver())
    if not summary["checkpoint"]:
        raise TrainingError(f"arm {arm}: {summary['over_limits']}; see {fields['output']}/summary.json")
    return Path(summary["checkpoint"])


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Regions of held-out scenes with their true phrase and ten false ones."""

    boxes: list[list[tuple[float, float, float, float]]]
    """Of each scene, pixels."""
    texts: list[list[str]]
    """Of each region: the true phrase, then the others."""
    kinds: list[list[str]]
    """Attribute in which each of the others is wrong."""
    scenes: np.ndarray
    """Place of each region's scene."""


def held_out(scenes: Sequence[Scene]) -> HeldOut:
    """Negatives are all as likely: wrong values of what is said, and nouns where these are fewer than ten."""
    boxes, texts, kinds, places = [], [], [], []
    for place, scene in enumerate(scenes):
        boxes.append([corners(thing) for thing in scene.things])
        for number, thing in enumerate(scene.things):
            changes = wrong_phrases(thing, np.random.default_rng([11, scene.seed, number]))
            texts.append([region_phrase(thing, "en"), *(text for _, text in changes)])
            kinds.append([kind for kind, _ in changes])
            places.append(place)
    return HeldOut(boxes=boxes, texts=texts, kinds=kinds, scenes=np.array(places, np.int64))


def wrong_phrases(thing: Thing, generator: np.random.Generator) -> list[tuple[str, str]]:
    """Ten phrases that say another value in the place of one that is said, and what kind of value."""
    attributes: list[tuple[str, str]] = []
    nouns: list[tuple[str, str]] = []
    for kind, words in VALUES.items():
        own = next(word for word in words if word.name == getattr(thing, kind))
        if not own.en:
            continue
        others = [word.name for word in words if word.en and word is not own]
        told = nouns if kind == "noun" else attributes
        told += [(kind, region_phrase(changed(thing, kind, name), "en")) for name in others]
    chosen = [attributes[place] for place in generator.permutation(len(attributes))[:NUM_NEGATIVES]]
    more = NUM_NEGATIVES - len(chosen)
    return chosen + [nouns[place] for place in generator.permutation(len(nouns))[:more]]


def changed(thing: Thing, kind: str, value: str) -> Thing:
    """The thing with another value of one attribute."""
    fields: dict[str, Any] = {kind: value}
    return replace(thing, **fields)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one checkpoint does with the held-out scenes."""

    is_right: torch.Tensor
    """Whether the true phrase of each region beats its ten."""
    beats: torch.Tensor
    """The same against each of the ten."""
    ranks: Mapping[tuple[str, str], torch.Tensor]
    """Of captions, by length and direction."""


def measure(folder: Path, scenes: Sequence[Scene], rows: HeldOut) -> Measured:
    """Regions from their true boxes, captions of the first scenes; all by the loader that ships."""
    model = load_fgclip2(folder)
    bank = bank_of(scenes)
    images = encode_scenes(model, bank)
    features = torch.cat(
        [
            model.region_features(image, torch.tensor(boxes).reshape(-1, 4))[0]
            for image, boxes in zip(images, rows.boxes, strict=True)
        ]
    )
    texts = model.encode_text([text for row in rows.texts for text in row], length="box")
    similarity = expression_similarity(features, texts.unflatten(0, (len(rows.texts), -1)))
    gallery = first_scenes(bank, NUM_CANDIDATES)
    return Measured(
        is_right=positive_is_first(similarity),
        beats=similarity[:, :1] > similarity[:, 1:],
        ranks={
            (length, direction): found
            for length in LENGTHS
            for direction, found in caption_ranks(
                model, gallery, images[:NUM_CANDIDATES], "en", length
            ).items()
        },
    )


def measured(
    options: argparse.Namespace, name: str, folder: Path, scenes: Sequence[Scene], rows: HeldOut
) -> Measured:
    """The same, kept in WORK for these weights and scenes."""
    weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    place = options.work / "measured" / f"{name}-{len(scenes)}-{weights[:12]}.json"
    if not place.is_file():
        found = measure(folder, scenes, rows)
        plain = {
            "is_right": found.is_right.tolist(),
            "beats": found.beats.tolist(),
            "ranks": [[*kind, ranks.tolist()] for kind, ranks in found.ranks.items()],
        }
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(plain), "utf-8")
    plain = json.loads(place.read_text("utf-8"))
    return Measured(
        is_right=torch.tensor(plain["is_right"]),
        beats=torch.tensor(plain["beats"]),
        ranks={(length, direction): torch.tensor(ranks) for length, direction, ranks in plain["ranks"]},
    )


def by_scene(rows: HeldOut, is_right: torch.Tensor) -> np.ndarray:
    """Right regions and all of them in each scene [N 2], for intervals that draw scenes again."""
    length = int(rows.scenes.max()) + 1
    counts = [np.bincount(rows.scenes[mask], minlength=length) for mask in (is_right.numpy(), slice(None))]
    return np.stack(counts, axis=1).astype(np.int64)


def accuracy_table(found: Mapping[str, Measured], rows: HeldOut) -> list[Row]:
    """11-way accuracy, the same of pairs by the kind of change, and the blind model's."""
    kinds = np.array(rows.kinds)
    table: list[Row] = [
        {
            "checkpoint": name,
            "11-way": interval(bootstrap(by_scene(rows, measured.is_right), share_right)),
            **{
                f"against another {kind}": float(
                    measured.beats[torch.from_numpy(kinds == kind)].double().mean()
                )
                for kind in VALUES
            },
        }
        for name, measured in found.items()
    ]
    scores, num_texts = blind_scores(rows.texts, rows.scenes.tolist())
    blind = positive_is_first(scores, num_texts)
    return [
        *table,
        {"checkpoint": "blind", "11-way": interval(bootstrap(by_scene(rows, blind), share_right))},
    ]


def gain_table(found: Mapping[str, Measured], rows: HeldOut) -> list[Row]:
    """What ours has more than each other arm on the same regions, beside the bar."""
    table: list[Row] = []
    for arm, bar in BARS.items():
        if arm not in found or "ours" not in found:
            continue
        ours, other = (by_scene(rows, found[name].is_right) for name in ("ours", arm))
        gain = interval(paired_bootstrap(ours, other, share_right))
        table.append({"ours over": arm, "11-way": gain, "bar": bar, "reached": gain["value"] >= bar})
    return table


def retrieval_table(found: Mapping[str, Measured]) -> list[Row]:
    """R@1 among the first scenes, and what is lost against the start."""
    before = found["start"].ranks
    table: list[Row] = []
    for name, measured in found.items():
        row: Row = {"checkpoint": name}
        for (length, direction), ranks in measured.ranks.items():
            row[f"R@1 {length}, {direction}"] = recall(ranks, 1)
        hits = [
            torch.stack([ranks <= 1 for ranks in of.values()]).double().mean()
            for of in (before, measured.ranks)
        ]
        row["mean change"] = float(hits[1] - hits[0])
        table.append(row)
    return table


def missed(
    sets: Mapping[str, Mapping[str, Any]], gains: Sequence[Row], retrieval: Sequence[Row]
) -> list[str]:
    """One sentence a bar."""
    sentences = [
        f"ours is {row['11-way']['value']:.3f} over {row['ours over']}, not {row['bar']}"
        for row in gains
        if not row["reached"]
    ]
    told = sets.get("ours")
    if told is not None and told["true"] > MOST_TRUE * told["negatives"]:
        sentences.append(f"{told['true']} of {told['negatives']} negatives of ours are true")
    sentences += [
        f"mean R@1 of ours falls by {-row['mean change']:.3f}"
        for row in retrieval
        if row["checkpoint"] == "ours" and row["mean change"] < -MOST_LOST
    ]
    return sentences


if __name__ == "__main__":
    sys.exit(main())
