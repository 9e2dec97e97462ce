"""Samples are drawn as promised, forms survive people, and answers become the right figures."""

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, OutputError
from ovsops.metrics.audit import AcceptanceConfig
from ovsops.regions.calibration import CalibrationConfig, fit_calibrator
from pipelines.audit.config import SampleConfig
from pipelines.audit.form import COLUMNS, MAX_BYTES, form_rows, harmless, read_answers, to_csv, to_json_lines
from pipelines.audit.pictures import page, write_pictures
from pipelines.audit.record import (
    SampleRecord,
    check_same_labels,
    read_record,
    record_of,
    tables_sha256,
)
from pipelines.audit.result import judge_answers, next_steps, outcomes_of
from pipelines.audit.sample import ALL, RARE, Sample, Stratum, draw_sample, join_strata
from pipelines.audit.text import drawn_lines, result_lines
from pipelines.evaluation.pictures import ImageSource
from pipelines.ledger import Ledger
from pipelines.shards import expand_inputs
from pipelines.storage import open_storage
from tests.pipelines.made_runs import NAMES, Made, Picture, write_run
from tests.tiny.world import label_world, write_world

IDS = dict(enumerate(NAMES, 1))
CONFIG = AcceptanceConfig()


def many(num: int = 60, **changes: Any) -> dict[str, list[Picture]]:
    """`num` cats that were accepted, a tenth as many dogs for review, on two shards."""
    shards: dict[str, list[Picture]] = {"a.tar": [], "b.tar": []}
    for n in range(num):
        dogs = (Made(2, (30, 30, 60, 60), 0.3, "review"),) if n % 10 == 0 else ()
        shards["ab"[n % 2] + ".tar"].append(
            Picture(f"p{n}", (Made(1, score=0.6 + 0.3 * n / num, **changes), *dogs))
        )
    return shards


def draw(run: Path, **fields: Any) -> Sample:
    storage = open_storage(str(run))
    return draw_sample(storage, Ledger(storage).read_all(), IDS, SampleConfig(**fields))


def record(run: Path, **fields: Any) -> SampleRecord:
    storage = open_storage(str(run))
    return record_of(
        draw(run, **fields),
        SampleConfig(**fields),
        run=str(run),
        recipe_hash="hash",
        tables_sha256=tables_sha256(Ledger(storage).read_all()),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("audited") / "run", many())


def uids(sample: Sample) -> list[str]:
    return [row.label["instance_uid"] for row in sample.rows]


def test_strata_sizes_and_rows(run: Path) -> None:
    sample = draw(run, rows=30)
    assert sample.sizes == {
        Stratum(class_name="cat", decision="accept", band="0.5 to 0.8"): 40,
        Stratum(class_name="cat", decision="accept", band="0.8 to 1"): 20,
        Stratum(class_name="dog", decision="review", band="0 to 0.5"): 6,
    }
    drawn = sample.drawn
    assert sum(drawn.values()) == 30
    assert len(set(uids(sample))) == 30
    # Two of each; of the other 24 by the roots of 40, 20 and 6: 11.5, 8.1 and 4.4, of which there are 4 more.
    assert list(drawn.values()) == [14, 10, 6]
    for row in sample.rows:
        assert row.stratum.class_name == row.class_name == IDS[row.label["category_id"]]
        assert row.key.startswith("kp")


def test_the_seed_decides_and_the_order_of_shards_does_not(run: Path, tmp_path: Path) -> None:
    assert uids(draw(run, rows=20)) == uids(draw(run, rows=20))
    assert set(uids(draw(run, rows=20))) != set(uids(draw(run, rows=20, seed=1)))
    again = write_run(tmp_path / "again", dict(reversed(many().items())))
    assert set(uids(draw(again, rows=20))) == set(uids(draw(run, rows=20)))


