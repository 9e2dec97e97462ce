"""Members become samples: adjacent, interleaved, duplicate, hostile, cut off."""

import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ConfigError
from pipelines.keys import archive_key, escaped_name, folder_key, name_fault
from pipelines.samples import Sample, SampleConfig, SampleGrouper
from pipelines.tar import Member


def member(name: str | bytes, data: bytes | None = b"data", **flags: bool) -> Member:
    raw = name if isinstance(name, bytes) else name.encode()
    return Member(name=raw, offset=0, size=len(data or b"x" * 99), data=data, **flags)


def group(
    *members: Member | str | bytes,
    config: SampleConfig | None = None,
    is_damaged: bool = False,
    orphans_fail: bool = True,
) -> tuple[list[Sample], dict[str, int]]:
    grouper = SampleGrouper(config, max_sidecar_bytes=1000, orphans_fail=orphans_fail)
    samples = []
    for each in members:
        whole = (
            each
            if isinstance(each, Member)
            else member(each, each if isinstance(each, bytes) else each.encode())
        )
        samples += grouper.add(whole)
    samples += grouper.close(is_damaged=is_damaged)
    return samples, dict(+grouper.ignored)


def codes(samples: list[Sample]) -> list[tuple[str, str]]:
    return [(sample.key, sample.error_code) for sample in samples]


class TestKeys:
    @pytest.mark.parametrize(
        ("name", "parts"),
        [
            ("a.jpg", ("a", "jpg")),
            ("a/b.c.jpg", ("a/b", "c.jpg")),
            ("a.d/b.jpg", ("a.d/b", "jpg")),
            ("./0001.jpg", ("./0001", "jpg")),
            ("a b%2F😀.JPG", ("a b%2F😀", "JPG")),
            ("README", None),
            ("a.d/README", None),
            (".DS_Store", None),
            ("x/._a.jpg", None),
            ("__meta__/a.jpg", None),
            ("x/__key__", None),
        ],
    )
    def test_of_archives_as_webdataset_has_them(self, name: str, parts: tuple[str, str] | None) -> None:
        assert archive_key(name) == parts

    def test_of_folders_keep_their_dots(self) -> None:
        assert folder_key("trip/Bild 2024.01.02.jpg") == "trip/Bild 2024.01.02"
        assert folder_key("a.d/README") == "a.d/README"

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            (b"../../etc/x.jpg", "climbs out"),
            (b"a\\..\\x.jpg", "climbs out"),
            (b"/abs/x.jpg", "absolute"),
            (b"C:\\x.jpg", "absolute"),
            (b"a\0b.jpg", "U+0000"),
            (b"a\nb.jpg", "U+000A"),
            (b"\x1b[31mred.jpg", "U+001B"),
            ("\u202egpj.exe.jpg".encode(), "U+202E"),
            ("a\u2028b.jpg".encode(), "U+2028"),
            (b"\xff\xfe.jpg", "not UTF-8"),
            (b"x" * 300 + b".jpg", "304 bytes"),
            (b"", "empty"),
        ],
    )
    def test_input_14_and_20_hostile_names_are_refused(self, name: bytes, why: str) -> None:
        assert why in name_fault(name)
        assert escaped_name(name).isprintable()
        assert len(escaped_name(name)) < 230

    @given(st.binary(max_size=400))
    def test_escaped_names_are_one_harmless_line(self, name: bytes) -> None:
        shown = escaped_name(name)
        assert shown.isprintable()
        assert "\u202e" not in shown


