"""Plain data to dataclasses: strict, and every message names the way out."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jobs.door import field_docstrings, from_plain, json_schema
from ovsops.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Inside."""

    share: float = 0.5
    """Part of the whole, in [0, 1]."""
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"inner.share is {self.share}; it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class Outer:
    """Outside."""

    name: str
    sizes: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = None


def test_plain_data_becomes_the_dataclasses_with_their_own_defaults() -> None:
    made = from_plain(Outer, {"name": "x", "sizes": [1, 2], "other": {"share": 1}}, where="recipe r")
    assert made == Outer(name="x", sizes=(1, 2), other=Inner(share=1.0))
    assert isinstance(made.sizes, tuple)
    assert isinstance(made.inner, Inner)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"name": "x", "inner": {"shar": 1}},
            r"recipe r: inner\.shar is not a known field; did you mean 'share'",
        ),
        ({"name": "x", "other": {"shar": 1}}, r"other\.shar is not a known field"),
        ({"name": "x", "zzz": 1}, r"zzz is not a known field; known here: name, sizes, inner, other"),
        ({}, r"name is missing"),
        ({"name": 3}, r"name is 3; expected a valid string"),
        ({"name": "x", "sizes": ["4"]}, r'sizes\.0 is "4"; expected a valid integer'),
        ({"name": "x", "sizes": [4.5]}, r"sizes\.0 is 4\.5"),
        ({"name": "x", "sizes": [True]}, r"sizes\.0 is true"),
        ({"name": "x", "inner": {"share": "1e-3"}}, r"inner\.share is \"1e-3\".*write 1\.0e-3"),
        ({"name": "x", "inner": {"kind": "c"}}, r"inner\.kind is \"c\"; expected 'a' or 'b'"),
        ({"name": "x", "inner": {"share": 2}}, r"inner\.share is 2\.0; it must lie in \[0, 1\]"),
        ({"name": "x", "inner": 5}, r"inner is 5"),
        (["name"], r"expected a mapping of fields"),
    ],
)
def test_what_is_wrong_is_said_with_path_value_and_expectation(data: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(Outer, data, where="recipe r")


def test_all_problems_are_named_at_once_and_capped() -> None:
    with pytest.raises(ConfigError, match=r"20 problems(.|\n)*and 10 more"):
        from_plain(Outer, {f"field{i}": i for i in range(20)}, where="recipe r")


def test_the_schema_is_closed_and_carries_docstrings() -> None:
    schema = json_schema(Outer)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Inner"]["additionalProperties"] is False
    assert schema["$defs"]["Inner"]["properties"]["share"]["description"] == "Part of the whole, in [0, 1]."
    assert schema["$defs"]["Inner"]["properties"]["share"]["default"] == 0.5
    assert field_docstrings(Inner) == {"share": "Part of the whole, in [0, 1]."}