def test_more_rows_keep_those_that_were_drawn(run: Path) -> None:
    """So that answers of a first sample count in a larger one."""
    assert set(uids(draw(run, rows=20))) <= set(uids(draw(run, rows=40)))
    assert len(draw(run, rows=1000).rows) == 66


def test_draws_are_uniform(run: Path) -> None:
    times: Counter[str] = Counter()
    storage = open_storage(str(run))
    commits = Ledger(storage).read_all()
    for seed in range(60):
        config = SampleConfig(rows=33, seed=seed, bands=(), power=1.0)
        times.update(uids(draw_sample(storage, commits, IDS, config)))
    drawn = np.array([times[uid] for uid in times])
    assert len(drawn) == 66
    # Each is drawn in half the seeds: 30 of 60 with a standard deviation of 3.9.
    assert drawn.min() >= 12
    assert drawn.max() <= 48
    assert 2.0 < drawn.std() < 6.5


def fine(counts: dict[tuple[str, str, str], int]) -> dict[Stratum, int]:
    return {Stratum(class_name=a, decision=b, band=c): n for (a, b, c), n in counts.items()}


def test_strata_are_joined_where_rows_are_few() -> None:
    counts = fine(
        {
            (name, decision, band): 10 if name == "cat" else 5
            for name in ("cat", "dog", "sky")
            for decision in ("accept", "review")
            for band in ("low", "high")
        }
    )
    assert set(join_strata(counts, SampleConfig(rows=24)).values()) == set(counts)
    coarser = set(join_strata(counts, SampleConfig(rows=12)).values())
    assert {each.band for each in coarser} == {ALL}
    assert len(coarser) == 6
    by_class = set(join_strata(counts, SampleConfig(rows=6)).values())
    assert {(each.class_name, each.decision) for each in by_class} == {
        ("cat", ALL),
        ("dog", ALL),
        ("sky", ALL),
    }
    rare = set(join_strata(counts, SampleConfig(rows=4)).values())
    assert {each.class_name for each in rare} == {"cat", RARE}
    assert len(set(join_strata(counts, SampleConfig(rows=2)).values())) == 1


def test_a_run_without_labels_cannot_be_judged(tmp_path: Path) -> None:
    empty = write_run(tmp_path / "run", {"s.tar": [Picture("1")]})
    with pytest.raises(ConfigError, match="nothing to judge"):
        draw(empty)


@pytest.mark.parametrize(
    "value", ["=cmd|'/c calc'!A1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")']
)
def test_no_cell_is_a_formula(value: str, tmp_path: Path) -> None:
    assert not harmless(value).startswith(("=", "+", "-", "@", "\t", "\r"))
    run = write_run(tmp_path / "run", {"s.tar": [Picture("1", (Made(1),), key=value)]})
    rows = list(form_rows(draw(run).rows, {}))
    cells = next(iter(csv.DictReader(io.StringIO(to_csv(rows).decode("utf-8-sig"), newline=""))))
    assert tuple(cells) == COLUMNS
    assert all(not (cell or "").startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells.values())


def fill(rec: SampleRecord, path: Path, verdicts: dict[str, str], **names: str) -> Path:
    lines = [f"{uid},{verdict},{names.get(uid, '')}" for uid, verdict in verdicts.items()]
    path.write_text("\n".join(["instance_uid,verdict,right_class", *lines]) + "\n", "utf-8")
    return path


