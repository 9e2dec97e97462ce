"""Pictures fetched from source shards, made small, with nothing of the file in them."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError
from pipelines.ledger import Commit, Ledger
from pipelines.report.source_pictures import PictureConfig, SmallPicture, fetch_pictures, small_webp
from pipelines.storage import StorageOptions, open_storage
from tests.pipelines.report.made_run import write_made_run
from tests.tiny.shards import draw_image, encode, write_tar

GPS = 0x8825


def commit_of(tmp_path: Path, url: str) -> Commit:
    out = write_made_run(tmp_path / "made", num_shards=1, images_per_shard=1)
    return replace(Ledger(open_storage(str(out))).read_all()[0], url=url)


def row(key: str, data: bytes) -> dict[str, str]:
    return {"image_uid": f"uid {key}", "key": key, "sha256": hashlib.sha256(data).hexdigest()}


def fetched(
    tmp_path: Path, url: str, *rows: dict[str, str], config: PictureConfig | None = None
) -> dict[str, SmallPicture]:
    commit = commit_of(tmp_path, url)
    return fetch_pictures(
        {commit.shard: rows}, {commit.shard: commit}, config or PictureConfig(), StorageOptions()
    )


def opened(picture: SmallPicture) -> Image.Image:
    return Image.open(io.BytesIO(picture.webp))


def photo(seed: int = 0) -> bytes:
    """A JPEG with a place and a camera in its EXIF, turned by 90 degrees."""
    picture = Image.fromarray(draw_image(seed))
    exif = Image.Exif()
    exif[0x010F] = "A camera of somebody"
    exif[0x0112] = 6
    exif.get_ifd(GPS).update({1: "N", 2: (48.0, 51.0, 29.9)})
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=95, exif=exif)
    return sink.getvalue()


def test_pictures_of_an_archive_by_key_and_hash(tmp_path: Path) -> None:
    images = {f"a/{i}": encode(draw_image(i), "PNG") for i in range(6)}
    members = [(f"{key}.png", data) for key, data in images.items()]
    members.insert(3, ("a/0.json", b"{}"))
    tar = write_tar(tmp_path / "in" / "s.tar", members)
    wanted = [row("a/4", images["a/4"]), row("a/1", images["a/1"])]
    found = fetched(tmp_path, str(tar), *wanted)
    assert found.keys() == {"uid a/4", "uid a/1"}
    assert np.array_equal(np.asarray(opened(found["uid a/4"])), draw_image(4))


def test_a_key_that_is_there_twice_gives_the_image_of_the_hash(tmp_path: Path) -> None:
    first, second = encode(draw_image(1), "PNG"), encode(draw_image(2), "PNG")
    tar = write_tar(tmp_path / "s.tar", [("k.png", first), ("k.png", second)])
    found = fetched(tmp_path, str(tar), row("k", second))
    assert np.array_equal(np.asarray(opened(found["uid k"])), draw_image(2))


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    data = encode(draw_image(3), "PNG")
    (folder / "sub" / "x.y.PNG").write_bytes(data)
    found = fetched(tmp_path, str(folder), row("sub/x.y", data), row("gone", data))
    assert found["uid sub/x.y"].webp
    assert found["uid gone"] == SmallPicture(missing="image")


def test_what_cannot_be_had_is_a_reason(tmp_path: Path) -> None:
    good, broken = encode(draw_image(1)), encode(draw_image(2))[:200]
    tar = write_tar(tmp_path / "s.tar", [("good.jpg", good), ("broken.jpg", broken)])
    rows = [row("good", b"other bytes"), row("broken", broken), row("missing", good)]
    found = fetched(tmp_path, str(tar), *rows)
    reasons = [found[f"uid {key}"].missing for key in ("good", "broken", "missing")]
    assert reasons == ["changed", "decode", "image"]
    gone = fetched(tmp_path, str(tmp_path / "gone.tar"), row("good", good))
    assert gone["uid good"] == SmallPicture(missing="shard")


def test_a_shard_that_is_no_archive_any_more_gives_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"not a tar at all" * 100)
    assert fetched(tmp_path, str(tmp_path / "s.tar"), row("a", b"x"))["uid a"].missing == "image"


def test_nothing_of_the_file_travels_along(tmp_path: Path) -> None:
    data = photo()
    assert Image.open(io.BytesIO(data)).getexif().get_ifd(GPS), "the photo must have a place"
    tar = write_tar(tmp_path / "s.tar", [("p.jpg", data)])
    picture = fetched(tmp_path, str(tar), row("p", data))["uid p"]
    shown = opened(picture)
    assert not dict(shown.getexif())
    assert shown.size == (48, 64), "turned"
    assert {"exif", "xmp", "icc_profile"}.isdisjoint(shown.info)
    assert b"camera" not in picture.webp
    assert b"EXIF" not in picture.webp


def test_sizes_are_kept() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    config = PictureConfig(side=480, max_bytes=24_000)
    data = small_webp(noise, config)
    assert len(data) <= 24_000
    with Image.open(io.BytesIO(data)) as picture:
        assert max(picture.size) <= 480
        assert picture.width / picture.height == pytest.approx(4 / 3, abs=0.03)
    plain = small_webp(np.full((2000, 30, 3), 128, np.uint8), config)
    with Image.open(io.BytesIO(plain)) as picture:
        assert picture.size == (7, 480)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="side is 8"):
        PictureConfig(side=8)
