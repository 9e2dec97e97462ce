"""A page that is made once."""

import pytest

from tests.pipelines.report.made_page import MadePage, make_page


@pytest.fixture(scope="session")
def made_page(tmp_path_factory: pytest.TempPathFactory) -> MadePage:
    return make_page(tmp_path_factory.mktemp("report"))
