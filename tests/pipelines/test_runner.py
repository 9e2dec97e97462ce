"""What is left out of Ray's own lines, without Ray."""

import logging

import pytest

from pipelines.runner import _TOKEN_LOGGER, _is_no_token_notice


@pytest.mark.parametrize(
    ("message", "is_shown"),
    [
        (
            "Token authentication is enabled for this Ray cluster. Set RAY_AUTH_MODE=disabled to opt out.",
            False,
        ),
        ("Token authentication is disabled for this Ray cluster. Anyone with network access ...", True),
    ],
)
def test_only_the_notice_of_a_safe_cluster_is_left_out(message: str, *, is_shown: bool) -> None:
    assert _is_no_token_notice(logging.makeLogRecord({"msg": message, "name": _TOKEN_LOGGER})) is is_shown


def test_the_notice_is_where_this_version_of_ray_says_it() -> None:
    from ray._private.authentication import authentication_token_setup

    assert authentication_token_setup.__name__ == _TOKEN_LOGGER
