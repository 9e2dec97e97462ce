"""What ships of CLIP and DINO keeps its promises: figures of the shipped files on test scenes, below the cards'.

`python -m benchmarks.clip_quality` gives the figures on more scenes.
"""

import pytest

from ovsops.backbones.shipped import OTHER_PARTS, PARTS, miniature_checkpoint
from ovsops.metrics.probes import group_accuracy
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.dense_quality import clip_retrieval, key_tokens, load_clip, load_keys, plain_patch_names
from ovsops.training.quality import STUFF_IDS, patch_set, probe_accuracy
from ovsops.training.scenes import SceneBank, bank_of

NUM_SCENES = 128


@pytest.fixture(scope="module")
def scenes() -> SceneBank:
    return bank_of(draw_scene(seed) for seed in seeds_of("test")[:NUM_SCENES])


def test_all_that_ships_stays_under_20_megabytes() -> None:
    folders = [miniature_checkpoint(part) for part in (*PARTS, *OTHER_PARTS)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert all((folder / "README.md").is_file() for folder in folders)


def test_captions_find_their_scene_in_both_languages(scenes: SceneBank) -> None:
    towers = load_clip(miniature_checkpoint("clip"))
    for language in LANGUAGES:
        for direction in clip_retrieval(towers, scenes, language):
            assert direction.recall_at(1) >= 0.90


def test_plain_patches_know_stuff(scenes: SceneBank) -> None:
    """They hardly know nouns: patches were told nothing."""
    counts = plain_patch_names(load_clip(miniature_checkpoint("clip")), scenes, "en").counts
    assert group_accuracy(counts, STUFF_IDS) >= 0.65


@pytest.mark.nightly
def test_dino_keys_tell_nouns_apart(scenes: SceneBank) -> None:
    dino = load_keys(miniature_checkpoint("dino"))
    taught = bank_of(draw_scene(seed) for seed in seeds_of("train")[-100:])
    train, test = (patch_set(key_tokens(dino, s), s, patch_size=dino.patch_size) for s in (taught, scenes))
    assert probe_accuracy(train, test)["linear nouns"] >= 0.58