class TestAdjacent:
    def test_image_and_sidecars(self) -> None:
        samples, ignored = group("0.jpg", "0.json", "0.txt", "1.json", "1.PNG", "1.cls")
        assert samples == [
            Sample(key="0", image=b"0.jpg", json=b"0.json", txt=b"0.txt"),
            Sample(key="1", image=b"1.PNG", json=b"1.json"),
        ]
        assert ignored == {"other_field": 1}

    def test_a_sidecar_goes_with_the_field_of_its_image(self) -> None:
        samples, ignored = group("a.seg.json", "a.json", "a.b.jpg", "a.b.json")
        assert samples == [Sample(key="a", image=b"a.b.jpg", json=b"a.b.json")]
        assert ignored == {"other_sidecar": 2}

    def test_an_empty_image_is_left_to_the_decoder(self) -> None:
        samples, _ = group(member("a.jpg", b""))
        assert samples == [Sample(key="a", image=b"")]

    def test_input_20_keys_keep_their_text(self) -> None:
        decomposed = unicodedata.normalize("NFD", "é")
        names = ["a b.jpg", "a%2Fb.jpg", "😀.jpg", "é.jpg", f"{decomposed}.jpg", "X.JPG", "x.jpg"]
        samples, _ = group(*names)
        assert [s.key for s in samples] == ["a b", "a%2Fb", "😀", "é", decomposed, "X", "x"]
        assert [s.notes for s in samples] == [(), (), (), (), ("N_KEY_NOT_NFC",), (), ()]
        assert not any(s.error_code for s in samples)

    def test_input_20_two_extensions_of_one_key(self) -> None:
        samples, _ = group("x.jpg", "x.JPG", "x.png")
        assert codes(samples) == [("x", ""), ("x", "E_DUPLICATE_KEY"), ("x", "E_SECOND_IMAGE")]

    def test_annotations_that_look_like_images_can_be_named(self) -> None:
        samples, _ = group("a.jpg", "a.seg.png")
        assert codes(samples) == [("a", ""), ("a", "E_SECOND_IMAGE")]
        assert "ignored_fields" in samples[1].error_message
        samples, ignored = group("a.seg.png", "a.jpg", config=SampleConfig(ignored_fields=("seg.png",)))
        assert (codes(samples), ignored) == ([("a", "")], {"ignored_field": 1})


class TestInterleaved:
    def test_input_18_interleaved_members_make_whole_samples(self) -> None:
        samples, _ = group("0.jpg", "1.jpg", "0.json", "1.json")
        assert samples == [
            Sample(key="0", image=b"0.jpg", json=b"0.json", notes=("N_INTERLEAVED",)),
            Sample(key="1", image=b"1.jpg", json=b"1.json", notes=("N_INTERLEAVED",)),
        ]

    def test_input_18_beyond_the_window_is_named(self) -> None:
        names = [f"{n}.jpg" for n in range(5)] + [f"{n}.json" for n in range(5)]
        samples, _ = group(*names, config=SampleConfig(window_samples=2))
        assert codes(samples)[:5] == [(f"{n}", "") for n in range(5)]
        late = [sample for sample in samples if sample.error_code]
        assert {sample.error_code for sample in late} == {"E_INTERLEAVED"}
        assert "sort the shard" in late[0].error_message
        assert all(sample.image for sample in samples[:5])

    def test_sidecars_long_before_their_images(self) -> None:
        names = [f"{n}.json" for n in range(4)] + [f"{n}.jpg" for n in range(4)]
        samples, _ = group(*names, config=SampleConfig(window_samples=1))
        assert Counter(code for _, code in codes(samples)) == {"E_NO_IMAGE": 4, "": 4}

    def test_the_window_is_bounded_by_bytes(self) -> None:
        grouper = SampleGrouper(SampleConfig(window_bytes=1000), max_sidecar_bytes=10)
        held = 0
        for n in range(50):
            held += 1
            held -= len(list(grouper.add(member(f"{n}.jpg", b"x" * 300))))
            assert held <= 4
        assert len(list(grouper.close())) == held

    @given(st.permutations([f"{n}.{e}" for n in range(4) for e in ("jpg", "json")]))
    def test_any_order_within_the_window_gives_the_same_samples(self, names: list[str]) -> None:
        samples, ignored = group(*names)
        assert sorted((s.key, s.image, s.json) for s in samples) == [
            (f"{n}", f"{n}.jpg".encode(), f"{n}.json".encode()) for n in range(4)
        ]
        assert ignored == {}

    @given(st.integers(0, 2**32), st.integers(1, 8))
    def test_no_image_is_ever_lost_or_doubled(self, seed: int, window: int) -> None:
        rng = random.Random(seed)
        names = [f"{rng.randrange(12)}.{rng.choice(['jpg', 'png', 'json', 'gif', 'pkl'])}" for _ in range(40)]
        samples, _ = group(*names, config=SampleConfig(window_samples=window))
        num_images = sum(name.endswith(("jpg", "png")) for name in names)
        image_codes = ("", "E_DUPLICATE_KEY", "E_SECOND_IMAGE")
        assert sum(sample.error_code in image_codes for sample in samples) == num_images
        labelled = [sample.key for sample in samples if not sample.error_code]
        assert (
            len(labelled)
            == len(set(labelled))
            == len({n.split(".")[0] for n in names if n.endswith(("jpg", "png"))})
        )


