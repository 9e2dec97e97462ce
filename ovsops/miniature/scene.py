"""A scene: a picture, what is in it, and exactly where. Axes: h w pixels.

A scene is a function of its seed and its config: the same bytes on every machine.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int16, UInt8

from ovsops.errors import ConfigError
from ovsops.miniature import painting, stuff
from ovsops.miniature.attributes import CLASS_IDS, COLOURS, NOUNS, STUFF
from ovsops.miniature.hashing import Draws
from ovsops.miniature.relations import Relation, relations_between

NOMINAL_SIZE = 128
"""Pixel numbers of the config are meant for pictures of this side and grow with the picture."""

_TRIES = 14
"""Placements tried before a thing is left out."""
_LARGEST_RADIUS = (0, 34, 34, 33, 30, 27, 25)
"""Largest radius by number of things; the last holds for more."""


@dataclass(frozen=True, kw_only=True)
class SceneConfig:
    """How scenes are drawn. Another value anywhere draws other scenes from the same seeds."""

    size: int = NOMINAL_SIZE
    """Height and width in pixels."""
    size_hw: tuple[int, int] | None = None
    """Height and width in pixels where they differ; `size` is then not used."""
    min_things: int = 1
    """Fewest things asked for."""
    max_things: int = 6
    """Most things asked for; fewer are drawn where they do not fit."""
    min_radius: int = 11
    """Smallest radius, in pixels of a 128-pixel picture."""
    max_radius: int = 34
    """Largest radius, in pixels of a 128-pixel picture."""
    small_below: int = 16
    """A thing of a smaller radius is called small; pixels of a 128-pixel picture."""
    big_above: int = 24
    """A thing of a larger radius is called big; pixels of a 128-pixel picture."""
    max_turn_degrees: int = 25
    """Things are turned by up to this, either way."""
    max_hidden_percent: int = 40
    """A placement that would hide more of an earlier thing is refused."""
    two_stuffs_percent: int = 40
    """Share of scenes with two backgrounds and a horizon."""

    def __post_init__(self) -> None:
        height, width = self.shape_hw
        if not 32 <= min(height, width) <= max(height, width) <= 4096:
            raise ConfigError(f"scene size {height}x{width} (h x w): sides must be 32 to 4096 pixels")
        if not 1 <= self.min_things <= self.max_things <= 12:
            raise ConfigError(
                f"min_things {self.min_things}, max_things {self.max_things}: expected 1 <= min <= max <= 12"
            )
        if not 4 <= self.min_radius <= self.max_radius <= 60:
            raise ConfigError(
                f"min_radius {self.min_radius}, max_radius {self.max_radius}: expected 4 <= min <= max <= 60"
            )
        if self.min_radius * min(height, width) < 2 * NOMINAL_SIZE:
            raise ConfigError(
                f"min_radius {self.min_radius} is under 2 pixels in a {height}x{width} scene (h x w): raise either"
            )
        if self.small_below > self.big_above:
            raise ConfigError(
                f"small_below {self.small_below} is over big_above {self.big_above}: a thing between would be called "
                "both; expected small_below <= big_above"
            )
        if not 0 <= self.max_turn_degrees <= 90:
            raise ConfigError(f"max_turn_degrees is {self.max_turn_degrees}: expected 0 to 90")
        if not 0 <= self.max_hidden_percent <= 90:
            raise ConfigError(
                f"max_hidden_percent is {self.max_hidden_percent}: expected 0 to 90, so that no thing vanishes"
            )
        if not 0 <= self.two_stuffs_percent <= 100:
            raise ConfigError(f"two_stuffs_percent is {self.two_stuffs_percent}: expected 0 to 100")

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.size_hw or (self.size, self.size)


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing: its attributes, its pose, and what of it can be seen."""

    noun: str
    colour: str
    pattern: str
    material: str
    size: str
    """small, medium or big."""
    center_xy: tuple[float, float]
    """Middle in pixels."""
    radius: float
    """In pixels."""
    angle_degrees: float
    """Turned clockwise."""
    is_mirrored: bool
    box_xywh: tuple[int, int, int, int]
    """Tight box of the visible pixels: left, top, width, height."""
    area: int
    """Visible pixels."""
    hidden_share: float
    """Share of its pixels within the picture that later things hide."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture with its truth."""

    seed: int
    image: UInt8[np.ndarray, "h w 3"]
    instances: UInt8[np.ndarray, "h w"]
    """0 where there is no thing, else 1 + the place in `things` of the thing that is seen."""
    semantic: UInt8[np.ndarray, "h w"]
    """Class id of every pixel, 1 to 20."""
    things: tuple[Thing, ...]
    """In the order drawn: later ones hide earlier ones."""
    stuffs: tuple[str, ...]
    """One background, or the upper and the lower one."""
    relations: tuple[Relation, ...]


