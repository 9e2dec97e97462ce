"""Every kind of segmenter through the label job, one field of the recipe apart (tiny, untrained checkpoints)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs.named_settings import named_segmenter
from ovsops.backbones.presets import PRESETS
from ovsops.backbones.untrained_sam3 import write_untrained_sam3
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.segmenters.kinds import check_models
from ovsops.training.quality import ALL_IDS, labelled_states
from ovsops.training.scenes import bank_of
from ovsops.training.shipping import world_vocabulary
from tests.tiny.checkpoints import write_clip, write_vit

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]

WINDOWS = "short_side: 32\nwindow: 32\nstride: 32\n"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A setting of each kind, as a file that `use` names."""
    folder = tmp_path_factory.mktemp("segmenters")
    clip, vit, sam3 = (folder / name for name in ("clip_weights", "vit_weights", "sam3_weights"))
    write_clip(clip)
    write_vit(vit, width=32, heads=2)
    write_untrained_sam3(sam3)
    texts = {
        "clip": f"clip: {{source: {clip}}}\n{WINDOWS}",
        "scclip": f"clip: {{source: {clip}}}\n{WINDOWS}",
        "cass": f"clip: {{source: {clip}}}\nvfm: {{source: {vit}}}\n{WINDOWS}",
        "sam3": f"sam3: {{source: {sam3}}}\nthreshold: 0.2\n",
    }
    files = {kind: folder / f"{kind}.yaml" for kind in texts}
    for kind, text in texts.items():
        files[kind].write_text(f"kind: {kind}\n{text}")
    return files


@pytest.mark.parametrize("kind", ["clip", "scclip", "cass", "sam3"])
def test_one_field_changes_the_segmenter(
    write_recipe: Write, ovsops: Call, tmp_path: Path, settings: dict[str, Path], kind: str
) -> None:
    recipe = write_recipe(segmenter={"use": "fused_miniature"})
    chosen = ("--set", f"segmenter.use={settings[kind]}")
    code, out, err = ovsops("plan", recipe, *chosen)
    assert code == 0, err
    assert f"{kind}, mode corrected" in out
    code, _, err = ovsops("run", recipe, *chosen, "--engine", "inline")
    assert code == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"]["labelled"] == 6
    instances = pd.read_parquet(tmp_path / "out" / "instances")
    assert instances.segmenter.str.match(rf"{kind}/corrected/[0-9a-f]{{12}}$").all()
    assert set(instances.category_id) <= {1, 7}
    assert len(instances)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["recipe"]["segmenter"]["kind"] == kind


def test_another_segmenter_is_another_recipe(
    write_recipe: Write, ovsops: Call, settings: dict[str, Path]
) -> None:
    recipe = write_recipe(segmenter={"use": str(settings["clip"])})
    assert ovsops("run", recipe, "--engine", "inline")[0] == 0
    other = ("--set", f"segmenter.use={settings['scclip']}")
    code, _, err = ovsops("run", recipe, *other, "--engine", "inline")
    assert code == 5
    assert "segmenter.kind" in err


@pytest.mark.parametrize("verb", [("run", "--engine", "inline"), ("plan",), ("doctor",)])
def test_gated_weights_need_their_licence(
    write_recipe: Write, ovsops: Call, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    """Weights that do not say they are somebody's own are taken for the published ones."""
    place = tmp_path / "sam3"
    write_untrained_sam3(place)
    config: dict[str, Any] = json.loads((place / "config.json").read_text())
    own = [key for key, value in config.items() if value is True and "own" in key]
    (place / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in own}))
    recipe = write_recipe(segmenter={"kind": "sam3", "sam3": {"source": str(place)}})
    name, *options = verb
    code, out, err = ovsops(name, recipe, *options)
    assert code == 4, out + err
    assert "accept_sam_licence" in out + err


@pytest.mark.parametrize("verb", [("plan",), ("run", "--engine", "inline"), ("doctor",)])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vfm": "three_heads"}, "`clip` has 2 heads of 16 channels, `vfm` has 3 of 16"),
        ({"kind": "scclip", "last_level": 9}, "segmenter.last_level is 9; the tower has 2 blocks"),
        ({"kind": "clip", "clip": "three_heads"}, "model_type is 'vit', and picture and text towers"),
        ({"window": 8, "stride": 8}, "its patches are 16 px wide, and segmenter.window is 8 px"),
    ],
    ids=["heads", "blocks", "no CLIP", "patches"],
)
def test_models_that_do_not_fit_are_found_at_the_door(
    write_recipe: Write,
    ovsops: Call,
    tmp_path: Path,
    settings: dict[str, Path],
    verb: tuple[str, ...],
    changes: dict[str, Any],
    message: str,
) -> None:
    """Before weights are hashed or read: they are no weights here."""
    folders = {name: tmp_path / name for name in ("clip", "vit", "three_heads")}
    write_clip(folders["clip"])
    write_vit(folders["vit"], width=32, heads=2)
    write_vit(folders["three_heads"])
    for folder in folders.values():
        (folder / "model.safetensors").write_bytes(b"nothing")
    segmenter = {"kind": "cass", "clip": "clip", "vfm": "vit", **changes}
    if segmenter["kind"] != "cass":
        del segmenter["vfm"]
    placed = {k: {"source": str(folders[v])} if k in ("clip", "vfm") else v for k, v in segmenter.items()}
    recipe = write_recipe(segmenter=placed)
    name, *options = verb
    code, out, err = ovsops(name, recipe, *options)
    assert code == 4, out + err
    assert message in " ".join((out + err).split())


@pytest.mark.parametrize(
    ("name", "presets"),
    [
        ("scclip_siglip2", {"clip": "siglip2-base-patch16-224"}),
        ("cass_siglip2", {"clip": "siglip2-base-patch16-224", "vfm": "dinov2-with-registers-base"}),
        (
            "cass",
            {
                "clip": "clip-vit-base-patch16",
                "vfm": "dinov2-with-registers-base",
                "prior_clip": "clip-vit-large-patch14",
            },
        ),
        ("scclip", {"clip": "clip-vit-large-patch14"}),
    ],
)
def test_settings_fit_the_towers_that_they_name(tmp_path: Path, name: str, presets: dict[str, str]) -> None:
    """By the published towers' own configuration."""
    model_types = {"siglip": "siglip", "clip": "clip", "dinov2-registers": "dinov2_with_registers"}
    places = {}
    for role, preset in presets.items():
        config, folder = PRESETS[preset], tmp_path / role
        folder.mkdir()
        plain = {"model_type": model_types[config.family], **config.config}
        (folder / "config.json").write_text(json.dumps(plain))
        (folder / "model.safetensors").write_bytes(b"nothing")
        places[role] = {"source": str(folder)}
    check_models(named_segmenter(name, **places))


@pytest.mark.nightly
def test_calibration_brings_plain_clip_at_least_ten_points() -> None:
    """On held-out scenes of the drawn world; `python -m benchmarks.segmenters` gives intervals, on more scenes."""
    bank = bank_of(draw_scene(seed) for seed in seeds_of("test")[:100])

    def mean_iou_of(name: str) -> float:
        states = labelled_states(bank, world_vocabulary(), named_segmenter(name))
        return float(mean_iou(states.areas.sum(axis=0), ALL_IDS))

    plain = mean_iou_of("clip_miniature")
    assert mean_iou_of("scclip_miniature") >= plain + 0.10
    assert mean_iou_of("cass_miniature") >= plain + 0.10
