"""The page of a run as text: what it holds, what it must not hold, and how large it may grow."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovsops.backbones.shipped import MINIATURE_NOTICE, MINIATURE_NOTICE_ZH
from ovsops.errors import ConfigError, OutputError
from pipelines.report.beside import look_beside
from pipelines.report.counting import GalleryConfig
from pipelines.report.facts import read_facts
from pipelines.report.negatives_beside import Negatives
from pipelines.report.run_page import run_page
from pipelines.report.run_report import ReportConfig, gather
from pipelines.report.texts import Text, both
from pipelines.storage import StorageOptions, open_storage
from tests.pipelines.made_runs import write_run
from tests.pipelines.report.made_page import HOSTILE, MadePage
from tests.pipelines.report.made_run import write_made_run, write_tables


def page_of(out: Path, config: ReportConfig | None = None) -> str:
    return run_page(gather(open_storage(str(out)), config or ReportConfig(), StorageOptions()))


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


class Elements(HTMLParser):
    """Elements, attributes and policy of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_is_loaded_and_nothing_else_runs(made_page: MadePage) -> None:
    elements = Elements(made_page.text).found
    names = [tag for tag, _ in elements]
    assert names.count("script") == 2
    assert names.count("style") == 1
    assert {"img", "link", "iframe", "object", "form", "base"}.isdisjoint(names)
    for tag, attributes in elements:
        assert {"src", "style", "srcset", "action"}.isdisjoint(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_the_policy_names_the_style_and_the_script(made_page: MadePage) -> None:
    policy = next(
        attributes["content"] or ""
        for tag, attributes in Elements(made_page.text).found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for kind, element in (("style-src", "style"), ("script-src", "script")):
        text = re.search(rf"<{element}>(.*?)</{element}>", made_page.text, re.DOTALL)
        assert text
        digest = base64.b64encode(hashlib.sha256(text[1].encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"


def test_no_secret_and_no_hostile_markup(made_page: MadePage) -> None:
    for word in ("AKIAABCDEFGHIJKLMNOP", "0123456789abcdef&", "X-Amz-Signature=0"):
        assert word not in made_page.text
    assert "[redacted]" in made_page.text
    assert "<img src=x" not in made_page.text
    assert HOSTILE[0] not in made_page.text
    assert made_page.text.count("<script>") == 1
    captions = [image["c"] for image in data_of(made_page.text)["images"]]
    assert HOSTILE[0] in captions, "the words themselves stay"
    assert max(len(caption) for caption in captions) < 300


def test_the_page_says_what_the_run_is(made_page: MadePage) -> None:
    text = re.sub(r"<[^>]+>", " ", made_page.text.split('<dialog id="viewer">')[0])
    assert re.search(r"Labelled\s+已标注\s+9\s", text)
    assert "every image has its row: 9 read = 9 + 0 + 0" in text
    assert "1 source shard cannot be read: " in text
    assert "gone.tar" in text
    assert "All 9 labelled images with all" in text
    assert "not measured" in text
    assert "Nothing failed" in text


def test_pictures_masks_and_negatives_are_in_the_data(made_page: MadePage) -> None:
    images = {image["k"]: image for image in data_of(made_page.text)["images"]}
    assert len(images) == 9
    assert len(made_page.truth) == 6
    assert images["gone"]["t"] == ""
    assert images["gone"]["m"] == "shard"
    big = images["big"]
    assert (big["W"], big["H"]) == (480, 336)
    assert big["r"][0]["g"][:2] == [336, 480]
    assert big["r"][0]["x"] == [[2, 0.2]], "rivals are places of the classes"
    with_negatives = [region for image in images.values() for region in image["r"] if "N" in region]
    assert len(with_negatives) == 1
    assert with_negatives[0]["o"] == "a red ball"
    assert len(with_negatives[0]["N"]) == 10


def test_the_same_run_gives_the_same_page(made_page: MadePage) -> None:
    assert page_of(made_page.out) == made_page.text


def test_the_page_stays_below_its_size(tmp_path: Path) -> None:
    """40,000 regions, more than fit: a sample is shown, and what share it is."""
    out = write_made_run(
        tmp_path / "run", num_shards=4, images_per_shard=500, regions_per_image=20, num_classes=40
    )
    config = ReportConfig(gallery=GalleryConfig(images=1000, per_stratum=8), max_bytes=700_000)
    text = page_of(out, config)
    assert 600_000 < len(text.encode()) <= 700_000
    data = data_of(text)
    images = data["images"]
    assert 100 < len(images) < 600
    assert f"{len(images):,} of 2,000 labelled images" in text
    assert "more images did not fit into the page" in text
    assert len({image["s"] for image in images}) == 4, "the last shards are not the ones left out"
    assert {region["c"] for image in images for region in image["r"]} == set(range(40))


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"state": "interrupted"}, "Interrupted. Run the same command again"),
        ({"state": "error", "error": "OutputError: <b>full</b>"}, "Stopped by an error"),
        ({"state": "not started"}, "Did not start"),
        ({"state": "done", "over_limits": ["1 of 9 failed"]}, "over its limits"),
        ({"state": "done", "shards": {"pending": 3}}, "3 shards are not done"),
        ({"state": "done", "shards": {"failed": {"x.tar": "E_STORAGE: gone"}}}, "shard could not be read"),
        (None, "No summary"),
    ],
)
def test_every_end_of_a_run_has_its_verdict(tmp_path: Path, state: dict | None, words: str) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=2)
    (out / "summary.json").unlink()
    if state is not None:
        (out / "summary.json").write_text(json.dumps(state))
    text = page_of(out)
    assert words in text
    assert "<b>full</b>" not in text