@dataclass(kw_only=True)
class _Placed:
    """A thing on its way into the picture."""

    noun: str
    colour: str
    pattern: str
    material: str
    pose: painting.Pose
    footprint: painting.Footprint
    hidden: int = 0
    hidden_by: dict[int, int] = field(default_factory=dict)


def draw_scene(seed: int, config: SceneConfig | None = None) -> Scene:
    """The scene of a seed."""
    config = config or SceneConfig()
    height, width = config.shape_hw
    scale_1024 = min(height, width) * 1024 // NOMINAL_SIZE
    picture, semantic, stuffs = _background(config, scale_1024, Draws(seed, 1))
    placed = _place_things(config, scale_1024, Draws(seed, 2))

    instances = np.zeros((height, width), np.uint8)
    grain_at = Draws(seed, 3)
    for i, item in enumerate(placed, 1):
        painting.paint(
            picture,
            item.footprint,
            noun=item.noun,
            colour=item.colour,
            pattern=item.pattern,
            material=item.material,
            radius_256=item.pose.radius_256,
            scale_1024=scale_1024,
            grain_offset=grain_at.below(1 << 18),
        )
        instances[item.footprint.window][item.footprint.mask] = i
        semantic[item.footprint.window][item.footprint.mask] = CLASS_IDS[item.noun]

    tile = stuff.NOISE_TILE
    top, left = grain_at.below(tile), grain_at.below(tile)
    rows, columns = (np.arange(height) + top) % tile, (np.arange(width) + left) % tile
    picture += stuff.grain().take(rows, 0).take(columns, 1)
    things = tuple(_thing(item, instances, i, config, scale_1024) for i, item in enumerate(placed, 1))
    return Scene(
        seed=seed,
        image=picture.clip(0, 255).astype(np.uint8),
        instances=instances,
        semantic=semantic,
        things=things,
        stuffs=stuffs,
        relations=relations_between(
            [thing.center_xy for thing in things],
            [thing.radius for thing in things],
            [item.hidden_by for item in placed],
            [item.footprint.area for item in placed],
        ),
    )


def _background(
    config: SceneConfig, scale_1024: int, draws: Draws
) -> tuple[Int16[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], tuple[str, ...]]:
    first = draws.one_of(STUFF).name
    picture = stuff.paint_stuff(first, config.shape_hw, scale_1024, draws)
    semantic = np.full(config.shape_hw, CLASS_IDS[first], np.uint8)
    if not draws.happens(config.two_stuffs_percent):
        return picture, semantic, (first,)
    second = draws.one_of([word.name for word in STUFF if word.name != first])
    other = stuff.paint_stuff(second, config.shape_hw, scale_1024, draws)
    is_upper = stuff.horizon(config.shape_hw, draws)
    if second == "sky":  # the sky is never below
        picture, other, first, second = other, picture, second, first
    picture = np.where(is_upper[:, :, None], picture, other)
    semantic = np.where(is_upper, CLASS_IDS[first], CLASS_IDS[second]).astype(np.uint8)
    return picture, semantic, (first, second)


