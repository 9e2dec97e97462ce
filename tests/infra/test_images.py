"""Dockerfiles: pinned bases, no root, no secret, sources and extras that exist, one Python for both."""

import re
import tomllib

import pytest

from tests.infra.objects import IMAGES, INFRA, ROOT

PINNED = re.compile(r"python:(3\.\d+)\.\d+-slim-bookworm@sha256:[0-9a-f]{64}")


def instructions(name: str) -> list[tuple[str, str]]:
    text = (INFRA / "docker" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in lines]


def bases(name: str) -> list[str]:
    return [value.split()[0] for key, value in instructions(name) if key == "FROM"]


@pytest.mark.parametrize("name", IMAGES.values())
def test_the_base_is_pinned_and_of_a_python_that_the_package_takes(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    for base in bases(name):
        found = PINNED.fullmatch(base)
        assert found, base
        assert found[1] in ("3.11", "3.12", "3.13")


def test_nodes_of_one_cluster_have_one_python() -> None:
    assert len({base for name in IMAGES.values() for base in bases(name)}) == 1


@pytest.mark.parametrize("name", IMAGES.values())
def test_it_ends_as_a_user_without_rights_and_holds_no_secret(name: str) -> None:
    found = instructions(name)
    assert [value for key, value in found if key == "USER"][-1] == "1000:1000"
    for key, value in found:
        if key in ("ENV", "ARG"):
            assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD", value)
        assert key != "ADD"


@pytest.mark.parametrize("name", IMAGES.values())
def test_what_it_copies_and_installs_exists(name: str) -> None:
    found = instructions(name)
    copied = [value for key, value in found if key == "COPY" and "--from" not in value]
    sources = [source for value in copied for source in value.split()[:-1]]
    assert sources
    assert all((ROOT / source).exists() for source in sources)
    ignored = (INFRA / "docker" / f"{name}.dockerignore").read_text().split("\n")
    assert ignored[1] == "*"  # everything, but for what is named
    assert {f"!{source}" for source in sources} <= set(ignored)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (install,) = [value for key, value in found if key == "RUN" and "pip install" in value]
    extras = re.search(r"'\.\[([a-z0-9,]+)\]'", install)
    assert extras
    assert set(extras[1].split(",")) == {"s3", "cluster"} <= set(project["optional-dependencies"])
    assert "-c constraints.txt" in install


def test_tags_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert all(image.startswith(f"ovsops:{version}-") for image in IMAGES)