def test_miniature_checkpoints_over_photographs_are_said_first(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1)
    assert MINIATURE_NOTICE not in page_of(out)
    manifest = json.loads((out / "run.json").read_text())
    source = "/somewhere/site-packages/ovsops/checkpoints/miniature/siglip2"
    manifest["settings"] = {"segmenter": {"siglip": {"source": source}}}
    (out / "run.json").write_text(json.dumps(manifest))
    text = page_of(out)
    assert text.index(MINIATURE_NOTICE) < text.index('class="verdict')
    assert MINIATURE_NOTICE_ZH in text
    record = next((out / "commits").glob("*.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"name": "world-000000.tar"}))
    assert MINIATURE_NOTICE not in page_of(out), "drawn scenes are what they know"


def test_one_of_a_thing_and_code_in_sentences(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1)
    (out / "summary.json").write_text(json.dumps({"state": "done", "shards": {"pending": 1}}))
    text = page_of(out)
    assert "1 shard is not done" in text
    assert "of 1 image<" in text
    assert both(Text("try `a <b>`", "试 `a <b>`")).count("<code>a &lt;b&gt;</code>") == 2


def test_a_class_s_mean_score_is_that_of_its_rows(tmp_path: Path) -> None:
    """Scores far below a bin of the histogram stay what they are."""
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1, num_classes=1)
    table = pq.read_table(out / "instances" / "shard-000000.parquet")
    scores = pa.array([0.004, 0.0042, 0.0041, 0.0041], pa.float32())
    table = table.set_column(table.schema.get_field_index("score"), "score", scores)
    write_tables(out, "shard-000000", pq.read_table(out / "images"), table)
    classes = page_of(out).split('<section id="classes">')[1].split("</section>")[0]
    assert "<td class='n'>0.0041</td>" in classes


def test_rows_that_do_not_add_up_come_first(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=3)
    record = next((out / "commits").glob("*.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"labelled": 2}))
    text = page_of(out)
    assert "Rows do not add up" in text
    assert 'class="verdict bad"' in text


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1)
    shutil.rmtree(out / "commits")
    text = page_of(out)
    assert "of 0 images" in text
    assert data_of(text)["images"] == []


def test_what_is_no_label_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run of ovsops wrote there"):
        page_of(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OutputError, match="no output of the label job"):
        page_of(tmp_path)


def test_a_folder_beside_that_is_missing_is_refused(made_page: MadePage) -> None:
    facts = read_facts(open_storage(str(made_page.out)))
    with pytest.raises(ConfigError, match="--beside /nowhere"):
        look_beside(facts, [Path("/nowhere")])


def test_a_folder_that_is_named_by_another_path_counts_once(tmp_path: Path) -> None:
    facts = read_facts(open_storage(str(write_run(tmp_path / "run", {}))))
    document = {"format": 1, "truth": "world", "num_images": 6, "runs": {"labels": {"figures": {}}}}
    document["labelled_runs"] = {"labels": {"labels": facts.output, "tables_sha256": "other"}}
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "metrics.json").write_text(json.dumps(document))
    assert len(look_beside(facts).evaluations) == 1
    assert len(look_beside(facts, [tmp_path / "run" / ".." / "scores"]).evaluations) == 1


def test_evaluations_beside_are_found_by_content(made_page: MadePage, tmp_path: Path) -> None:
    storage = open_storage(str(made_page.out))
    facts = read_facts(storage)
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    document = {
        "format": 1,
        "truth": "world",
        "num_images": 6,
        "labelled_runs": {"labels": {"labels": facts.output, "tables_sha256": "other"}},
        "runs": {
            "labels": {
                "figures": {"mean_iou": figure},
                "classes": [{"id": 1, "name": "ball", "iou": figure}],
                "reliability": [{"from": 0.5, "regions": 4, "sum_of_scores": 3.0, "right": 2}],
            }
        },
    }
    for name, content in (("good", json.dumps(document)), ("broken", "{"), ("other", '{"format": 7}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(content)
    folders = [tmp_path / "good", tmp_path / "broken", tmp_path / "other"]
    found = look_beside(facts, folders).evaluations
    assert [(e.num_images, e.is_stale, e.class_figures) for e in found] == [(6, True, {1: 0.5})]
    assert found[0].reliability == {"regions": [(0.75, 0.5, 4)]}
    text = run_page(gather(storage, ReportConfig(), StorageOptions(), beside=folders))
    assert "0.500" in text
    assert "95 % interval 0.400 to 0.600" in text
    assert "the labels changed since this was measured" in text
    assert "IoU measured" in text


def test_tables_of_the_negatives_job_are_read(made_page: MadePage, tmp_path: Path) -> None:
    facts = read_facts(open_storage(str(made_page.out)))
    uids = sorted(made_page.report.gallery.region_uids)[:3]
    rows = {
        "instance_uid": [*uids, "other"],
        "positive": ["a red ball", "a", None, "b"],
        "negatives": [["a blue ball"], None, ["c"], ["d"]],
        "types": [["colour"], None, None, ["e"]],
    }
    (tmp_path / "negatives").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "negatives" / "s.parquet")
    (tmp_path / "negatives" / "broken.parquet").write_bytes(b"PAR1 no")
    found = look_beside(facts, [tmp_path], regions=uids)
    assert found.negatives.num_regions == 4  # one of the set that lies beside the page
    assert found.negatives.by_region[uids[0]] == Negatives(
        positive="a red ball", texts=("a blue ball",), types=("colour",)
    )
    assert uids[1] not in found.negatives.by_region
    assert found.negatives.by_region[uids[2]].texts == ("c",)
