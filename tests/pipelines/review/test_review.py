"""The queue puts first what is uncertain, stands for many, and matters; never twice the same."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError
from pipelines.review.config import ReviewConfig
from pipelines.review.queue import ReviewQueue, make_queue, queue_to_bytes
from pipelines.review.select import class_values
from pipelines.review.uncertainty import binary_entropy, doubt_of
from pipelines.storage import open_storage
from tests.pipelines.made_runs import Made, Picture, write_run


def queue(run: Path, **fields: Any) -> ReviewQueue:
    return make_queue(open_storage(str(run)), ReviewConfig(**fields))


def row(**fields: Any) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "score_calibrated": None,
        "rivals": [],
        "agreement_other": None,
        "verdict": None,
    }
    return {"score": 1.0} | nothing | fields


def test_doubts_by_hand() -> None:
    assert doubt_of(row(), {}).value == 0
    assert doubt_of(row(score=0.5), {}).value == 1
    assert doubt_of(row(score=0.5, score_calibrated=1.0), {}).value == 0
    rival = doubt_of(row(rivals=[{"category_id": 2, "score": 0.4}]), {2: "dog"})
    assert rival.value == pytest.approx(0.4)
    assert rival.reasons == ("dog fits nearly as well (0.40)",)
    both = doubt_of(row(agreement_other=0.5, verdict="unsure"), {})
    assert both.value == pytest.approx(0.75)
    assert len(both.reasons) == 2
    assert doubt_of(row(verdict="no"), {}).value == 1


@given(st.floats(0, 1))
def test_entropy(chance: float) -> None:
    assert 0 <= binary_entropy(chance) <= 1
    assert binary_entropy(chance) == pytest.approx(binary_entropy(1 - chance), abs=1e-6)


def test_uncertain_ones_come_first(tmp_path: Path) -> None:
    boxes = [(0, 0, 10, 10), (50, 50, 64, 64), (0, 40, 30, 64), (30, 0, 64, 30)]
    scores = [0.99, 0.5, 0.9, 0.97]
    pictures = [Picture(f"p{n}", (Made(1, boxes[n], scores[n]),)) for n in range(4)]
    rows = list(queue(write_run(tmp_path / "run", {"s.tar": pictures})).rows())
    assert [each["score"] for each in rows] == [0.5, 0.9, 0.97, 0.99]
    assert rows[0]["reasons"] == ["score 0.50 is near even chance"]
    assert rows[0]["priority"] == pytest.approx(1.0, abs=0.05)  # doubt 1, value 1, stands for itself


def test_one_of_many_alike_stands_for_them(tmp_path: Path) -> None:
    alike = [Picture(f"a{n}", (Made(1, (8, 8, 24, 24), 0.6),)) for n in range(20)]
    alone = [Picture("z", (Made(1, (40, 40, 64, 64), 0.6),))]
    rows = list(queue(write_run(tmp_path / "run", {"s.tar": [*alike, *alone]}), budget=3).rows())
    assert [each["represents"] for each in rows] == [20, 1, 0]
    assert rows[0]["key"].startswith("ka")
    assert rows[1]["key"] == "kz"
    assert "stands for 19 more like it" in rows[0]["reasons"]
    assert rows[2]["priority"] < 0.01 < rows[1]["priority"]


def test_rare_classes_and_values(tmp_path: Path) -> None:
    def spread(n: int) -> tuple[int, int, int, int]:
        return (4 * (n % 12), 4 * (n // 12), 4 * (n % 12) + 8, 4 * (n // 12) + 8)

    pictures = [Picture(f"c{n}", (Made(1, spread(n), 0.6),)) for n in range(100)]
    pictures += [Picture(f"d{n}", (Made(2, spread(7 * n), 0.6),)) for n in range(4)]
    run = write_run(tmp_path / "run", {"s.tar": pictures})

    def dogs(**fields: Any) -> list[dict[str, Any]]:
        return [
            each for each in queue(run, budget=20, bandwidth=0.02, **fields).rows() if each["class"] == "dog"
        ]

    assert len(dogs(rarity=1.0)) == 4
    assert dogs(rarity=1.0)[0]["rank"] == 1
    assert "rare class (4 labels)" in dogs(rarity=1.0)[0]["reasons"]
    assert not dogs(class_values={"dog": 0.0})
    assert {each["class"] for each in queue(run, budget=4, class_values={"dog": 100.0}).rows()} == {"dog"}
    assert class_values({1: 100, 2: 4}, {1: "cat", 2: "dog"}, ReviewConfig()) == {1: 0.2, 2: 1.0}


def test_equal_pictures_count_once_and_images_have_a_limit(tmp_path: Path) -> None:
    doubled = [Picture("1", (Made(1, score=0.6),), key=key) for key in ("a", "b")]
    crowded = [Picture("2", tuple(Made(2, (n, n, n + 20, n + 20), 0.6) for n in range(10)))]
    found = queue(write_run(tmp_path / "run", {"s.tar": [*doubled, *crowded]}), max_per_image=2)
    assert found.doubles == 1
    assert [each["class"] for each in found.rows()].count("cat") == 1
    assert [each["class"] for each in found.rows()].count("dog") == 2
    assert len({each["instance_uid"] for each in found.rows()}) == 3


def test_codes_come_with_words(tmp_path: Path) -> None:
    label = Made(1, score=0.9, fields={"reason_codes": ["R_TINY"]})
    (only,) = queue(write_run(tmp_path / "run", {"s.tar": [Picture("1", (label,))]})).rows()
    assert only["reasons"] == ["score 0.90 leaves doubt", "R_TINY: The mask has few pixels"]


def test_budget_and_determinism(tmp_path: Path) -> None:
    pictures = [
        Picture(f"p{n}", (Made(1 + n % 3, (n % 30, 3, n % 30 + 9, 12), 0.5 + n / 300),)) for n in range(120)
    ]
    run = write_run(tmp_path / "run", {"s.tar": pictures[:60], "t.tar": pictures[60:]})
    swapped = write_run(tmp_path / "swapped", {"t.tar": pictures[60:], "s.tar": pictures[:60]})
    first = list(queue(run, budget=25).rows())
    assert len(first) == 25
    assert first == list(queue(swapped, budget=25).rows())
    assert first[:10] == list(queue(run, budget=10).rows())
    assert [each["priority"] for each in first] == sorted((each["priority"] for each in first), reverse=True)
    small = queue(run, budget=25, pool_per_class=5)
    assert small.candidates == 15
    assert len(small.chosen) == 15


def test_lazy_choice_is_the_greedy_one(tmp_path: Path) -> None:
    """Against the definition, computed anew for every candidate at every step."""
    pictures = [
        Picture(
            f"p{n}", (Made(1, (n * 7 % 40, n * 11 % 40, n * 7 % 40 + 16, n * 11 % 40 + 16), 0.5 + n / 60),)
        )
        for n in range(24)
    ]
    found = queue(write_run(tmp_path / "run", {"s.tar": pictures}), budget=8)
    everything = {each.candidate.uid: each.candidate for each in queue(tmp_path / "run", budget=24).chosen}
    taken: list[Any] = []
    for each in found.chosen:
        best, uid = max(
            (
                (sum(max(0.0, near(i, j) - max((near(i, t) for t in taken), default=0.0)) for i in everything.values())
                * j.doubt.value, name)
                for name, j in everything.items()
                if j not in taken
            ),
            key=lambda pair: (round(pair[0], 9), [-ord(c) for c in pair[1]]),
        )  # fmt: skip
        assert each.candidate.uid == uid
        assert each.priority == pytest.approx(best)
        taken.append(everything[uid])


def near(a: Any, b: Any) -> float:
    return math.exp(-float(((a.descriptor - b.descriptor) ** 2).sum()) / (2 * 0.25**2))


def test_files(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"s.tar": [Picture("1", (Made(1, score=0.6),), key="=evil")]})
    rows = list(queue(run).rows())
    assert [json.loads(line) for line in queue_to_bytes(rows, ".jsonl").splitlines()] == rows
    cells = next(csv.DictReader(io.StringIO(queue_to_bytes(rows, ".csv").decode("utf-8-sig"), newline="")))
    assert cells["key"] == "'=evil"
    assert cells["bbox_xywh"] == "8.0 8.0 16.0 16.0"
    with pytest.raises(ConfigError, match=r"\.csv or \.jsonl"):
        queue_to_bytes(rows, ".xlsx")


def test_nothing_to_review(tmp_path: Path) -> None:
    found = queue(write_run(tmp_path / "run", {"s.tar": [Picture("1", (Made(1, score=1.0),)), Picture("2")]}))
    assert (len(found.chosen), found.labels) == (0, 1)
    assert queue_to_bytes([], ".csv").startswith(b"\xef\xbb\xbfrank")
    with pytest.raises(ConfigError, match=r"no such class.*'cat'"):
        queue(tmp_path / "run", class_values={"cta": 2.0})


@pytest.mark.parametrize(
    "fields", [{"budget": 0}, {"bandwidth": 0.0}, {"rarity": 2.0}, {"class_values": {"cat": -1.0}}]
)
def test_config(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"review\."):
        ReviewConfig(**fields)
