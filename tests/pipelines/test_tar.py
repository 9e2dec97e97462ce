"""The strict tar parser: against Python's tarfile on whole archives, and on every kind of damage."""

import gzip
import hashlib
import io
import random
import struct
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.tar import Member, TarConfig, TarEnd, TarReader
from tests.pipelines.tars import (
    BLOCK,
    END,
    data_at,
    gz,
    header_at,
    make_shard,
    make_tar,
    raw_header,
    raw_member,
)


def read(archive: bytes, config: TarConfig | None = None) -> tuple[list[Member], TarEnd]:
    reader = TarReader(io.BytesIO(archive), config)
    members = list(reader)
    assert reader.end is not None
    return members, reader.end


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class TestWhole:
    @pytest.mark.parametrize("format", FORMATS)
    def test_equals_tarfile(self, format: int) -> None:
        long_name = "d" * 90 + "/" + "n" * 90 + ".jpg"  # the prefix field, a GNU long name, a PAX path
        given = [("a.jpg", b"1"), (long_name, b"2" * 1000), ("empty.txt", b""), ("b/c.d.json", b"3" * 512)]
        archive = make_tar(given, format=format)
        members, end = read(archive)
        assert [(m.name.decode(), m.data) for m in members] == given
        assert [m.size for m in members] == [len(data) for _, data in given]
        assert end == TarEnd(
            complete=True,
            num_members=4,
            num_bytes=len(archive),
            sha256=hashlib.sha256(archive).hexdigest(),
        )

    @pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_unicode_and_very_long_names(self, format: int) -> None:
        names = ["é" * 150 + ".jpg", "x" * 5000 + ".jpg", "😀.png"]
        members, end = read(make_tar([(name, b"1") for name in names], format=format))
        assert [m.name.decode() for m in members] == names
        assert end.complete

    @given(
        st.lists(
            st.tuples(
                st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120),
                st.binary(max_size=1500),
            ),
            max_size=6,
        ),
        st.sampled_from(FORMATS[1:]),
        st.integers(0, 3),
    )
    def test_equals_tarfile_for_any_members(
        self, given: list[tuple[str, bytes]], format: int, packing: int
    ) -> None:
        archive = make_tar(given, format=format)
        if packing == 1:
            archive = gz(archive)
        elif packing == 2:
            archive = gz(archive[:700], archive[700:])
        members, end = read(archive)
        assert end.complete
        assert [(m.name.decode(), m.data) for m in members] == given

    def test_base_256_sizes(self) -> None:
        field = b"\x80" + (5).to_bytes(11, "big")
        members, end = read(raw_header(b"a.jpg", field) + b"12345".ljust(BLOCK, b"\0") + END)
        assert [m.data for m in members] == [b"12345"]
        assert end.complete

    def test_signed_checksums_of_old_writers(self) -> None:
        header = bytearray(raw_header("é.jpg".encode(), 0))
        header[148:156] = b"%06o\0 " % (int(header[148:154], 8) - 256 * 2)
        members, end = read(bytes(header) + END)
        assert (members[0].name.decode(), end.complete) == ("é.jpg", True)

    def test_unwanted_members_are_read_past(self) -> None:
        reader = TarReader(io.BytesIO(make_shard(3)), wants=lambda name, size: name.endswith(b".jpg"))
        assert [m.data is None for m in reader] == [False, True] * 3

    def test_gzip_is_known_by_its_bytes(self) -> None:
        plain = make_shard(40)
        packed = gz(plain)
        members, end = read(packed)
        assert members == read(plain)[0]
        assert (end.num_bytes, end.sha256) == (len(packed), hashlib.sha256(packed).hexdigest())

    def test_gzip_with_many_members_and_zeros_after(self) -> None:
        plain = make_shard(5)
        packed = gz(*(plain[n : n + 333] for n in range(0, len(plain), 333))) + b"\0" * 100
        members, end = read(packed)
        assert members == read(plain)[0]
        assert end.complete


