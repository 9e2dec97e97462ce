import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from ovsops.errors import ConfigError
from ovsops.miniature import shapes
from ovsops.miniature.attributes import CLASS_IDS, CLASS_NAMES, NOUNS, STUFF
from ovsops.miniature.motifs import angles, motif
from ovsops.miniature.painting import Pose, place, sine_cosine
from ovsops.miniature.scene import Scene, SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of

PINNED = {
    0: "f5acc210a837f546251e8354f5ad64b9085830944ff39e73a4af20351d728c03",
    100_000: "dd3b61cbf8dc5db4eeb5e06362c984ec569c3b84a071198190e818add24e9f0e",
    900_000: "82e535c5d3526cad9b7b9be6dc2a9c9392c1b9de832066b7b75cefae186c0500",
    900_008: "9e1d0aee51824ab9c3205a16eb4c2cdffdb8bc99d5f6e34c0805d8f7f14eaa99",
}
"""SHA-256 of picture, instances and semantics. A change here makes every trained checkpoint's figures void."""


def digest(scene: Scene) -> str:
    return hashlib.sha256(
        scene.image.tobytes() + scene.instances.tobytes() + scene.semantic.tobytes()
    ).hexdigest()


class TestSameBytes:
    @pytest.mark.parametrize("seed", PINNED)
    def test_pinned(self, seed: int) -> None:
        assert digest(draw_scene(seed)) == PINNED[seed]

    def test_pinned_at_other_sizes(self) -> None:
        wide = draw_scene(900_003, SceneConfig(size_hw=(96, 160)))
        assert wide.image.shape == (96, 160, 3)
        assert digest(wide) == "bd2f9a14580eab060cbf6b9ae6953c8f3894b4f36cfd6538c2ca8ab29c06e345"
        large = draw_scene(7, SceneConfig(size=512))
        assert digest(large) == "f78483f282d9dbc0a54b253d1a0fd458d724be575c790da47592a06e787a9a43"

    def test_vector_units_do_not_matter(self) -> None:
        """The same bytes when numpy may use no more than the oldest vector instructions it was built for."""
        extensions = np.show_config(mode="dicts")["SIMD Extensions"]  # type: ignore[call-overload]
        code = (
            "import hashlib; from ovsops.miniature.scene import draw_scene; s = draw_scene(900_008);"
            "print(hashlib.sha256(s.image.tobytes() + s.instances.tobytes() + s.semantic.tobytes()).hexdigest())"
        )
        env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(extensions.get("found", []))}
        shown = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=120
        )
        assert shown.stdout.strip() == PINNED[900_008]

    def test_order_does_not_matter(self) -> None:
        first = digest(draw_scene(12))
        draw_scene(13)
        assert digest(draw_scene(12)) == first

    def test_no_two_seeds_and_no_two_splits_share_a_scene(self) -> None:
        seeds = [seed for split in ("train", "validation", "test") for seed in seeds_of(split)[:300]]
        assert len({hashlib.sha256(draw_scene(seed).image.tobytes()).digest() for seed in seeds}) == 900


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in range(250)]


