import pytest

from tests.domains.music.spectocloud.corpus import make_row, make_settings
from training.data.manifest import Row
from training.domains.music.spectocloud.recipe import SpectocloudRecipe


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return [make_row(number) for number in range(3)]


@pytest.fixture(scope="session")
def recipe() -> SpectocloudRecipe:
    return SpectocloudRecipe(make_settings())