class TestNotFiles:
    def test_input_15_links_devices_and_sparse_members_are_counted(self) -> None:
        given: list[tuple[str | tarfile.TarInfo, bytes]] = [("a.jpg", b"1")]
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.FIFOTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.DIRTYPE,
        ):
            info = tarfile.TarInfo("x.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            given.append((info, b""))
        sparse = tarfile.TarInfo("s.jpg")
        sparse.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.jpg"}
        given += [(sparse, b"1\n0\n5\n".ljust(600, b"\0")), ("b.jpg", b"2")]
        members, end = read(make_tar(given))
        assert [m.name for m in members] == [b"a.jpg", b"b.jpg"]
        assert end.complete
        assert end.ignored == {
            "symlink": 1,
            "hard_link": 1,
            "fifo": 1,
            "device": 1,
            "block_device": 1,
            "directory": 1,
            "sparse": 1,
        }

    def test_input_15_old_gnu_sparse_maps_are_read_past(self) -> None:
        header = bytearray(raw_header(b"s.jpg", 4, flag=b"S", magic=b"ustar  \0"))
        header[482] = 1
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
        more, last = bytearray(BLOCK), bytearray(BLOCK)
        more[504] = 1
        archive = bytes(header) + bytes(more) + bytes(last) + b"data".ljust(BLOCK, b"\0")
        members, end = read(archive + raw_member(b"b.jpg", b"2") + END)
        assert [m.name for m in members] == [b"b.jpg"]
        assert (end.complete, end.ignored) == (True, {"sparse": 1})

    def test_unknown_types_are_counted_and_their_data_read_past(self) -> None:
        members, end = read(raw_member(b"v.jpg", b"x" * 700, flag=b"V") + raw_member(b"b.jpg", b"2") + END)
        assert [m.name for m in members] == [b"b.jpg"]
        assert (end.complete, end.ignored) == (True, {"unknown_type": 1})


class TestDamage:
    archive = make_shard(20)
    header, data = header_at(archive, 20), data_at(archive, 20)  # 000010.jpg
    whole = read(archive)[0]

    def names_of(self, members: list[Member]) -> list[bytes]:
        return [m.name for m in members if m.data is not None]

    def check(self, damaged: bytes, code: str, num_whole: int) -> TarEnd:
        members, end = read(damaged)
        assert (end.complete, end.damage_code) == (False, code)
        assert [m for m in members if m.data is not None] == self.whole[:num_whole]
        assert end.num_bytes == len(damaged)
        assert end.sha256 == hashlib.sha256(damaged).hexdigest()
        assert end.num_members == len(members)
        return end

    def test_input_17_cut_inside_data(self) -> None:
        members, _ = read(self.archive[: self.data + 10])
        assert (members[-1].name, members[-1].data, members[-1].truncated) == (b"000010.jpg", None, True)
        end = self.check(self.archive[: self.data + 10], "E_TRUNCATED_ARCHIVE", 20)
        assert "000010.jpg" in end.damage
        assert f"{self.header:,}" in end.damage

    def test_input_17_cut_inside_padding_keeps_the_member(self) -> None:
        size = self.whole[20].size
        assert size % BLOCK
        self.check(self.archive[: self.data + size + 1], "E_TRUNCATED_ARCHIVE", 21)

    def test_input_17_cut_between_members(self) -> None:
        self.check(self.archive[: self.header], "E_NO_END", 20)

    def test_input_17_cut_inside_a_header(self) -> None:
        self.check(self.archive[: self.header + 100], "E_TRUNCATED_ARCHIVE", 20)

    @pytest.mark.parametrize("at", [0, 50, 124, 130, 148, 156, 257, 400, 511])
    def test_input_17_a_flipped_byte_in_a_header(self, at: int) -> None:
        damaged = bytearray(self.archive)
        damaged[self.header + at] ^= 0x01
        self.check(bytes(damaged), "E_BAD_HEADER", 20)

    def test_input_17_a_header_of_zeros(self) -> None:
        damaged = bytearray(self.archive)
        damaged[self.header : self.header + BLOCK] = bytes(BLOCK)
        self.check(bytes(damaged), "E_ZERO_HEADER", 20)

    @pytest.mark.parametrize("kept", [0, 1])
    def test_input_17_missing_end_blocks(self, kept: int) -> None:
        end = data_at(self.archive, 39) + BLOCK
        assert not any(self.archive[end:])
        self.check(self.archive[: end + kept * BLOCK], "E_NO_END", 40)

    @pytest.mark.parametrize("rest", [b"x", b"\0" * 5000 + b"x", make_shard(1)])
    def test_input_17_trailing_garbage(self, rest: bytes) -> None:
        self.check(self.archive + rest, "E_TRAILING_DATA", 40)

    def test_input_17_no_bytes(self) -> None:
        self.check(b"", "E_EMPTY_ARCHIVE", 0)

    def test_input_17_an_archive_without_members_is_whole(self) -> None:
        members, end = read(make_tar([]))
        assert (members, end.complete) == ([], True)

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"<!doctype html><html>404</html>".ljust(2000), "E_BAD_HEADER"),
            (b"\x28\xb5\x2f\xfd" + b"1" * 1000, "E_COMPRESSION"),
            (b"BZh9" + b"1" * 1000, "E_COMPRESSION"),
            (b"\xfd7zXZ\0" + b"1" * 1000, "E_COMPRESSION"),
            (b"PK\x03\x04" + b"1" * 1000, "E_BAD_HEADER"),
        ],
    )
    def test_input_17_not_a_tar(self, data: bytes, code: str) -> None:
        self.check(data, code, 0)

    def test_a_page_in_place_of_a_tar_is_called_no_tar(self) -> None:
        _, end = read(b"<!doctype html><html>404</html>".ljust(2000))
        assert end.damage.startswith("this is no tar archive: it begins with b'<!doctype html><'")

    def test_a_damaged_first_header_is_not_called_another_kind_of_file(self) -> None:
        archive = bytearray(make_shard(1))
        archive[0] ^= 1
        _, end = read(bytes(archive))
        assert end.damage_code == "E_BAD_HEADER"
        assert "no tar archive" not in end.damage

    def test_every_cut_is_noticed_and_keeps_whole_members(self) -> None:
        archive = make_shard(2)
        whole, end = read(archive)
        content_end = data_at(archive, 3) + BLOCK
        for length in range(0, content_end + 2 * BLOCK, 37):
            members, end = read(archive[:length])
            assert not end.complete
            kept = [m for m in members if m.data is not None]
            assert kept == whole[: len(kept)]
        assert read(archive[: content_end + 2 * BLOCK])[1].complete

    def test_a_flipped_byte_never_raises_and_never_adds_members(self) -> None:
        archive = make_shard(3)
        rng = random.Random(0)
        for _ in range(400):
            damaged = bytearray(archive)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            members, end = read(bytes(damaged))
            assert len(members) <= 6
            assert len(members) == 6 or not end.complete


