"""Input patterns become shards with an identity."""

import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError
from pipelines import shards as shards_module
from pipelines.braces import expand_braces, glob_to_regex
from pipelines.shards import Shard, expand_inputs, shard_slug
from pipelines.storage import StorageOptions
from tests.pipelines.tars import make_shard, tiny_jpeg
from tests.servers import S3Server, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    pytest.importorskip("s3fs")
    with s3_server() as server:
        yield server


def write(root: Path, *names: str, data: bytes = b"x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def names(*patterns: str | Path, options: StorageOptions | None = None) -> list[str]:
    return [shard.name for shard in expand_inputs([str(pattern) for pattern in patterns], options)]


class TestBraces:
    @pytest.mark.parametrize(
        ("pattern", "expanded"),
        [
            ("s-{08..11}.tar", ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]),
            ("s-{8..11}", ["s-8", "s-9", "s-10", "s-11"]),
            ("{3..1}", ["3", "2", "1"]),
            ("{0..10..5}", ["0", "5", "10"]),
            ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
            ("x{,.gz}", ["x", "x.gz"]),
            ("{x}", ["{x}"]),
            ("plain", ["plain"]),
        ],
    )
    def test_stand_for(self, pattern: str, expanded: list[str]) -> None:
        assert expand_braces(pattern) == expanded

    @pytest.mark.parametrize(
        ("pattern", "match"),
        [
            ("{0..99999999}", "over 10,000,000"),
            ("{0..9999}{0..9999}", "over 10,000,000"),
            ("{0..9..0}", "step 0"),
            ("a{b", "do not close"),
            ("{a,{b,c}}", "nested"),
        ],
    )
    def test_refused(self, pattern: str, match: str) -> None:
        with pytest.raises(ConfigError, match=match):
            expand_braces(pattern)

    @pytest.mark.parametrize(
        ("pattern", "name", "matches"),
        [
            ("*.tar", "a.tar", True),
            ("*.tar", "b/a.tar", False),
            ("**/*.tar", "b/c/a.tar", True),
            ("**/*.tar", "a.tar", True),
            ("a?[0-9].tar", "ab3.tar", True),
            ("a[!0-9].tar", "a3.tar", False),
            ("a+(b).tar", "a+(b).tar", True),
        ],
    )
    def test_globs(self, pattern: str, name: str, matches: bool) -> None:
        assert bool(glob_to_regex(pattern).match(name)) is matches


