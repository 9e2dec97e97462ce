"""The loop closed: labels of drawn scenes, negatives, a training set, a fine-tuned FG-CLIP 2, and what it knows after.

python -m benchmarks.loop_closed WORK --start FOLDER [--arms none random frequency ours] [--scenes 1200] [--steps 200]
    [--batch 8] [--seed 0] [--set FIELD=VALUE ...] [--test-scenes 300] [--json FILE]

The sets are those of `python -m benchmarks.loop_closed_sets WORK`; arms differ in the negatives alone: same start
(`python -m benchmarks.loop_closed_start` makes one), scenes, batches, steps and seed. Each is `ovsops run` of
`train_fgclip2_set_miniature.yaml`; `--set` changes further fields of it, for all arms.

The test set is not skewed as the sets are: held-out scenes whose values are all as frequent, phrases that say what
captions say, and ten false ones drawn evenly from the world's record, which say another value in the place of one that
is said; a blind model is at chance there, and is printed beside.

An arm that is whole is not trained again; one that was killed goes on. Exit 1 where a bar is missed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fgclip2_quality import first_scenes
from benchmarks.loop_closed_sets import ARMS, Arm, are_true, set_rows, write_sets
from benchmarks.miniature_quality import Row, interval, markdown, recall
from jobs.recipe import LoadedTrain, load_recipe
from jobs.train import LineTrainObserver, run_training
from ovsops.errors import TrainingError
from ovsops.metrics.blind import blind_scores
from ovsops.metrics.bootstrap import bootstrap, paired_bootstrap
from ovsops.metrics.fgovd import expression_similarity, positive_is_first
from ovsops.miniature.attributes import COLOURS, MATERIALS, NOUNS, PATTERNS, SIZES, Word
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.scene import Scene, Thing, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.training.fgclip2_quality import caption_ranks, encode_scenes, load_fgclip2
from ovsops.training.fgclip2_scenes import corners
from ovsops.training.quality import share_right
from ovsops.training.scenes import LENGTHS, bank_of

NUM_CANDIDATES = 256
"""Scenes of the retrieval."""
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
MOST_LOST = 0.02
"""What R@1 may lose."""


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
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="FIELD=VALUE")
    parser.add_argument("--test-scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    sets = write_sets(options.work, options.arms, options.scenes)
    print(f"\nNegatives of the sets, {options.scenes} scenes\n\n{markdown(set_rows(sets))}", flush=True)
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
    loaded = load_recipe(RECIPE, [*options.settings, *(f"{name}={value}" for name, value in fields.items())])
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
    if are_true(sets):
        sentences.append(f"{sets['ours']['true']} of {sets['ours']['negatives']} negatives of ours are true")
    sentences += [
        f"mean R@1 of ours falls by {-row['mean change']:.3f}"
        for row in retrieval
        if row["checkpoint"] == "ours" and row["mean change"] < -MOST_LOST
    ]
    return sentences


if __name__ == "__main__":
    sys.exit(main())