class TestGzipDamage:
    plain = make_shard(20)
    packed = gz(plain)

    def test_input_17_cut_gzip(self) -> None:
        for length in (5, 100, len(self.packed) // 2, len(self.packed) - 1):
            _, end = read(self.packed[:length])
            assert (end.complete, end.damage_code) == (False, "E_TRUNCATED_ARCHIVE")

    def test_input_17_flipped_byte_in_gzip(self) -> None:
        for at in (30, len(self.packed) // 2, len(self.packed) - 6):
            damaged = bytearray(self.packed)
            damaged[at] ^= 0xFF
            members, end = read(bytes(damaged))
            assert not end.complete
            assert end.damage_code in ("E_GZIP", "E_BAD_HEADER", "E_TRUNCATED_ARCHIVE", "E_TRAILING_DATA")
            assert all(m.truncated for m in members if m.data is None)

    def test_input_17_garbage_after_gzip(self) -> None:
        assert read(self.packed + b"garbage")[1].damage_code == "E_TRAILING_DATA"

    def test_input_16_a_gzip_bomb_is_stopped(self) -> None:
        bomb = gzip.compress(raw_header(b"x.jpg", 2**30) + bytes(100 * 2**20), mtime=0)
        _, end = read(bomb, TarConfig(max_decompression_ratio=2))
        assert end.damage_code == "E_DECOMPRESSION_RATIO"


class TestClaims:
    def test_input_16_eight_gib_claimed_for_a_small_member(self) -> None:
        members, end = read(raw_header(b"x.jpg", b"\x80" + (8 * 2**30).to_bytes(11, "big")) + b"x" * 1024)
        assert [(m.size, m.data, m.too_large) for m in members] == [(8 * 2**30, None, True)]
        assert end.damage_code == "E_TRUNCATED_ARCHIVE"

    def test_input_16_a_member_over_the_cap_is_read_past(self) -> None:
        archive = make_tar([("big.jpg", b"x" * 5000), ("b.jpg", b"2")])
        members, end = read(archive, TarConfig(max_member_bytes=4000))
        assert [(m.name, m.too_large, m.data) for m in members] == [
            (b"big.jpg", True, None),
            (b"b.jpg", False, b"2"),
        ]
        assert end.complete

    @pytest.mark.parametrize(
        "field",
        [
            b"\xff" * 12,  # -1 in base 256
            b"-0000000001\0",
            b"00000000009\0",
            b"\x80" + b"\x7f" * 11,
            b"\x81" + b"\0" * 11,
            b"0x10\0",
        ],
    )
    def test_input_16_sizes_that_are_no_sizes(self, field: bytes) -> None:
        members, end = read(raw_member(b"a.jpg", b"1") + raw_header(b"x.jpg", field) + END)
        assert [m.name for m in members] == [b"a.jpg"]
        assert end.damage_code == "E_BAD_HEADER"

    def pax(self, records: bytes, data: bytes = b"1234") -> bytes:
        return (
            raw_member(b"pax", records, flag=b"x")
            + raw_member(b"x.jpg", data)
            + raw_member(b"b.jpg", b"2")
            + END
        )

    def test_input_16_pax_size_override_is_capped(self) -> None:
        members, end = read(self.pax(b"25 size=9999999999999999\n"))
        assert [(m.name, m.too_large) for m in members] == [(b"x.jpg", True)]
        assert end.damage_code == "E_TRUNCATED_ARCHIVE"

    def test_input_16_pax_size_override_is_followed(self) -> None:
        members, end = read(self.pax(b"10 size=4\n"))
        assert [m.data for m in members] == [b"1234", b"2"]
        assert end.complete

    def test_input_16_a_pax_size_that_hides_a_member_is_damage(self) -> None:
        _, end = read(self.pax(b"12 size=700\n"))
        assert end.damage_code == "E_BAD_HEADER"

    @pytest.mark.parametrize(
        "records",
        [
            b"11 size=-4\n",
            b"10 size=4 ",
            b"99 size=4\n",
            b"0 size=4\n",
            b"x size=4\n",
            b"7 size\n",
            b"33 size=9999999999999999999999999\n",
            b"no records at all",
        ],
    )
    def test_input_16_broken_pax_records(self, records: bytes) -> None:
        members, end = read(self.pax(records))
        assert members == []
        assert end.damage_code == "E_BAD_HEADER"

    def test_a_global_pax_header_cannot_name_all_members(self) -> None:
        _, end = read(raw_member(b"g", b"14 path=x.jpg\n", flag=b"g") + raw_member(b"a.jpg", b"1") + END)
        assert end.damage_code == "E_BAD_HEADER"
        members, end = read(raw_member(b"g", b"13 comment=x\n", flag=b"g") + raw_member(b"a.jpg", b"1") + END)
        assert (len(members), end.complete) == (1, True)

    def test_a_record_without_its_member(self) -> None:
        _, end = read(raw_member(b"L", b"long.jpg\0", flag=b"L") + END)
        assert end.damage_code == "E_ZERO_HEADER"

    def test_a_huge_name_record(self) -> None:
        _, end = read(raw_header(b"L", 2**31, flag=b"L") + b"x" * 1000)
        assert end.damage_code == "E_BAD_HEADER"

    def test_too_many_members(self) -> None:
        members, end = read(make_shard(20), TarConfig(max_members=7))
        assert (len(members), end.damage_code) == (7, "E_TOO_MANY_MEMBERS")

    @given(st.binary(max_size=3000))
    def test_any_bytes_end_with_a_verdict(self, data: bytes) -> None:
        _, end = read(data)
        assert not end.complete

    def test_struct_of_test_headers(self) -> None:
        assert struct.calcsize("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x") == BLOCK
        with tarfile.open(fileobj=io.BytesIO(raw_member(b"a.jpg", b"1") + END)) as archive:
            assert archive.getnames() == ["a.jpg"]
