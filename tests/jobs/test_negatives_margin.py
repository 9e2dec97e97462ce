"""FG-CLIP 2 looks at negatives in a whole run of a recipe: the miniature, and scenes of which everything is known."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ovsops.miniature.scene import draw_scene
from tests.tiny.labelled_scenes import caption_of

Call = Callable[..., tuple[int, str, str]]
INLINE = ("--engine", "inline")
LOOK = {"fgclip2": {"source": "miniature:fgclip2"}}


def write(scenes: Path, folder: Path, margin: dict[str, Any] | None, **changes: Any) -> Path:
    recipe = {
        "job": "negatives",
        "labels": str(scenes / "labels"),
        "output": str(folder / "negatives"),
        "draw": {"spare": 30},
        "negatives": {"max_iterations": 2},
        "validate": {"margin": margin},
        "work_on": {"actors": 1},
    }
    path = folder / "negatives.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def rows_of(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "negatives" / "negatives").set_index("instance_uid")


def truths(scenes: Path) -> dict[str, tuple[str, bool]]:
    """True caption of each region, and whether the label run says another one."""
    regions = pd.read_parquet(scenes / "labels" / "instances")
    images = pd.read_parquet(scenes / "labels" / "images").set_index("image_uid")
    found = {}
    for row in regions.itertuples():
        scene = draw_scene(int(images.key[row.image_uid]))
        (thing,) = [each for each in scene.things if list(each.box_xywh) == list(row.bbox)]
        found[row.instance_uid] = (caption_of(thing), row.caption_short != caption_of(thing))
    return found


def test_negatives_that_the_pixels_show_are_dropped_and_counted(
    scenes: Path, tmp_path: Path, ovsops: Call
) -> None:
    for name in ("blind", "seeing"):
        (tmp_path / name).mkdir()
    code, out, _ = ovsops("plan", write(scenes, tmp_path / "seeing", LOOK))
    assert code == 0
    assert "texts, labels, margin" in out
    assert ovsops("run", write(scenes, tmp_path / "blind", None), *INLINE)[0] == 0
    code, _, err = ovsops("run", tmp_path / "seeing" / "negatives.yaml", *INLINE)
    assert code == 0
    assert "the region is nearer to it than to the caption" in " ".join(err.split())

    blind, seeing, known = rows_of(tmp_path / "blind"), rows_of(tmp_path / "seeing"), truths(scenes)
    assert set(known) == set(seeing.index) == set(blind.index)
    wrong = [uid for uid, (_, is_wrong) in known.items() if is_wrong]
    assert 0 < len(wrong) < len(known)
    summary = json.loads((tmp_path / "seeing" / "negatives" / "summary.json").read_text())
    drops = seeing.dropped.map(
        lambda some: sum(int(d.split(":")[1]) for d in some if d.startswith("V_MARGIN"))
    )
    assert summary["candidates_dropped"]["V_MARGIN"] == drops.sum() > 0
    assert "V_MARGIN" not in json.loads((tmp_path / "blind" / "negatives" / "summary.json").read_text()).get(
        "candidates_dropped", {}
    )
    right = [uid for uid in known if uid not in wrong]
    assert (
        drops[wrong].mean() > 2 * drops[right].mean()
    )  # a wrong caption is what most negatives are nearer than

    def poisoned(rows: pd.DataFrame) -> int:
        made = rows[rows.negatives.notna()]
        return sum(known[uid][0] in list(texts) for uid, texts in made.negatives.items())

    assert poisoned(seeing) < poisoned(blind)
    assert summary["regions"]["invariant_holds"]
    manifest = json.loads((tmp_path / "seeing" / "negatives" / "run.json").read_text())
    assert len(manifest["recipe"]["validate"]["margin"]["fgclip2"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("margin", "changes", "code", "message"),
    [
        (LOOK, {"work_on": {"actors": 0}}, 2, "loaded for every shard"),
        (LOOK | {"device": "cuda"}, {}, 2, "give each actor a share of a GPU"),
        (LOOK | {"margin": 5.0}, {}, 2, "a difference of cosines from -2 to 2"),
        ({"fgclip2": {"source": "no/where/at/all"}}, {}, 4, "no/where/at/all"),
        ({"fgclip2": {"source": "miniature:clip"}}, {}, 4, "fgclip2 is expected"),
    ],
)
def test_looks_that_cannot_be(
    scenes: Path,
    tmp_path: Path,
    ovsops: Call,
    margin: dict[str, Any],
    changes: dict[str, Any],
    code: int,
    message: str,
) -> None:
    found, _, err = ovsops("plan", write(scenes, tmp_path, margin, **changes))
    assert (found, message in err) == (code, True), err