class TestFailures:
    def test_input_19_the_same_key_twice(self) -> None:
        samples, ignored = group("a.jpg", "a.json", "b.jpg", "a.jpg", "a.json")
        assert codes(samples) == [("a", ""), ("b", ""), ("a", "E_DUPLICATE_KEY")]
        assert samples[0].image == b"a.jpg"
        assert ignored == {"duplicate_sidecar": 1}

    def test_input_19_the_same_key_twice_far_apart(self) -> None:
        names = [f"{n}.jpg" for n in range(100)]
        samples, _ = group(*names, "3.jpg", config=SampleConfig(window_samples=4))
        assert codes(samples)[-1] == ("3", "E_DUPLICATE_KEY")
        assert [code for _, code in codes(samples)[:-1]] == [""] * 100

    def test_sidecars_without_an_image(self) -> None:
        samples, _ = group("a.json", "a.txt", "b.jpg")
        assert codes(samples) == [("a", "E_NO_IMAGE"), ("b", "")]
        assert "json, txt" in samples[0].error_message
        assert group("a.json", orphans_fail=False) == ([], {"orphan_sidecar": 1})

    def test_pictures_of_other_kinds_are_rows(self) -> None:
        samples, ignored = group("a.gif", "a.json", "b.tiff", "c.jpg", "c.gif")
        assert codes(samples) == [("a", "E_UNSUPPORTED_IMAGE"), ("b", "E_UNSUPPORTED_IMAGE"), ("c", "")]
        assert ignored == {"foreign_image": 1}

    def test_input_14_hostile_names(self) -> None:
        samples, ignored = group(
            member(b"../../etc/x.jpg"),
            member(b"a\n\x1b[0m.jpg"),
            member(b"../x.json"),
            member(b"\xff.jpg"),
            "b.jpg",
        )
        assert codes(samples) == [
            ("../../etc/x.jpg", "E_NAME"),
            ("a\\n\\x1b[0m.jpg", "E_NAME"),
            ("\\xff.jpg", "E_NAME"),
            ("b", ""),
        ]
        assert ignored == {"hostile_name": 1}

    def test_input_21_pickles_are_never_wanted(self) -> None:
        grouper = SampleGrouper(max_sidecar_bytes=1000)
        names = [f"a.{e}" for e in ("pkl", "pickle", "pyd", "pt", "pth", "npy", "npz", "PKL")]
        assert not any(grouper.wants(name.encode(), 10) for name in names)
        samples, ignored = group("a.jpg", *(member(name, None) for name in names))
        assert (codes(samples), ignored) == ([("a", "")], {"pickle": 8})

    def test_input_16_a_member_over_the_cap(self) -> None:
        samples, _ = group(
            member("a.jpg", None, too_large=True), "a.json", "b.jpg", member("b.json", None, too_large=True)
        )
        assert codes(samples) == [("a", "E_MEMBER_TOO_LARGE"), ("b", "")]
        assert samples[0].json == b"a.json"
        assert samples[1].notes == ("E_SIDECAR:too_large",)

    def test_input_17_the_image_that_is_cut_off(self) -> None:
        samples, _ = group("a.jpg", member("b.jpg", None, truncated=True), is_damaged=True)
        assert codes(samples) == [("a", ""), ("b", "E_TRUNCATED_ARCHIVE")]

    def test_input_17_the_last_whole_sample_is_noted(self) -> None:
        samples, _ = group("a.jpg", "b.jpg", member("b.json", None, truncated=True), is_damaged=True)
        assert codes(samples) == [("a", ""), ("b", "")]
        assert samples[1].notes == ("E_SIDECAR:truncated", "N_BEFORE_DAMAGE")

    def test_wants_what_rows_need(self) -> None:
        grouper = SampleGrouper(max_sidecar_bytes=1000)
        wanted = [
            n
            for n in ("a.jpg", "a.WebP", "a.json", "a.cls", "a.gif", "../a.jpg", "README")
            if grouper.wants(n.encode(), 10)
        ]
        assert wanted == ["a.jpg", "a.WebP", "a.json"]
        assert not grouper.wants(b"a.json", 1001)

    def test_config_refuses_nonsense(self) -> None:
        with pytest.raises(ConfigError, match="window_samples"):
            SampleConfig(window_samples=0)
