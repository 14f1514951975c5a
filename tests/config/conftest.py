import pytest

from seqbench.config.compose import Composer
from seqbench.errors import ConfigError


@pytest.fixture(scope="session")
def composer():
    """Return one composer for all tests without a config folder: trees are merged once."""
    return Composer()


@pytest.fixture
def refused(composer):
    """Return a function that gives the one-line error of wrong overrides."""

    def refused(*overrides, config_dir=None):
        used = composer if config_dir is None else Composer(config_dir)
        with pytest.raises(ConfigError) as caught:
            used.compose(overrides)
        text = str(caught.value)
        assert text
        assert "\n" not in text
        return text

    return refused