def test_forms_come_back_as_they_went(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=12)
    rows = list(form_rows(draw(run, rows=12).rows, {}))
    words = ["right", "wrong_class", "Bad mask", "NOT-THERE", "yes", "unsure", "对", ""]
    for number, row in enumerate(rows):
        row["verdict"] = words[number % len(words)]
    (tmp_path / "a.csv").write_bytes(to_csv(rows))
    (tmp_path / "a.jsonl").write_bytes(to_json_lines(rows))
    text = to_csv(rows).decode("utf-8-sig")
    (tmp_path / "german.csv").write_bytes(
        "\r\n".join(";".join(f'"{c}"' for c in line) for line in csv.reader(io.StringIO(text))).encode()
    )
    (tmp_path / "excel.txt").write_bytes(
        "\r\n".join("\t".join(line) for line in csv.reader(io.StringIO(text))).encode("utf-16")
    )
    found = [
        read_answers(tmp_path / name, rec.rows) for name in ("a.csv", "a.jsonl", "german.csv", "excel.txt")
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert [a.verdict for a in found[0][:7]] == [
        "right", "wrong_class", "bad_mask", "not_there", "right", "unsure", "right",
    ]  # fmt: skip
    assert len(found[0]) == 11


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"uid,answer\n1,right\n", "line 1 has no column instance_uid and verdict; it has 'uid', 'answer'"),
        (b"instance_uid,verdict,verdict\nx,right,\n", "more than once"),
        (b"instance_uid,verdict\nnobody,right\n", "line 2: 'nobody' is no instance_uid of this sample"),
        (b"instance_uid,verdict\nUID,=cmd|' /C calc'!A0\n", r"line 2: verdict is \"=cmd\|"),
        (b"instance_uid,verdict\nUID,rigth\n", r"did you mean 'right'\?"),
        (b"instance_uid,verdict\nUID,right,so,he,said\n", "line 2: 5 cells, the first line has 2"),
        (b"instance_uid,verdict\nUID,right\nUID,wrong\n", "line 3: .* was answered in line 2 already"),
        ("instance_uid,verdict\nUID,right,\n".encode("utf-16-le")[:-1], "null characters"),
        ("instance_uid,verdict,note\nUID,right,é\n".encode("latin-1"), "not UTF-8 at byte .*CSV UTF-8"),
        (b"\xff\xfeodd", "not UTF-16"),
        (b"PK\x03\x04\x00\x00", "null characters"),
        (b'{"instance_uid": "UID", "verdict": "right"}\n[1]\n{x\n', "2 lines cannot be used"),
        (
            b'{"instance_uid": "UID", "verdict": true}\n',
            "1 line cannot be used\n.*verdict is 'true'; expected text",
        ),
        (b'{"instance_uid": "UID", "verdict": ' + b"[" * 100_000, "line 1: is no JSON"),
        (b'instance_uid,verdict\nUID,"right' + b"x" * 200_000 + b'"\n', "field larger than field limit"),
    ],
)
def test_hostile_forms(run: Path, tmp_path: Path, data: bytes, match: str) -> None:
    rec = record(run, rows=5)
    path = tmp_path / "form"
    path.write_bytes(data.replace(b"UID", next(iter(rec.rows)).encode()))
    with pytest.raises(ConfigError, match=match) as caught:
        read_answers(path, rec.rows)
    assert len(str(caught.value)) < 2000
    assert all(character.isprintable() or character == "\n" for character in str(caught.value))


def test_a_form_without_end_is_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "form.csv"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="no filled-in form"):
        read_answers(path, record(run, rows=5).rows)