class TestArchives:
    def test_a_path_a_folder_a_glob_and_a_range_name_the_same_shards(self, tmp_path: Path) -> None:
        write(tmp_path, "s-00.tar", "s-01.tar", "s-02.tar.gz", "notes.txt")
        expected = ["s-00.tar", "s-01.tar", "s-02.tar.gz"]
        assert names(tmp_path) == expected
        assert names(f"{tmp_path}/") == expected
        assert names(tmp_path / "*") == expected
        assert names(tmp_path / "s-*.tar*") == expected
        assert names(tmp_path / "s-{00..01}.tar", tmp_path / "s-02.tar.gz") == expected
        assert names(*(tmp_path / name for name in reversed(expected))) == expected

    def test_identity(self, tmp_path: Path) -> None:
        write(tmp_path, "a/s.tar", data=b"12345")
        (shard,) = expand_inputs([str(tmp_path / "**/s.tar")])
        assert (shard.name, shard.size, shard.kind) == ("a/s.tar", 5, "tar")
        assert shard.url == str(tmp_path / "a/s.tar")
        assert shard.tag == str((tmp_path / "a/s.tar").stat().st_mtime_ns)
        assert pickle.loads(pickle.dumps(shard)) == shard
        os.utime(tmp_path / "a/s.tar", ns=(1, 1))
        (touched,) = expand_inputs([str(tmp_path / "**/s.tar")])
        assert (touched.slug == shard.slug, touched.id == shard.id) == (True, False)

    def test_relative_paths_become_absolute_urls(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path, "in/s-0.tar")
        monkeypatch.chdir(tmp_path)
        for pattern in ("in/s-0.tar", "in", "./in/*.tar", "in/s-{0..0}.tar"):
            assert [shard.url for shard in expand_inputs([pattern])] == [str(tmp_path / "in/s-0.tar")]

    def test_overlapping_patterns_read_a_shard_once(self, tmp_path: Path) -> None:
        write(tmp_path, "a-0.tar", "a-1.tar", "b.tar")
        assert names(tmp_path / "a-*.tar", tmp_path / "*.tar") == ["a-0.tar", "a-1.tar", "b.tar"]

    def test_two_shards_of_one_name_are_refused(self, tmp_path: Path) -> None:
        write(tmp_path, "x/s.tar", "y/s.tar")
        with pytest.raises(ConfigError, match=r"are both called 's\.tar'.*common folder"):
            expand_inputs([str(tmp_path / "x"), str(tmp_path / "y")])
        assert names(tmp_path / "{x,y}/s.tar") == ["x/s.tar", "y/s.tar"]

    @pytest.mark.parametrize(
        ("pattern", "match"),
        [
            (
                "s-{00..03}.tar",
                r"s-\{00\.\.03\}\.tar: 2 of 4 names are missing, the first s-02.tar, s-03.tar",
            ),
            ("z-*.tar", "matches no file"),
            ("nothing.tar", "does not exist"),
            ("nowhere/{0..1}.tar", "2 of 2 names are missing"),
            ("empty", "does not exist or is empty"),
            ("photo.jpg", "is one image: give its folder"),
            ("texts", "no archive .* and no folder with images"),
        ],
    )
    def test_missing_inputs_name_their_pattern(self, tmp_path: Path, pattern: str, match: str) -> None:
        write(tmp_path, "s-00.tar", "s-01.tar", "photo.jpg", "texts/a.md")
        (tmp_path / "empty").mkdir()
        with pytest.raises(ConfigError, match=match):
            expand_inputs([str(tmp_path / pattern)])

    def test_no_inputs(self) -> None:
        with pytest.raises(ConfigError, match=r"input\.shards is empty"):
            expand_inputs([])

    def test_a_folder_whose_name_looks_like_a_pattern(self, tmp_path: Path) -> None:
        write(tmp_path, "run[1]{a}/s.tar")
        assert names(tmp_path / "run[1]{a}") == ["s.tar"]

    def test_linked_archives_are_shards(self, tmp_path: Path) -> None:
        write(tmp_path, "blobs/0", data=b"123")
        (tmp_path / "snapshot").mkdir()
        (tmp_path / "snapshot" / "s.tar").symlink_to(tmp_path / "blobs/0")
        (shard,) = expand_inputs([str(tmp_path / "snapshot")])
        assert (shard.name, shard.size) == ("s.tar", 3)


class TestSlugs:
    @given(st.text(max_size=300))
    def test_are_safe_file_names(self, name: str) -> None:
        slug = shard_slug(name)
        assert slug.isascii()
        assert len(slug) <= 91
        assert all(c.isalnum() or c in "-_" for c in slug)

    def test_differ_for_names_that_look_alike(self) -> None:
        given = ["a/s.tar", "b/s.tar", "s.tar", "s.tgz", "S.tar", "é.tar", "e\u0301.tar"]
        assert len({shard_slug(name) for name in given}) == len(given)
        assert shard_slug("laion/000012.tar").startswith("000012-")