class TestTruth:
    def test_maps_agree_with_things(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            assert scene.things
            assert set(np.unique(scene.instances)) <= set(range(len(scene.things) + 1))
            for i, thing in enumerate(scene.things, 1):
                mask = scene.instances == i
                x, y, w, h = thing.box_xywh
                assert thing.area == mask.sum() == mask[y : y + h, x : x + w].sum() > 0
                assert mask[y].any()
                assert mask[y + h - 1].any()
                assert mask[:, x].any()
                assert mask[:, x + w - 1].any()
                assert (scene.semantic[mask] == CLASS_IDS[thing.noun]).all()
                assert 0 <= thing.hidden_share <= 0.40
            rest = scene.semantic[scene.instances == 0]
            assert set(np.unique(rest)) <= {CLASS_IDS[name] for name in scene.stuffs}

    def test_two_backgrounds_lie_one_above_the_other(self, scenes: list[Scene]) -> None:
        both = [scene for scene in scenes if len(scene.stuffs) == 2]
        assert 0.3 < len(both) / len(scenes) < 0.5
        for scene in both:
            upper, lower = (np.nonzero(scene.semantic == CLASS_IDS[name])[0] for name in scene.stuffs)
            assert upper.mean() < lower.mean()
            assert "sky" not in scene.stuffs[1:]

    def test_attributes_come_evenly(self, scenes: list[Scene]) -> None:
        things = [thing for scene in scenes for thing in scene.things]
        nouns = [sum(thing.noun == noun.name for thing in things) for noun in NOUNS]
        assert min(nouns) > 0.65 * len(things) / 12
        assert max(nouns) < 1.4 * len(things) / 12
        for size, low, high in (("small", 11, 16), ("medium", 16, 24), ("big", 24, 34)):
            radii = [thing.radius for thing in things if thing.size == size]
            assert len(radii) > 0.15 * len(things)
            assert low - 0.01 <= min(radii) <= max(radii) <= high + 0.01
        assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4, 5, 6}

    def test_things_of_one_noun_differ_in_colour(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            named = [(thing.noun, thing.colour) for thing in scene.things]
            assert len(set(named)) == len(named)

    def test_relations_hold(self, scenes: list[Scene]) -> None:
        seen = set()
        for scene in scenes:
            for relation in scene.relations:
                seen.add(relation.name)
                a, b = scene.things[relation.subject], scene.things[relation.object]
                dx, dy = b.center_xy[0] - a.center_xy[0], b.center_xy[1] - a.center_xy[1]
                if relation.name == "in front of":
                    assert relation.subject > relation.object
                    assert b.hidden_share >= 0.06
                else:
                    assert {"left of": dx, "right of": -dx, "above": dy, "below": -dy}[relation.name] > 0
        assert len(seen) == 5

    def test_hidden_pixels_are_counted(self) -> None:
        """Drawn alone, a hidden thing has the pixels that it shows and those that are hidden."""
        scene = next(s for s in map(draw_scene, range(1000)) if any(t.hidden_share > 0.2 for t in s.things))
        thing = next(t for t in scene.things if t.hidden_share > 0.2)
        pose = Pose(
            x_256=round(thing.center_xy[0] * 256),
            y_256=round(thing.center_xy[1] * 256),
            radius_256=round(thing.radius * 256),
            angle_100=round(thing.angle_degrees * 100),
            is_mirrored=thing.is_mirrored,
        )
        alone = place(thing.noun, pose, (128, 128)).area
        assert thing.area == round(alone * (1 - thing.hidden_share)) < alone


class TestShapes:
    def pose(self, radius: int, **changes: object) -> Pose:
        fields = {"x_256": 64 * 256, "y_256": 64 * 256, "radius_256": radius * 256, "angle_100": 0}
        return Pose(**{**fields, "is_mirrored": False, **changes})  # type: ignore[arg-type]

    def test_areas_by_hand(self) -> None:
        """Disc 0.96; square of 1.72 x 1.60 with corners rounded at 0.06; band 0.4 to 0.98; plus of 2.0 x 0.68."""
        by_hand = {
            "ball": np.pi * 0.96**2,
            "box": 1.72 * 1.60 - (4 - np.pi) * 0.06**2,
            "ring": np.pi * (0.98**2 - 0.40**2),
            "cross": 2 * 2.0 * 0.68 - 0.68**2,
        }
        for noun, area in by_hand.items():
            turned = self.pose(34, angle_100=1000)  # off the pixel grid
            assert place(noun, turned, (128, 128)).area == pytest.approx(area * 34**2, rel=0.01), noun

    @pytest.mark.parametrize("noun", [noun.name for noun in NOUNS])
    def test_turning_and_mirroring_keep_the_area(self, noun: str) -> None:
        area = place(noun, self.pose(30), (128, 128)).area
        for changes in ({"angle_100": 2500}, {"angle_100": -1300}, {"is_mirrored": True}):
            assert place(noun, self.pose(30, **changes), (128, 128)).area == pytest.approx(area, rel=0.03)

    @pytest.mark.parametrize("noun", [noun.name for noun in NOUNS])
    def test_no_outline_leaves_its_box(self, noun: str) -> None:
        """What `place` cuts off would be missing from the mask."""
        table = shapes.outline(noun).reshape(shapes.CELLS, shapes.CELLS)
        places = (np.arange(shapes.CELLS) + 0.5) / shapes.CELLS * 2 * shapes.REACH - shapes.REACH
        rows, columns = np.nonzero(table < 0)
        assert np.hypot(places[rows], places[columns]).max() <= shapes.EXTENT

    def test_clockwise(self) -> None:
        """An arrow that points right and is turned by 90 degrees clockwise points down."""
        mask = place("arrow", self.pose(30, angle_100=9000), (128, 128)).mask
        widths = mask.sum(axis=1)
        assert widths[: len(widths) // 2].max() < widths[len(widths) // 2 :].max()

    def test_sine_and_cosine(self) -> None:
        for angle in range(-9000, 9001, 100):
            exact = np.sin(np.deg2rad(angle / 100)), np.cos(np.deg2rad(angle / 100))
            assert sine_cosine(angle) == pytest.approx(exact, abs=1e-6)

    def test_angles(self) -> None:
        size = 512
        middle = np.arange(size) + 0.5 - size / 2
        exact = np.arctan2(middle[:, None], middle[None, :]) / (2 * np.pi) * 65536 % 65536
        off = np.abs(angles().reshape(size, size) - exact)
        assert np.minimum(off, 65536 - off).max() < 1.5

    def test_every_motif_shows_in_every_patch(self) -> None:
        """Any window of 8 x 8 pixels, one period, has ink and body."""
        for noun in NOUNS:
            tile = motif(noun.name).reshape(128, 128)
            again = np.tile(tile, (2, 2))
            for top in range(0, 128, 16):
                for left in range(0, 128, 16):
                    ink = again[top : top + 64, left : left + 64].mean() / 255
                    assert 0.08 < ink < 0.6, noun.name

    def test_motifs_differ(self) -> None:
        """No shift of one looks like another."""
        tiles = [motif(noun.name).reshape(128, 128).astype(float) for noun in NOUNS]
        spectra = [np.fft.rfft2((tile - tile.mean()) / (tile.std() * 128)) for tile in tiles]
        for i, a in enumerate(spectra):
            assert np.fft.irfft2(a * a.conj()).max() == pytest.approx(1.0)
            for j, b in enumerate(spectra[:i]):
                alike = np.fft.irfft2(a * b.conj()).max()
                assert alike < 0.8, f"{NOUNS[i].name} and {NOUNS[j].name}: {alike:.2f}"


def test_class_ids_are_nouns_then_stuff() -> None:
    assert CLASS_NAMES[:12] == tuple(noun.name for noun in NOUNS)
    assert CLASS_NAMES[12:] == tuple(word.name for word in STUFF)
    assert CLASS_IDS["ball"] == 1
    assert CLASS_IDS["stone"] == 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 16}, "16x16"),
        ({"size_hw": (64, 5000)}, "64x5000"),
        ({"min_things": 0}, "min_things 0"),
        ({"min_things": 5, "max_things": 4}, "max_things 4"),
        ({"min_radius": 40}, "min_radius 40"),
        ({"size": 32, "min_radius": 4}, "under 2 pixels"),
        ({"small_below": 50}, "small_below 50 is over big_above 24"),
        ({"max_turn_degrees": 91}, "max_turn_degrees"),
        ({"max_hidden_percent": 100}, "vanishes"),
        ({"two_stuffs_percent": 101}, "two_stuffs_percent"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SceneConfig(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("size_hw", [(32, 32), (33, 200), (256, 256), (1024, 1024)])
def test_any_size(size_hw: tuple[int, int]) -> None:
    for seed in range(3):
        scene = draw_scene(seed, SceneConfig(size_hw=size_hw, max_things=12))
        assert scene.image.shape == (*size_hw, 3)
        assert all(thing.area == (scene.instances == i).sum() for i, thing in enumerate(scene.things, 1))
