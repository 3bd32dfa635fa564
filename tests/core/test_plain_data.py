"""Whatever maps text to values becomes dicts and lists, within bounds, and what does not is named with its place."""

import collections
import types

import ml_collections
import numpy as np
import omegaconf
import pytest

from optax_ext._core.errors import ConfigError
from optax_ext._core.plain_data import plain_data


@pytest.mark.parametrize(
    "data",
    [
        {"a": {"b": [1, 2.5]}, "c": None},
        types.MappingProxyType({"a": collections.OrderedDict(b=(1, 2.5)), "c": None}),
        {"a": {"b": np.array([1, 2.5])}, "c": None},
        ml_collections.ConfigDict({"a": {"b": [1, 2.5]}, "c": None}),
        {"a": omegaconf.OmegaConf.create({"b": [1, "${c}"], "c": 2.5}), "c": None},
    ],
    ids=["dict", "mapping", "array", "ml_collections", "omegaconf"],
)
def test_containers_of_all_kinds_become_dicts_and_lists(data):
    plain = plain_data(data, "recipe")
    assert type(plain) is dict
    assert type(plain["a"]) is dict
    assert type(plain["a"]["b"]) is list
    assert (plain["a"]["b"], plain["c"]) == ([1, 2.5], None)


def test_what_is_no_container_is_left_as_it_is():
    scalar, thing = np.array(1.5), object()
    assert plain_data(scalar, "recipe") is scalar
    assert plain_data({"x": thing}, "recipe")["x"] is thing


def problems_of(data):
    with pytest.raises(ConfigError) as raised:
        plain_data(data, "recipe")
    return [(problem.path, problem.message) for problem in raised.value.problems]


def test_all_problems_are_named_at_once_each_with_its_place():
    missing = omegaconf.OmegaConf.create({"here": "${nowhere}"})
    found = dict(problems_of({"a": {3: 1}, "b": [0, 2**20_000], "c": missing}))
    assert found["a"] == "must have text for keys, got 3"
    assert found["b.1"].startswith("must be a finite number, got ")
    assert found["c"].startswith("omegaconf cannot resolve it: ")
    assert len(found) == 3


def test_integers_as_large_as_floats_are_fine():
    assert plain_data([2**1024, -(2**13_000)], "recipe")[0] == 2**1024


def test_neither_depth_nor_size_is_without_end():
    deep = current = {}
    for _ in range(100):
        current["a"] = current = {}
    for data in (deep, [0] * 100_001):
        ((_, message),) = problems_of(data)
        assert message == "must have at most 32 levels and 100000 values in all"
    shallow = current = {}
    for _ in range(31):
        current["a"] = current = {}
    assert plain_data(shallow, "recipe") == shallow
