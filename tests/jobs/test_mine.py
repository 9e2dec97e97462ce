"""The verbs over a mine recipe: the miniature FG-CLIP 2 and drawn scenes, and what is said about mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ovsops.miniature.attributes import CLASS_IDS
from pipelines.mining import MINED

Call = Callable[..., tuple[int, str, str]]
INLINE = ("--engine", "inline")
EMBED = {"fgclip2": {"source": "miniature:fgclip2"}}


def write(scenes: Path, folder: Path, **changes: Any) -> Path:
    recipe: dict[str, Any] = {
        "job": "mine",
        "labels": str(scenes / "labels"),
        "output": str(folder / "mined"),
        "embed": EMBED,
        "mining": {"k": 3, "min_score": -1.0},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe | changes))
    return path


def test_from_labels_to_pairs_and_again_from_stored_vectors(
    scenes: Path, tmp_path: Path, ovsops: Call
) -> None:
    recipe, out = write(scenes, tmp_path), tmp_path / "mined"
    code, said, _ = ovsops("plan", recipe)
    assert code == 0
    assert "2 to do" in said
    assert "region, image, exclusive; 3 nearest" in said
    assert not out.exists()
    code, _, err = ovsops("run", recipe, *INLINE)
    assert code == 0
    assert "region pairs" in err
    assert "confusions.parquet" in err.replace("\n", "")

    regions = pd.read_parquet(scenes / "labels" / "instances").set_index("instance_uid")
    pairs = pd.read_parquet(out / "mined" / "region")
    assert list(pairs.columns) == MINED.names
    assert set(pairs.uid) <= set(regions.index)
    assert (regions.category_id[pairs.uid].to_numpy() == pairs.category_id.to_numpy()).all()
    assert (pairs.category_id != pairs.other_category_id).all()
    assert (regions.image_uid[pairs.uid].to_numpy() != regions.image_uid[pairs.other_uid].to_numpy()).all()
    vectors = pd.read_parquet(out / "regions").set_index("uid").vector
    one = pairs.iloc[0]
    assert one.score == pytest.approx(np.dot(vectors[one.uid], vectors[one.other_uid]), abs=1e-5)
    exclusive = pd.read_parquet(out / "exclusive.parquet")
    assert set(exclusive.uid) == set(regions.index[regions.prompt == "ring"])
    assert set(exclusive.other_category_id) <= {CLASS_IDS["ball"]}

    code, said, _ = ovsops("status", out, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["shards"] == {"committed": 2, "pending": 0, "unpublished": [], "failed": {}}
    assert found["rows"]["kept"] == len(vectors)
    next((out / "mined" / "region").iterdir()).unlink()
    code, said, _ = ovsops("status", out)
    assert code == 0
    assert "not yet in place" in said
    assert ovsops("retry", out, *INLINE)[0] == 0
    assert json.loads((out / "summary.json").read_text())["this_run"]["shards"] == 0
    assert len(pd.read_parquet(out / "mined" / "region")) == len(pairs)

    assert ovsops("run", recipe, *INLINE, "--set", "mining.k=1")[0] == 5
    (tmp_path / "again").mkdir()
    again = write(
        scenes, tmp_path / "again", embed=None, vectors=str(out), mining={"k": 1, "min_score": -1.0}
    )
    assert ovsops("run", again, *INLINE)[0] == 0
    first = pd.read_parquet(tmp_path / "again" / "mined" / "mined" / "region")
    pd.testing.assert_frame_equal(first, pairs[pairs["rank"] == 0].reset_index(drop=True))
    assert ovsops("status", tmp_path / "again" / "mined")[0] == 0


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"embed": None}, 2, "exactly one of both is wanted"),
        ({"vectors": "somewhere"}, 2, "exactly one of both is wanted"),
        ({"kinds": ["region", "region"]}, 2, "each once"),
        ({"kinds": [], "exclusive": False}, 2, "nothing is mined"),
        ({"kinds": ["regions"]}, 2, "kinds"),
        ({"minig": {}}, 2, "did you mean 'mining'"),
        ({"mining": {"k": 0}}, 2, "mining.k is 0"),
        ({"embed": {"fgclip2": {"source": "miniature:fgclip2"}, "images_at_once": 0}}, 2, "images_at_once"),
        ({"embed": {"fgclip2": {"source": "no/where"}}}, 4, "no/where"),
        ({"work_on": {"actors": 0}}, 2, "loaded for every shard"),
        ({"labels": "nowhere"}, 2, "holds no run.json"),
        ({"embed": None, "vectors": "nowhere"}, 2, "vectors: "),
        ({"mine_on": {"num_cpus": 1000}}, 4, "mine_on asks for"),
        ({"shards": "nowhere/*.tar"}, 2, "nowhere/*.tar matches no file"),
        ({"embed": {"fgclip2": {"source": "miniature:clip"}}}, 4, "fgclip2 is expected"),
    ],
)
def test_mistakes_in_a_mine_recipe(
    scenes: Path, tmp_path: Path, ovsops: Call, changes: dict[str, Any], code: int, message: str
) -> None:
    found, out, err = ovsops("plan", write(scenes, tmp_path, **changes))
    assert found == code, out + err
    assert message in " ".join((out + err).split())
    assert not (tmp_path / "mined").exists()


def test_vectors_of_another_job(scenes: Path, tmp_path: Path, ovsops: Call) -> None:
    labels = str(scenes / "labels")
    code, _, err = ovsops("run", write(scenes, tmp_path, embed=None, vectors=labels), *INLINE)
    assert code == 2
    assert "vectors: " in err
    assert "is an output of the label job; name one of the mine job" in err
