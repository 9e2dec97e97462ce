"""Shards of small drawn images, some of them broken, written with the standard library's tar."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def draw_image(seed: int, *, height: int = 48, width: int = 64) -> np.ndarray:
    """Noise on dark grey, one or two red rectangles, sometimes a bright band."""
    rng = np.random.default_rng(seed)
    image = rng.integers(20, 90, (height, width, 3), dtype=np.uint8)
    for _ in range(int(rng.integers(1, 3))):
        y, x = rng.integers(0, height - 12), rng.integers(0, width - 16)
        image[y : y + 10, x : x + 14] = (220, 30, 30)
    if seed % 3 == 0:
        image[-8:] = 230
    return image


def encode(image: np.ndarray, kind: str = "JPEG", **options: object) -> bytes:
    sink = io.BytesIO()
    if kind == "JPEG":
        options = {"quality": 92, **options}
    Image.fromarray(image).save(sink, kind, **options)
    return sink.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_shards(
    folder: Path, *, num_shards: int, images_per_shard: int, broken_every: int = 0
) -> list[Path]:
    """Shards `shard-000000.tar`, ...; every `broken_every`-th image is cut in half."""
    paths = []
    for s in range(num_shards):
        members = []
        for i in range(images_per_shard):
            number = s * images_per_shard + i
            data = encode(draw_image(number))
            if broken_every and number % broken_every == broken_every - 1:
                data = data[: len(data) // 2]
            key = f"{number:06d}"
            members.append((f"{key}.jpg", data))
            members.append(
                (f"{key}.json", json.dumps({"license": "CC0", "caption": f"image {number}"}).encode())
            )
        paths.append(write_tar(folder / f"shard-{s:06d}.tar", members))
    return paths
