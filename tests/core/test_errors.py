"""A config's error: data and text of it, also once it went through a pickle."""

import copy
import pickle

import pytest

from optax_ext._core.errors import join_words
from optax_ext.config import ConfigError, Problem

PROBLEMS = (Problem("optimizer.decay_steps", "must be greater than 0, got 0"), Problem("", "is empty"))


def error():
    made = ConfigError("recipe.yaml", iter(PROBLEMS))
    made.add_note("while a sweep was read")
    return made


def test_the_text_stands_in_the_arguments_too():
    assert error().args == (str(error()),)
    assert str(error()) == "recipe.yaml: 2 problems\n  optimizer.decay_steps: must be greater than 0, got 0\n  is empty"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda original: pickle.loads(pickle.dumps(original))])
def test_a_copy_has_the_data_the_text_and_the_notes(duplicate):
    found = duplicate(error())
    assert type(found) is ConfigError
    assert (found.subject, found.problems, found.args) == ("recipe.yaml", PROBLEMS, error().args)
    assert found.__notes__ == ["while a sweep was read"]


def test_long_lists_of_words_are_cut():
    assert join_words(["a", "b"]) == "'a', 'b'"
    assert join_words(map(str, range(43))).endswith("'38', '39' and 3 more")
