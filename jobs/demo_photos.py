"""`make photos`: pack pictures into shards, label them on a local Ray, export COCO, draw overlays. No network.

The checkpoints are tiny and untrained: they know nothing, and the labels are noise with correct bookkeeping.
"""

import argparse
import io
import json
import logging
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jobs.cli import run_command
from jobs.own_folder import claim_folder
from ovsops.backbones.untrained import write_untrained_checkpoints
from ovsops.errors import OvsopsError

logger = logging.getLogger(__name__)

NOTICE = (
    "The checkpoints of this demo are tiny and untrained: they know nothing, and the masks mean nothing.\n"
    "What it shows is the way of the data: shards in, COCO masks in Parquet out, every image accounted for."
)

PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "coins.png",
    "camera.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "ihc.png",
    "color.png",
    "grass.png",
)
"""Pictures in the wheel of scikit-image (its README gives the sources); nothing is downloaded."""
DRAWN_SCENES = 6
PICTURES_PER_SHARD = 6
RECIPE = Path(__file__).with_name("recipes") / "photos_untrained.yaml"
DEFAULT_OUT = Path("photos-out")
"""Folder that the recipe names; a demo in another folder writes a copy of the recipe that names that one."""
_CLAIM = ".photos-demo"
_OWN = ("shards", "checkpoints", "run", "coco", "overlays", "recipe.yaml")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture and what its sidecar says."""

    key: str
    extension: str
    data: bytes
    sidecar: dict[str, str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; the exit code of the first command that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m jobs.demo_photos", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, help=f"folder for everything (default: {DEFAULT_OUT})"
    )
    parser.add_argument("--engine", choices=("ray", "inline"), default="ray", help="inline runs without Ray")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    _say(NOTICE)
    try:
        recipe = write_inputs(options.out)
    except OvsopsError as error:
        raise SystemExit(str(error)) from error
    output = str(options.out / "run")
    for command in (
        ["run", str(recipe), "--engine", options.engine],
        ["status", output],
        ["export", output, "--to", "coco", "--out", str(options.out / "coco")],
        ["overlay", output, "--out", str(options.out / "overlays")],
    ):
        _say(f"\n$ ovsops {' '.join(command)}")
        if code := run_command(command):
            return code
    _say(f"\n{NOTICE}\nDone in {time.monotonic() - started:.0f} s. Look at {options.out / 'overlays'}/*.png")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def write_inputs(out: Path) -> Path:
    """Shards, checkpoints and recipe under `out`; the recipe's path. What an earlier demo wrote there is replaced."""
    claim_folder(out, _OWN, marker=_CLAIM, command="make photos")
    pictures = [*photos(), *drawn_scenes()]
    write_shards(pictures, out / "shards")
    write_untrained_checkpoints(out / "checkpoints")
    recipe = out / "recipe.yaml"
    recipe.write_text(RECIPE.read_text("utf-8").replace(str(DEFAULT_OUT), _in_yaml(out)), "utf-8")
    _say(f"{len(pictures)} pictures in {out / 'shards'}, recipe {recipe}")
    return recipe


def _in_yaml(out: Path) -> str:
    """A path that can stand in the recipe's plain scalars."""
    text = out.as_posix()
    if any(c in text for c in ":#{}[],&*?|<>=!%@\\'\"\n"):
        raise SystemExit(f"--out {out}: choose a folder without punctuation that YAML or patterns would read")
    return text


def photos() -> Iterator[Picture]:
    """Photos of scikit-image as JPEG, where it is installed."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        _say("scikit-image is not installed: the demo labels drawn scenes only")
        return
    folder = Path(found.origin).parent / "data"
    for name in PHOTOS:
        path = folder / name
        if path.is_file():
            with Image.open(path) as image:
                data = _jpeg(image.convert("RGB"))
            source = f"https://github.com/scikit-image/scikit-image/blob/main/src/skimage/data/{name}"
            sidecar = {"license": "see the README of skimage/data", "source_url": source}
            yield Picture(key=path.stem, extension="jpg", data=data, sidecar=sidecar)


def drawn_scenes() -> Iterator[Picture]:
    """Sky, ground and a few shapes, drawn from fixed seeds."""
    for seed in range(DRAWN_SCENES):
        sidecar = {"license": "CC0-1.0", "caption": "shapes on a meadow under the sky"}
        yield Picture(key=f"scene-{seed}", extension="jpg", data=_jpeg(draw_scene(seed)), sidecar=sidecar)


def draw_scene(seed: int, *, width: int = 480, height: int = 320) -> Image.Image:
    """One scene."""
    rng = np.random.default_rng(seed)
    horizon = int(height * rng.uniform(0.4, 0.65))
    rows = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([90, 150, 230]) + rows * np.array([120, 80, 20])
    ground = np.array([70, 130, 50]) - rows * np.array([20, 40, 10])
    pixels = np.where(np.arange(height)[:, None, None] < horizon, sky, ground).repeat(width, axis=1)
    pixels = pixels + rng.normal(0, 6, pixels.shape)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 6))):
        size = int(rng.integers(40, 110))
        x, y = int(rng.integers(0, width - size)), int(rng.integers(horizon - size // 2, height - size // 2))
        red, green, blue = (int(c) for c in rng.integers(30, 255, 3))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + size, y + size), fill=(red, green, blue))
    return image


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def write_shards(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """WebDataset archives of a few pictures each; equal pictures give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, start in enumerate(range(0, len(pictures), PICTURES_PER_SHARD)):
        path = folder / f"photos-{number:06d}.tar"
        with tarfile.open(path, "w") as archive:
            for picture in pictures[start : start + PICTURES_PER_SHARD]:
                sidecar = json.dumps(picture.sidecar, ensure_ascii=False).encode()
                for extension, data in ((picture.extension, picture.data), ("json", sidecar)):
                    member = tarfile.TarInfo(f"{picture.key}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        paths.append(path)
    return paths


if __name__ == "__main__":
    sys.exit(main())
