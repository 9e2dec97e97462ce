"""Sidecars: what is taken, and that nothing in them can fail or slow an image."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sidecar import SidecarConfig, SidecarFields, parse_sidecars

CONFIG = SidecarConfig()


def parse(
    data: bytes | dict | None, txt: bytes | None = None, config: SidecarConfig = CONFIG
) -> SidecarFields:
    return parse_sidecars(json.dumps(data).encode() if isinstance(data, dict) else data, txt, config)


def test_columns() -> None:
    values = {
        "license": "CC-BY-4.0",
        "url": "https://example.org/a.jpg",
        "caption": "a cat",
        "caption_long": "a grey cat\non a mat",
        "other": [1, {"x": 2}],
    }
    fields = parse(values)
    assert fields == SidecarFields(
        sidecar=json.dumps(values),
        license="CC-BY-4.0",
        source_url="https://example.org/a.jpg",
        caption_short="a cat",
        caption_long="a grey cat on a mat",
    )


def test_no_sidecars() -> None:
    assert parse(None) == SidecarFields()


def test_txt_is_the_short_caption_where_json_has_none() -> None:
    assert parse(None, b" a dog\r\n").caption_short == "a dog"
    assert parse({"license": "x"}, b"a dog").caption_short == "a dog"
    assert parse({"caption": "a cat"}, b"a dog").caption_short == "a cat"
    assert parse(None, b"\xff").notes == ("E_SIDECAR:txt_invalid_utf8",)


def test_fields_are_configurable_and_nested() -> None:
    config = SidecarConfig(license_fields=("meta.rights", "license"), caption_short_fields=("zh",))
    fields = parse({"meta": {"rights": "PD"}, "zh": "一只猫", "caption": "no"}, config=config)
    assert (fields.license, fields.caption_short) == ("PD", "一只猫")


def test_values_of_other_types_are_noted_and_skipped() -> None:
    fields = parse({"caption": ["a"], "text": "b", "license": 4, "url": {"a": 1}, "caption_long": None})
    assert (fields.caption_short, fields.license, fields.source_url, fields.caption_long) == (
        "b",
        "4",
        None,
        None,
    )
    assert fields.notes == ("N_FIELD_TYPE:url", "N_FIELD_TYPE:caption")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b" " * 1_000_001, "too_large"),
        (b"[" * 10_000 + b"]" * 10_000, "too_deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "too_deep"),
        (b'{"caption": "a", "caption": "b"}', "duplicate_keys"),
        (b'{"x": {"a": 1, "a": 2}}', "duplicate_keys"),
        (b'{"a": NaN}', "nan"),
        (b'{"a": -Infinity}', "nan"),
        (b'{"a": "\xff"}', "invalid_utf8"),
        (b'[{"caption": "a"}]', "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"{", "not_json"),
        (b"", "not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
    ],
)
def test_input_22_an_unusable_sidecar_is_a_note(data: bytes, reason: str) -> None:
    fields = parse(data, b"still a caption")
    assert fields.notes == (f"E_SIDECAR:{reason}",)
    assert fields.sidecar is None
    assert fields.caption_short == "still a caption"


def test_input_22_depth_is_counted_outside_strings() -> None:
    deepest = b'{"a":' * 64 + b'"' + b"[" * 1000 + b'\\""' + b"}" * 64
    assert parse(deepest).notes == ()


@pytest.mark.parametrize(
    "data", [b'\\"' * 400_000, b'"' + b'\\"' * 400_000, b'"\\' * 400_000, b"{" * 900_000]
)
def test_input_22_hostile_text_takes_linear_time(data: bytes) -> None:
    started = time.process_time()
    parse(data)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("caption", ["x" * 100_000, "\u202e" * 10 + "y" * 10_001])
def test_input_23_long_captions_are_cut_and_noted(caption: str) -> None:
    fields = parse({"caption": caption})
    assert len(fields.caption_short or "") == 10_000
    assert fields.notes == ("N_CAPTION_CUT:caption_short",)


def test_input_23_control_characters_are_taken_out() -> None:
    fields = parse({"caption": "a\x00\x1b[31m\u202eb\ud800 <script>\tc", "license": "x\u2028y"})
    assert fields.caption_short == "a[31mb <script> c"  # escaping is the report's work
    assert fields.license == "x y"
    assert parse({"caption": "\u202e\x00"}).caption_short is None


def test_signed_urls_lose_their_signature() -> None:
    fields = parse({"url": "https://b.example/a.jpg?X-Amz-Signature=deadbeef"})
    assert "deadbeef" not in (fields.source_url or "")
    assert fields.notes == ("N_REDACTED:source_url", "N_REDACTED:sidecar")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": ["https://b.example/a.jpg?w=1&X-Amz-Signature=deadbeef"]}}',
        '{"a": "https://b.example/a.jpg?w=1\\u0026X-Amz-Signature=deadbeef"}',
        '{"a": "https:\\/\\/me:deadbeef@b.example\\/a.jpg"}',
        '{"https://b.example/a.jpg?sig=deadbeef": 1}',
        '{"caption": "猫 \\ud800 see https://b.example/a.jpg?w=1&sig=deadbeef"}',
    ],
    ids=["nested", "ampersand as Go writes it", "slashes as PHP writes them", "a name", "a caption"],
)
def test_secrets_leave_every_text_of_a_sidecar(text: str) -> None:
    assert "deadbeef" in text
    fields = parse(text.encode())
    assert fields.sidecar is not None
    assert "deadbeef" not in fields.sidecar + (fields.caption_short or "")
    assert "[redacted]" in fields.sidecar
    assert json.loads(fields.sidecar).keys() <= {"a", "caption", "https://b.example/a.jpg?[redacted]"}
    assert fields.notes == ("N_REDACTED:sidecar",)
    fields.sidecar.encode()  # a table can hold it


def test_a_signed_url_in_a_text_file_is_taken_out_too() -> None:
    fields = parse_sidecars(None, b"a cat, from https://b.example/a.jpg?sig=deadbeef", SidecarConfig())
    assert fields.caption_short == "a cat, from https://b.example/a.jpg?[redacted]"
    assert fields.notes == ("N_REDACTED:txt",)


def test_a_field_that_only_looks_like_a_secret_beside_others_changes_nothing() -> None:
    fields = parse(b'{"a": "x", "b": "token=1234"}')
    assert (fields.sidecar, fields.notes) == ('{"a": "x", "b": "token=1234"}', ())


def test_overlong_urls_are_not_used() -> None:
    fields = parse({"url": "https://example.org/" + "a" * 3000})
    assert (fields.source_url, fields.notes) == (None, ("N_TOO_LONG:source_url",))


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_any_bytes_give_columns(data: bytes, txt: bytes) -> None:
    fields = parse(data, txt)
    for text in (fields.sidecar, fields.caption_short, fields.license):
        assert text is None or text.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_any_object_is_kept_as_it_is(value: object) -> None:
    data = json.dumps({"any": value}).encode()
    assert parse(data).sidecar == data.decode()