class TestFolders:
    def test_images_and_sidecars_are_members(self, tmp_path: Path) -> None:
        write(tmp_path, "in/b.JPG", "in/b.json", "in/sub/a.png", "in/c.gif", "in/x.pkl", "in/README")
        (tmp_path / "in/link.jpg").symlink_to(tmp_path / "in/b.JPG")
        (tmp_path / "in/loop").symlink_to(tmp_path)
        (shard,) = expand_inputs([str(tmp_path / "in")])
        assert shard.name == "in/folder-000000"
        assert shard.kind == "folder"
        assert shard.url == str(tmp_path / "in")
        assert shard.members == ("b.JPG", "b.json", "sub/a.png")
        assert dict(shard.ignored) == {"foreign_image": 1, "other": 1, "pickle": 1, "symlink": 2}
        assert shard.size == 3

    def test_large_folders_are_cut_between_samples(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shards_module, "FILES_PER_FOLDER_SHARD", 5)
        write(tmp_path, *(f"{n:02d}.{e}" for n in range(7) for e in ("jpg", "json")))
        found = expand_inputs([str(tmp_path)])
        assert [len(shard.members) for shard in found] == [6, 6, 2]
        assert [shard.name.split("/")[1] for shard in found] == [
            "folder-000000",
            "folder-000001",
            "folder-000002",
        ]
        assert sum((shard.members for shard in found), ()) == tuple(
            f"{n:02d}.{e}" for n in range(7) for e in ("jpg", "json")
        )

    def test_a_glob_of_images_is_a_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "b.jpg", "b.json", "c.png")
        (shard,) = expand_inputs([str(tmp_path / "*.jpg")])
        assert shard.members == ("a.jpg", "b.jpg")

    def test_the_tag_follows_the_files(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "b.jpg")
        (before,) = expand_inputs([str(tmp_path)])
        assert expand_inputs([str(tmp_path)]) == [before]
        (tmp_path / "a.jpg").write_bytes(b"other")
        (after,) = expand_inputs([str(tmp_path)])
        assert after.id != before.id


class TestS3:
    def test_the_same_patterns(self, s3: S3Server) -> None:
        client, url = s3.client(), s3.make_bucket("inputs")
        for n in range(3):
            client.put_object(Bucket="inputs", Key=f"p/s-{n:02d}.tar", Body=make_shard(1))
        client.put_object(Bucket="inputs", Key="photos/a.jpg", Body=tiny_jpeg())
        options = StorageOptions(s3_endpoint=s3.endpoint, max_attempts=2)
        expected = [f"s-{n:02d}.tar" for n in range(3)]
        for pattern in ("p", "p/", "p/s-{00..02}.tar", "p/*.tar", "p/s-0[0-9].tar"):
            assert names(f"{url}/{pattern}", options=options) == expected
        assert names(url, options=options) == [f"p/{name}" for name in expected]
        (shard,) = expand_inputs([f"{url}/p/s-01.tar"], options)
        assert shard.url == "s3://inputs/p/s-01.tar"
        assert shard.tag.strip('"') == client.head_object(Bucket="inputs", Key="p/s-01.tar")["ETag"].strip(
            '"'
        )
        (folder,) = expand_inputs([f"{url}/photos"], options)
        assert folder.members == ("a.jpg",)
        for missing in ("p/s-{00..04}.tar", "q/*.tar", "p/none.tar"):
            with pytest.raises(ConfigError, match="inputs/"):
                expand_inputs([f"{url}/{missing}"], options)
        with pytest.raises(ConfigError, match="bucket's name cannot be a pattern"):
            expand_inputs(["s3://in*/x.tar"], options)


def test_many_shards_expand_quickly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One listing, no request a shard: 100,000 names in a few seconds (a million is ten times that)."""
    from pipelines.storage import ObjectInfo
    from pipelines.storage_local import LocalStorage

    infos = [ObjectInfo(path=f"{n:06d}.tar", size=1, tag="1") for n in range(100_000)]
    calls = []

    def listing(self: LocalStorage, *args: object, **kwargs: object) -> list[ObjectInfo]:
        calls.append(args)
        return infos

    monkeypatch.setattr(LocalStorage, "list", listing)
    started = time.process_time()
    found = expand_inputs([str(tmp_path / "{000000..099999}.tar")])
    assert len(found) == 100_000
    assert len(calls) == 1
    assert time.process_time() - started < 8


def test_shard_can_be_replaced_field_by_field() -> None:
    shard = Shard(name="s.tar", slug=shard_slug("s.tar"), url="/s.tar", size=1, tag="1", kind="tar")
    assert replace(shard, tag="2").id != shard.id
