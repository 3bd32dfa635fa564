"""What the tests of files from elsewhere have in common."""

import warnings

import pytest


@pytest.fixture(autouse=True)
def _ignore_rates_of_zero():
    """Real files of Model Garden have rates of 0, which whoever runs them overrides; and so have damaged ones."""
    warnings.filterwarnings("ignore", "[A-Za-z]+: learning_rate .* is 0 at every step", UserWarning)
