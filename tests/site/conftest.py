"""The site, built once for all tests that look at it."""

import pytest

from lab.site.build import build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build_site(folder)
    return folder
