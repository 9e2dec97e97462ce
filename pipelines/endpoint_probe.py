"""Is a chat endpoint there? One GET of its list of models before a run, bounded in time, that costs nothing."""

import asyncio

import aiohttp

from pipelines.endpoint_config import EndpointConfig

PROBE_TIMEOUT_S = 5.0
"""Seconds for the whole request, the connection included."""
_DENIED = (401, 403)


def endpoint_problem(config: EndpointConfig, *, timeout_s: float = PROBE_TIMEOUT_S) -> str:
    """Why questions would get no answer, or nothing.

    Any answer but 401, 403 and 5xx says that somebody is there: a server need not know `models`. Redirects are not
    followed, because they would carry the key elsewhere, and no word of the server's is repeated. Raises ConfigError
    where the environment does not hold the key.
    """
    key = config.key()
    try:
        status = asyncio.run(_status(models_url(config), key, timeout_s))
    except TimeoutError:
        return f"endpoint {config.url}: no answer in {timeout_s:g} s; is the server up, and endpoint.url the right one?"
    except (aiohttp.ClientError, OSError) as error:
        # The text of these may hold the request with its headers; the type says enough.
        return (
            f"endpoint {config.url}: cannot be reached ({type(error).__name__}); start the server, or check"
            " endpoint.url"
        )
    name = config.key_from_env
    if status in _DENIED:
        refused = f"the key in {name} is refused" if name else "a key is wanted: set endpoint.key_from_env"
        return f"endpoint {config.url}: {refused} (the server answered {status})"
    if status >= 500:
        return f"endpoint {config.url}: the server answered {status}: it is there, but not ready; look at its log"
    return ""


def models_url(config: EndpointConfig) -> str:
    """Where the endpoint lists its models."""
    return f"{config.completions_url.removesuffix('/chat/completions')}/models"


async def _status(url: str, key: str | None, timeout_s: float) -> int:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with (
        aiohttp.ClientSession(
            headers=headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session,
        session.get(url, allow_redirects=False) as reply,
    ):
        return reply.status  # the body is not read