def test_many_problems_are_listed_once(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "form.csv"
    path.write_text("instance_uid,verdict\n" + "nobody,right\n" * 50)
    with pytest.raises(ConfigError, match=r"50 lines cannot be used(?s:.*)and 30 more"):
        read_answers(path, record(run, rows=5).rows)


def test_records_come_back(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=12)
    path = tmp_path / "sample.json"
    path.write_bytes(rec.to_bytes())
    assert read_record(path) == rec
    for text, match in (
        ("[]", "no record"),
        ("{x", "no JSON"),
        ('{"audit_version": 1, "rows": {}}', "was changed"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=match):
            read_record(path)
    with pytest.raises(ConfigError, match="--sample"):
        read_record(tmp_path / "nothing.json")


def test_answers_about_other_labels_are_refused(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=12)
    check_same_labels(rec, Ledger(open_storage(str(run))).read_all(), "run")
    other = write_run(tmp_path / "other", many(50))
    with pytest.raises(OutputError, match="draw a new sample"):
        check_same_labels(rec, Ledger(open_storage(str(other))).read_all(), "other")


def test_answers_become_figures(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=30)
    dogs = [uid for uid, row in rec.rows.items() if row.class_name == "dog"]
    verdicts = {uid: "wrong_class" if uid in dogs[:3] else "right" for uid in rec.rows}
    verdicts[dogs[4]] = "unsure"
    path = fill(rec, tmp_path / "f.csv", verdicts, **dict.fromkeys(dogs[:3], "wolf"))
    result = judge_answers(rec, read_answers(path, rec.rows), CONFIG)
    assert (result.answered, result.judged, result.labels) == (30, 29, 66)
    # 60 cats all right; of 5 dogs judged 2 are: 60/66 + 6/66 * 2/5.
    assert result.overall.value == pytest.approx((60 + 6 * 2 / 5) / 66)
    assert result.confusions == {("dog", "wolf"): 3}
    worst = result.classes[0]
    assert (worst.name, worst.count.right, worst.count.judged) == ("dog", 2, 5)
    assert worst.share.low == pytest.approx(0.0527, abs=1e-4)  # exact for 2 of 5
    assert worst.share.high == pytest.approx(0.8534, abs=1e-4)
    assert result.acceptance.decision == "undecided"
    lines = "\n".join(result_lines(result))
    assert "UNDECIDED  wanted 95.0% right" in lines
    assert "dog was wolf 3 times" in lines
    assert "66 labels are too few to decide it" in lines
    json.dumps(result.to_plain()["verdicts"], allow_nan=False)


def test_all_right_is_accepted_and_most_wrong_rejected(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=66)
    whole = judge_answers(
        rec, read_answers(fill(rec, tmp_path / "f.csv", dict.fromkeys(rec.rows, "y")), rec.rows), CONFIG
    )
    assert whole.acceptance.decision == "accepted"
    assert "calibrator" in next_steps(whole)[-1]
    half = {uid: "n" if n % 2 else "y" for n, uid in enumerate(rec.rows)}
    wrong = judge_answers(rec, read_answers(fill(rec, tmp_path / "f.csv", half), rec.rows), CONFIG)
    assert wrong.acceptance.decision == "rejected"
    few = dict(list(half.items())[:10])
    partly = judge_answers(rec, read_answers(fill(rec, tmp_path / "f.csv", few), rec.rows), CONFIG)
    assert "56 of 66 rows have no verdict" in next_steps(partly)[0]
    assert any("no row that counts" in step for step in next_steps(partly))
    nearly = dict(list(half.items())[:65])
    partly = judge_answers(rec, read_answers(fill(rec, tmp_path / "f.csv", nearly), rec.rows), CONFIG)
    assert "1 of 66 rows has no verdict: finish it" in next_steps(partly)[0]


def test_nothing_that_counts_is_said(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=5)
    answers = read_answers(fill(rec, tmp_path / "f.csv", dict.fromkeys(rec.rows, "unsure")), rec.rows)
    with pytest.raises(ConfigError, match="no row has a verdict that counts"):
        judge_answers(rec, answers, CONFIG)


def test_answers_fit_a_calibrator_with_the_weights_of_the_draw(tmp_path: Path) -> None:
    """A stratum that was drawn from often must not count more often."""
    run = write_run(tmp_path / "run", many(200, fields={"detector": "oracle"}))
    rec = record(run, rows=100)
    verdicts = {uid: "right" if row.score >= 0.8 else "wrong" for uid, row in rec.rows.items()}
    outcomes = outcomes_of(rec, read_answers(fill(rec, tmp_path / "f.csv", verdicts), rec.rows))
    assert outcomes.weights.sum() == pytest.approx(200)  # cats; dogs have no detector
    found = fit_calibrator(
        outcomes.scores,
        outcomes.is_right,
        outcomes.category_ids,
        fingerprint="f",
        source="audit",
        weights=outcomes.weights,
    )
    chances = found.calibrated(np.array([0.65, 0.95]), np.array([1, 1]), fingerprint="f")
    assert chances == pytest.approx([0.0, 1.0])
    with pytest.raises(ConfigError, match="need isotonic"):
        fit_calibrator(
            outcomes.scores,
            outcomes.is_right,
            outcomes.category_ids,
            fingerprint="f",
            config=CalibrationConfig(kind="temperature"),
            weights=outcomes.weights,
        )


def test_weights_decide_a_tie() -> None:
    """One score, half of the samples right: the chance is the share by weight."""
    right = np.array([True, False] * 40)
    weights = np.where(right, 3.0, 1.0)
    found = fit_calibrator(np.full(80, 0.5), right, np.zeros(80, np.int64), fingerprint="f", weights=weights)
    assert found.pooled(np.array([0.5])) == pytest.approx([0.75])


def test_a_run_without_boxes_fits_nothing(run: Path, tmp_path: Path) -> None:
    rec = record(run, rows=12)
    answers = read_answers(fill(rec, tmp_path / "f.csv", dict.fromkeys(rec.rows, "right")), rec.rows)
    with pytest.raises(ConfigError, match="scores of boxes"):
        outcomes_of(rec, answers)


def test_pictures_and_page(tmp_path: Path) -> None:
    write_world(tmp_path / "in")
    label_world(tmp_path / "in", tmp_path / "run", lambda truth: truth)
    storage = open_storage(str(tmp_path / "run"))
    names = {n: f"<b>class {n}</b>" for n in range(1, 21)}
    sample = draw_sample(storage, Ledger(storage).read_all(), names, SampleConfig(rows=8))
    source = ImageSource(shards=tuple(expand_inputs([str(tmp_path / "in" / "*.tar")])))
    paths = write_pictures(sample.rows, source, tmp_path / "out")
    assert len(paths) == 8
    for path in paths.values():
        with Image.open(tmp_path / "out" / path) as picture:
            assert picture.height >= 20
            left = np.asarray(picture)[:, : (picture.width - 8) // 2]
            right = np.asarray(picture)[:, (picture.width + 8) // 2 :]
            assert left.shape == right.shape
            assert (left != right).any()
    html = page(list(form_rows(sample.rows, paths)), "labels <script>")
    assert "<script" not in html
    assert "<b>class" not in html
    assert html.count("<img") == 8
    gone = replace(source, shards=())
    assert write_pictures(sample.rows, gone, tmp_path / "out2") == {}


def test_what_was_drawn_is_said(run: Path) -> None:
    lines = "\n".join(drawn_lines(record(run, rows=12), "DIR", num_pictures=0, page=""))
    assert "12 of 66 labels drawn from 3 strata (seed 0) into DIR" in lines
    assert f"ovsops audit {run} --filled DIR/audit.csv" in lines
    assert "not what was never labelled" in lines


def test_a_run_of_one_label(tmp_path: Path) -> None:
    one = record(write_run(tmp_path / "run", {"a.tar": [Picture("p", (Made(1),))]}), rows=1)
    lines = "\n".join(drawn_lines(one, "DIR", num_pictures=1, page="PAGE"))
    assert "1 of 1 label drawn from 1 stratum (seed 0) into DIR\n1 picture: open PAGE" in lines
    answers = read_answers(fill(one, tmp_path / "f.csv", dict.fromkeys(one.rows, "y")), one.rows)
    said = "\n".join(result_lines(judge_answers(one, answers, CONFIG)))
    assert "1 of 1 row answered, 1 counts; the run has 1 label\n" in said


@pytest.mark.parametrize(
    "fields", [{"rows": 0}, {"least": 0}, {"bands": (0.8, 0.5)}, {"bands": (0.0,)}, {"power": 2.0}]
)
def test_config(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sample"):
        SampleConfig(**fields)
