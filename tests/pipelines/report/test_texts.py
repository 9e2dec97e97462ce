"""Texts of the page: both languages, every code, and words of the data that stay words."""

import re

import pytest

from ovsops.regions.reasons import CARRIED as CARRIED_CODES
from pipelines.codes import FAILURES as FAILURE_CODES
from pipelines.codes import RETRYABLE
from pipelines.report import code_texts
from pipelines.report.charts import round_ticks
from pipelines.report.texts import Text, both, clean, duration, number, score, share, shown

CHINESE = re.compile("[\u4e00-\u9fff]")


def test_every_code_of_a_failed_image_is_explained() -> None:
    assert code_texts.FAILURES.keys() >= FAILURE_CODES | {"S_SMALL", "E_SHARD_CHANGED", "E_SHARD_MISSING"}
    for code in RETRYABLE:
        assert "ovsops retry" in code_texts.failure_text(code).way_out.en


def test_every_code_of_a_region_is_explained_in_both_languages() -> None:
    assert code_texts.CARRIED.keys() == CARRIED_CODES.keys()
    texts = [
        *code_texts.CARRIED.values(),
        *code_texts.LEFT_OUT.values(),
        *code_texts.NOTES.values(),
        *(text for each in code_texts.FAILURES.values() for text in (each.meaning, each.way_out)),
    ]
    for text in texts:
        assert CHINESE.search(text.zh), text
        assert not CHINESE.search(text.en), text


def test_unknown_codes_are_said_to_be_unknown() -> None:
    assert code_texts.failure_text("E_NEW") is code_texts.UNKNOWN_CODE
    assert code_texts.note_text("N_NEW") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", "a cat"),
        ("x" * 400, "x" * 300 + "… (400 characters)"),
        ("a\u202eb\u2066c\u200f", "abc"),
        ("a\x00b\x1b[31m", "a\ufffdb\ufffd[31m"),
        ("https://user:hunter2@host/x?X-Amz-Signature=abcdef", "https://[redacted]@host/x?[redacted]"),
    ],
)
def test_clean(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.00"),
        (0.00004, "<0.0001"),
        (0.0001, "0.0001"),
        (0.0041, "0.0041"),
        (0.0312, "0.031"),
        (0.0949, "0.095"),
        (0.1, "0.10"),
        (0.534, "0.53"),
        (0.9949, "0.99"),
        (0.9951, ">0.99"),
        (1.0, "1.00"),
    ],
)
def test_score(value: float, expected: str) -> None:
    assert score(value) == expected


def test_a_secret_at_the_cut_is_gone_too() -> None:
    text = "x" * 290 + " AKIA" + "Q" * 16
    assert "AKIA" not in clean(text)


def test_secrets_of_the_environment_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/key+value0")
    assert clean("caption s3cr3t/key+value0") == "caption [redacted]"
    assert "s3cr3t" not in both(Text("{x}", "{x}"), x="s3cr3t/key+value0")


def test_markup_is_text() -> None:
    assert "<img" not in shown("</script><img src=x onerror=alert(1)>")
    assert both(Text("{x}", "{x}"), x="<b>") == "&lt;b&gt;"
    assert both(Text("no {x}", "没有 {x}"), x="<i>").count("&lt;i&gt;") == 2


def test_numbers_and_shares() -> None:
    assert [number(v) for v in (0, 3, 1234567, 0.0834, 2.345, 45.67)] == [
        "0",
        "3",
        "1,234,567",
        "0.083",
        "2.35",
        "45.7",
    ]
    assert share(1, 1_000_000) == "<0.01 %"
    assert share(999_999, 1_000_000) == ">99.9 %"
    assert share(0, 5) == "0 %"
    assert share(5, 5) == "100 %"
    assert share(1, 0) == "–"
    assert [duration(s) for s in (4.25, 59.4, 725, 12_000)] == ["4.2 s", "59 s", "12 min 5 s", "3 h 20 min"]


@pytest.mark.parametrize("high", [0.0, 0.003, 1.0, 7.0, 99.0, 100.0, 1e6, 3.7e8])
def test_ticks_are_round_and_reach_the_top(high: float) -> None:
    ticks = round_ticks(high)
    assert ticks[0] == (0.0, "0")
    assert ticks[-1][0] >= high * (1 - 1e-9)
    assert 2 <= len(ticks) <= 7
