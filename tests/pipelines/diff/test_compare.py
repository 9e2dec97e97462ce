"""Diffs of runs whose differences are known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ovsops.errors import ConfigError, OutputError
from ovsops.masks.rle import mask_to_rle
from ovsops.metrics.drift import DriftConfig
from ovsops.text.vocabulary import Vocabulary
from pipelines.diff.canary import canary_differs, canary_labels, drift_verdict
from pipelines.diff.changes import changes_between
from pipelines.diff.classes import join_classes
from pipelines.diff.compare import DiffResult, diff_runs
from pipelines.diff.config import DiffConfig, DiffLimits, MatchConfig
from pipelines.diff.matching import Label, match_labels
from pipelines.diff.text import diff_lines
from pipelines.storage import open_storage
from tests.pipelines.made_runs import VOCABULARY, Made, Picture, write_run

QUICK = DiffConfig(drift=DriftConfig(num_permutations=2999))
CAT, DOG = Made(1), Made(2, (40, 40, 60, 60))


def pictures(num: int, *labels: Made, start: int = 0) -> list[Picture]:
    return [Picture(f"p{n}", labels) for n in range(start, start + num)]


def diff(first: Path, second: Path, config: DiffConfig = QUICK) -> DiffResult:
    return diff_runs(open_storage(str(first)), open_storage(str(second)), config)


def text(result: DiffResult) -> str:
    return "\n".join(diff_lines(result))


def label(place: int, box: tuple[int, int, int, int], score: float = 0.5) -> Label:
    mask = np.zeros((64, 64), bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return Label(place=place, mask=mask_to_rle(mask), score=score, decision="accept")


def test_labels_match_by_class_then_by_overlap() -> None:
    first = [label(0, (0, 0, 20, 20)), label(1, (30, 0, 50, 20)), label(0, (0, 40, 10, 50))]
    second = [
        label(0, (0, 0, 20, 14)),  # IoU 0.7 with the first
        label(2, (0, 0, 20, 19)),  # IoU 0.95 with it, another class
        label(2, (30, 0, 50, 20)),
        label(0, (50, 50, 60, 60)),
    ]
    match = match_labels(first, second, MatchConfig())
    assert [(pair.fate, round(pair.iou, 2)) for pair in match.matched] == [("moved", 0.7), ("renamed", 1.0)]
    assert [each.mask for each in match.lost] == [first[2].mask]
    assert len(match.new) == 2
    assert match.num_changed == 5


def test_each_label_matches_once_and_kept_is_not_identical() -> None:
    match = match_labels(
        [label(0, (0, 0, 20, 20))], [label(0, (0, 0, 20, 20), 0.6), label(0, (0, 0, 20, 20))], MatchConfig()
    )
    assert [pair.fate for pair in match.matched] == ["kept"]
    assert len(match.new) == 1
    nearly = match_labels([label(0, (0, 0, 50, 50))], [label(0, (0, 0, 50, 49))], MatchConfig())
    assert [pair.fate for pair in nearly.matched] == ["kept"]
    assert not nearly.matched[0].is_identical


def test_masks_of_other_sizes_do_not_match() -> None:
    small = Label(place=0, mask=mask_to_rle(np.ones((8, 8), bool)), score=0.5, decision=None)
    match = match_labels([small], [label(0, (0, 0, 8, 8))], MatchConfig())
    assert (match.matched, len(match.lost), len(match.new)) == ((), 1, 1)


def test_a_run_beside_itself_is_identical(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"s.tar": pictures(3, CAT, DOG)})
    result = diff(run, run)
    assert result.labels.is_identical
    assert result.labels.identical == 6
    assert result.labels.ious[-1] == 6
    assert not result.alarms
    assert "identical: all 6 labels" in text(result)
    assert "one run has 3 images" in result.drift.not_tested
    json.dumps(result.to_plain(), allow_nan=False)


def test_runs_of_one_label(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(1, CAT)})
    assert "1 image, 1 label, 1 shard, recipe" in text(diff(first, first))
    assert "identical: 1 label, pixel by pixel" in text(diff(first, first))
    second = write_run(tmp_path / "b", {"s.tar": pictures(1, replace(CAT, category=2))})
    changed = text(diff(first, second))
    assert "(1 label)" in changed
    assert "labels of 1 of 1 same image differ" in changed
    assert "one run has 1 image," in diff(first, second).drift.not_tested


def test_fates_by_class_decisions_and_outcomes(tmp_path: Path) -> None:
    first = write_run(
        tmp_path / "a",
        {"s.tar": [Picture("1", (CAT, DOG)), Picture("2", (CAT,)), Picture("3", (CAT,)), Picture("4")]},
    )
    second = write_run(
        tmp_path / "b",
        {
            # Other shards, another order: images are found by their bytes.
            "t.tar": [Picture("2", (replace(CAT, category=2),)), Picture("4", (DOG,))],
            "u.tar": [
                Picture("3", (), error="E_TRUNCATED", key="k3"),
                Picture(
                    "1", (replace(CAT, decision="review", score=0.25), replace(DOG, box=(40, 40, 60, 52)))
                ),
            ],
        },
    )
    result = diff(first, second)
    labels = result.labels
    assert labels.images == 3
    assert labels.by_fate == {"kept": 1, "moved": 1, "renamed": 1, "lost": 0, "new": 1}
    assert labels.changed_share == 0.75
    assert dict(labels.renames) == {(0, 1): 1}
    assert dict(labels.decisions) == {("accept", "review"): 1}
    assert labels.score_difference_max == 0.5
    # A failed image has no content to compare, so it is another image.
    assert not labels.outcomes
    assert labels.examples[0].key in {"k1", "k2", "k4"}
    by_name = {each["name"]: each for each in result.to_plain()["labels"]["classes"]}
    assert by_name["cat"] == {
        "name": "cat", "first": 2, "second": 1, "kept": 1, "moved": 0, "renamed": 1, "lost": 0, "new": 0,
    }  # fmt: skip
    assert by_name["dog"]["new"] == 1
    assert any("75.0% of the labels" in alarm for alarm in result.alarms)
    assert any("the decision on 33.3%" in alarm for alarm in result.alarms)
    assert "cat -> dog: 1" in text(result)


def test_an_image_that_fails_now_is_another_outcome(tmp_path: Path) -> None:
    """Where the bytes cannot be read in either run, shard and key make it the same image."""
    first = write_run(tmp_path / "a", {"s.tar": [Picture("1", error="E_STORAGE"), Picture("2", (CAT,))]})
    second = write_run(tmp_path / "b", {"s.tar": [Picture("1", error="E_EMPTY"), Picture("2", (CAT,))]})
    labels = diff(first, second).labels
    assert dict(labels.outcomes) == {("failed E_STORAGE", "failed E_EMPTY"): 1}
    assert not labels.is_identical


def test_equal_bytes_twice_pair_one_to_one(tmp_path: Path) -> None:
    twice = [Picture("1", (CAT,), key="a"), Picture("1", (CAT,), key="b")]
    first = write_run(tmp_path / "a", {"s.tar": twice})
    second = write_run(tmp_path / "b", {"s.tar": twice[:1], "t.tar": [Picture("9", (DOG,))]})
    assert diff(first, second).labels.images == 1


def test_a_checkpoint_is_named(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(30, CAT)})
    second = write_run(
        tmp_path / "b",
        {"s.tar": pictures(30, replace(CAT, box=(10, 10, 24, 24)))},
        checkpoints={"mapper": "elsewhere sha256:" + "b" * 64},
    )
    result = diff(first, second)
    assert result.attribution.suspects == ("checkpoint",)
    assert result.attribution.is_certain
    verdict = drift_verdict(result)
    assert verdict.is_alarm
    assert verdict.named == ("checkpoint mapper",)
    assert "only this changed: checkpoints (mapper)" in text(result)
    assert "data        the same 1 shard" in text(result)


def test_a_new_calibrator_alone_changes_labels(tmp_path: Path) -> None:
    def run(name: str, chance: float) -> Path:
        label = Made(1, fields={"score_calibrated": chance})
        return write_run(
            tmp_path / name, {"s.tar": pictures(3, label)}, recipe={"calibrator": {"sha256": name}}
        )

    first, second = run("a", 0.5), run("b", 0.75)
    result = diff(first, second)
    assert not result.labels.is_identical
    assert (result.labels.recalibrated, result.labels.images_unchanged) == (3, 0)
    assert not result.alarms
    assert result.attribution.suspects == ("checkpoint",)
    assert "calibrated scores of 3 matched labels changed" in text(result)
    then, now = (canary_labels(open_storage(str(each))) for each in (first, second))
    assert canary_differs(then, now).differs


def test_labels_that_change_by_themselves_are_said_to(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(3, CAT)})
    second = write_run(tmp_path / "b", {"s.tar": pictures(3, DOG)})
    result = diff(first, second)
    assert result.attribution.suspects == ()
    assert "not deterministic" in text(result)


def test_new_data_drift_and_nothing_else_is_suspected(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(40, CAT)})
    second = write_run(tmp_path / "b", {"s.tar": pictures(40, DOG, start=100)})
    result = diff(first, second)
    assert result.attribution.suspects == ("data",)
    alarmed = {each.name for each in result.drift.features if each.alarm}
    assert alarmed >= {"class_mix", "class_area"}
    assert "decision" not in alarmed
    movers = next(each for each in result.drift.features if each.name == "class_mix").movers
    assert {(m.name, m.first, m.second) for m in movers} == {("cat", 1.0, 0.0), ("dog", 0.0, 1.0)}
    assert "the runs share no image" in text(result)
    json.dumps(result.to_plain(), allow_nan=False)


def test_several_changes_on_other_images_are_not_told_apart(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(40, CAT)})
    second = write_run(
        tmp_path / "b",
        {"t.tar": pictures(40, DOG, start=100)},
        recipe={"threshold": 0.7},
        versions={"ovsops": "0.2"},
    )
    result = diff(first, second)
    assert result.attribution.suspects == ("data", "recipe", "code")
    assert "cannot be told apart" in text(result)
    assert "threshold: 0.5 -> 0.7" in text(result)
    assert drift_verdict(result).named == (
        "data shard s.tar",
        "data shard t.tar",
        "recipe threshold",
        "code ovsops",
    )


def test_drift_with_identical_shared_images_comes_with_the_data(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(40, CAT)})
    second = write_run(
        tmp_path / "b",
        {"s.tar": pictures(40, CAT), "t.tar": pictures(80, DOG, start=100)},
        versions={"ovsops": "0.2"},
    )
    result = diff(first, second)
    assert result.labels.is_identical
    assert result.drift.num_pairs == 0  # one run holds the other: there would be nothing to shuffle
    assert result.attribution.suspects == ("data",)
    assert "came with other images" in text(result)


def test_more_failures_alarm(tmp_path: Path) -> None:
    good, bad = pictures(60, CAT), pictures(45, CAT, start=100)
    broken = [Picture(f"b{n}", error="E_TRUNCATED") for n in range(15)]
    first = write_run(tmp_path / "a", {"s.tar": good})
    second = write_run(tmp_path / "b", {"s.tar": [*bad, *broken]})
    result = diff(first, second)
    assert result.drift.failed.alarm.startswith("failed_share went from 0.00% to 25.00%")
    assert "failed E_TRUNCATED" in text(result)


def test_two_draws_of_one_population_do_not_alarm(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for trial in range(6):
        runs = []
        for side in "ab":
            drawn = [
                Picture(
                    f"{side}{n}", tuple([CAT, DOG][int(rng.integers(2))] for _ in range(int(rng.integers(4))))
                )
                for n in range(25)
            ]
            runs.append(write_run(tmp_path / f"{side}{trial}", {"s.tar": drawn}))
        alarms += bool(diff(runs[0], runs[1]).alarms)
    assert alarms == 0


def test_samples_stand_for_large_runs(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", {"s.tar": pictures(60, CAT)})
    second = write_run(tmp_path / "b", {"s.tar": pictures(60, DOG)})
    config = DiffConfig(drift=DriftConfig(num_permutations=2999, max_images=30))
    result = diff(first, second, config)
    assert result.drift.num_permuted == (30, 30)
    assert result.drift.num_pairs == 30  # content chooses, so both runs choose alike
    mix = next(each for each in result.drift.features if each.name == "class_mix")
    assert (mix.first, mix.second) == (60, 60)
    assert mix.alarm


def vocabulary(*classes: tuple[int, str]) -> Vocabulary:
    plain: dict[str, Any] = VOCABULARY | {"classes": [{"id": n, "name": name} for n, name in classes]}
    return Vocabulary.from_mapping(plain)


def test_classes_join_by_name() -> None:
    joined = join_classes(
        vocabulary((1, "cat"), (2, "dog"), (3, "car")), vocabulary((1, "dog"), (3, "auto"), (4, "cat"))
    )
    assert joined.names == ("cat", "dog", "car")
    assert (joined.first, joined.second) == ({1: 0, 2: 1, 3: 2}, {1: 1, 3: 2, 4: 0})
    assert set(joined.moved_ids) == {"dog: id 2 -> 1", "cat: id 1 -> 4"}
    assert joined.renamed == ("id 3: car -> auto",)
    assert not joined.is_same


def test_where_weights_lie_is_no_change() -> None:
    one = {
        "checkpoints": {"m": "here sha256:1"},
        "recipe": {"m": {"sha256": "1", "source": "here", "revision": None}},
    }
    two = {
        "checkpoints": {"m": "there sha256:1"},
        "recipe": {"m": {"sha256": "1", "source": "there", "revision": None}},
    }
    assert changes_between(one, two, [], []).changes == ()


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", {"s.tar": pictures(1, CAT)})
    with pytest.raises(OutputError, match=r"no run\.json"):
        diff(run, tmp_path / "nothing")
    empty = write_run(tmp_path / "b", {})
    with pytest.raises(OutputError, match="no shard is committed"):
        diff(run, empty)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MatchConfig(match_iou=0.0), "match_iou"),
        (lambda: MatchConfig(kept_iou=0.4), "kept_iou"),
        (lambda: DiffLimits(max_changed_share=2.0), "max_changed_share"),
    ],
)
def test_config(make: Any, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make()


def test_the_canary(tmp_path: Path) -> None:
    then = canary_labels(open_storage(str(write_run(tmp_path / "a", {"c.tar": pictures(3, CAT, DOG)}))))
    same = write_run(
        tmp_path / "b",
        {"c.tar": pictures(3, DOG, CAT), "d.tar": pictures(2, CAT, start=50)},
        checkpoints={"mapper": "x sha256:2"},
    )
    now = canary_labels(open_storage(str(same)), frozenset({"c.tar"}))
    assert not canary_differs(then, now).differs  # neither order nor checkpoint is a label
    assert canary_differs(then, now).sentence() == "the canary's labels are what they were (3 images)"
    other = [*pictures(2, CAT, DOG), Picture("p2", (CAT, replace(DOG, score=0.7500001)))]
    changed = canary_labels(open_storage(str(write_run(tmp_path / "c", {"c.tar": other}))))
    verdict = canary_differs(then, changed)
    assert (verdict.differs, len(verdict.changed), verdict.compared) == (True, 1, 3)
    assert "labels of 1 of 3 images differ" in verdict.sentence()
    gone = canary_differs(then, {})
    assert (gone.differs, len(gone.gone)) == (True, 3)
    assert canary_differs({}, {}).differs
    assert "cannot say anything" in canary_differs({}, {}).sentence()