def _place_things(config: SceneConfig, scale_1024: int, draws: Draws) -> list[_Placed]:
    count = draws.between(config.min_things, config.max_things)
    largest = min(config.max_radius, _LARGEST_RADIUS[min(count, len(_LARGEST_RADIUS) - 1)])
    placed: list[_Placed] = []
    taken: list[tuple[str, str]] = []
    covered = np.zeros(config.shape_hw, np.uint8)
    for _ in range(count):
        noun, colour = draws.one_of(NOUNS).name, draws.one_of(COLOURS).name
        while (noun, colour) in taken:  # a caption must be able to tell them apart
            noun, colour = draws.one_of(NOUNS).name, draws.one_of(COLOURS).name
        pattern = draws.one_of(("plain", "plain", "striped", "dotted", "checkered"))
        material = draws.one_of(("matte", "matte", "shiny", "rough"))
        for _ in range(_TRIES):
            pose = _pose(config, max(config.min_radius, largest), scale_1024, draws)
            footprint = painting.place(noun, pose, config.shape_hw)
            item = _Placed(
                noun=noun, colour=colour, pattern=pattern, material=material, pose=pose, footprint=footprint
            )
            if _add(item, placed, covered, config):
                taken.append((noun, colour))
                break
    return placed


def _pose(config: SceneConfig, largest: int, scale_1024: int, draws: Draws) -> painting.Pose:
    """A place well inside the picture; all radii come alike."""
    height, width = config.shape_hw
    share = draws.below(65536)
    radius_256 = (
        config.min_radius * 256 + ((largest - config.min_radius) * 256 * share >> 16)
    ) * scale_1024 >> 10
    inset = radius_256 * 85 // 100
    turn = config.max_turn_degrees * 100
    return painting.Pose(
        x_256=draws.between(inset, max(inset, width * 256 - inset)),
        y_256=draws.between(inset, max(inset, height * 256 - inset)),
        radius_256=radius_256,
        angle_100=draws.between(-turn, turn),
        is_mirrored=draws.happens(50),
    )


def _add(
    item: _Placed, placed: list[_Placed], covered: UInt8[np.ndarray, "h w"], config: SceneConfig
) -> bool:
    """Put a thing on top unless it hides too much of one below; `covered` holds who is seen where."""
    if item.footprint.area == 0:
        return False
    below = covered[item.footprint.window]
    hides = np.bincount(below[item.footprint.mask], minlength=len(placed) + 1).tolist()
    for i, earlier in enumerate(placed, 1):
        if (earlier.hidden + hides[i]) * 100 > earlier.footprint.area * config.max_hidden_percent:
            return False
    for i, earlier in enumerate(placed, 1):
        if hides[i]:
            earlier.hidden += hides[i]
            earlier.hidden_by[len(placed)] = hides[i]
    placed.append(item)
    below[item.footprint.mask] = len(placed)
    return True


def _thing(
    item: _Placed, instances: UInt8[np.ndarray, "h w"], number: int, config: SceneConfig, scale_1024: int
) -> Thing:
    footprint, pose = item.footprint, item.pose
    visible = instances[footprint.window] == number
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    left, top = int(columns[0]), int(rows[0])
    box = (
        footprint.left + left,
        footprint.top + top,
        int(columns[-1]) + 1 - left,
        int(rows[-1]) + 1 - top,
    )
    nominal = pose.radius_256 * 1024 / (256 * scale_1024)
    size = "small" if nominal < config.small_below else "big" if nominal > config.big_above else "medium"
    return Thing(
        noun=item.noun,
        colour=item.colour,
        pattern=item.pattern,
        material=item.material,
        size=size,
        center_xy=(pose.x_256 / 256, pose.y_256 / 256),
        radius=pose.radius_256 / 256,
        angle_degrees=pose.angle_100 / 100,
        is_mirrored=pose.is_mirrored,
        box_xywh=box,
        area=footprint.area - item.hidden,
        hidden_share=item.hidden / footprint.area,
    )
