"""Names and modules that are imported when they are first used: nobody should notice, except by the time it takes."""

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optax_ext
from optax_ext._core import lazy

ROOT = Path(optax_ext.__file__).parents[1]
LAZY_PACKAGES = ["", ".interop", ".loss_scaling", ".masks", ".telemetry", ".transforms"]


def run(script):
    command = [sys.executable, "-W", "error", "-c", script]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def names_for_type_checkers(package):
    """Return the names that the block for type checkers imports, with the modules that it imports them from."""
    tree = ast.parse(Path(package.__file__).read_text())
    (block,) = [
        node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {alias.name: node.module for node in block for alias in node.names}


@pytest.mark.parametrize("name", LAZY_PACKAGES)
def test_type_checkers_read_the_names_that_there_are(name):
    package = importlib.import_module(f"optax_ext{name}")
    named = names_for_type_checkers(package)
    assert sorted(named) == package.__all__
    for public, home in named.items():
        found = getattr(package, public)
        assert found is getattr(importlib.import_module(home), public)
        assert vars(package)[public] is found  # found once, the name costs what any name costs
    assert set(package.__all__) <= set(dir(package))
    assert {"__name__", "__doc__"} <= set(dir(package))
    assert {public for public, _ in inspect.getmembers(package)} >= set(package.__all__)


@pytest.mark.parametrize("name", LAZY_PACKAGES)
def test_other_names_are_no_attributes(name):
    package = importlib.import_module(f"optax_ext{name}")
    for other in ("larss", "optax", "jnp", "__wrapped__", "__path__x"):
        with pytest.raises(AttributeError, match=f"module 'optax_ext{name}' has no attribute '{other}'"):
            getattr(package, other)
    with pytest.raises(ImportError, match="larss"):
        exec(f"from optax_ext{name} import larss")


def test_a_star_imports_every_name():
    for name in LAZY_PACKAGES:
        scope = {}
        exec(f"from optax_ext{name} import *", scope)
        assert set(importlib.import_module(f"optax_ext{name}").__all__) <= set(scope)


def test_names_are_pickled_by_their_homes():
    for name in ("lars", "dynamic_loss_scaling", "value_and_grad", "LossScaleState", "CosineDecay", "path_mask"):
        assert pickle.loads(pickle.dumps(getattr(optax_ext, name))) is getattr(optax_ext, name)


def test_listing_the_names_imports_nothing():
    assert (
        run("""
import sys, optax_ext, optax_ext.transforms
assert {"LARS", "lars", "config"} & {*dir(optax_ext)} == {"lars", "config"}
assert {*optax_ext.transforms.__all__} <= {*dir(optax_ext.transforms)}
print(*(name in sys.modules for name in ("optax_ext.schedules", "optax_ext.config", "jax")))
""")
        == "False False False"
    )


def test_a_schedule_is_made_compared_and_pickled_without_jax():
    assert (
        run("""
import pickle, sys, optax_ext
schedule = optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 10_000, offset=500), 500)
assert pickle.loads(pickle.dumps(schedule)) == schedule and hash(schedule) and repr(schedule)
print(*(name in sys.modules for name in ("jax", "optax", "numpy")))
""")
        == "False False False"
    )


def test_the_modules_take_their_places_when_they_are_used():
    assert (
        run("""
import optax_ext
from optax_ext._core import lazy, steps
from optax_ext.schedules import _cosine
print(type(_cosine.jnp).__name__)
optax_ext.CosineDecay(1.0, 10)(steps.np.int64(5))
import jax, jax.numpy, numpy
print(_cosine.jnp is steps.jnp is lazy.jnp is jax.numpy, steps.jax is lazy.jax is jax, steps.np is numpy)
""")
        == "_LazyModule\nTrue True True"
    )


def test_threads_that_start_at_once_import_once():
    assert (
        run("""
import sys, threading, traceback
import optax_ext
from optax_ext import config
names = ["CosineDecay", "lars", "value_and_grad", "path_mask", "params_ema", "interop", "dynamic_loss_scaling", "lamb"]
found, errors, start = {}, [], threading.Barrier(2 * len(names))
def use(index, name):
    try:
        start.wait()
        found[index] = getattr(optax_ext, name)
        optax_ext.Constant(0.1)(index)
        config.SGD(0.1, momentum=0.9).make()
    except BaseException:
        errors.append(traceback.format_exc())
threads = [threading.Thread(target=use, args=(index, names[index % 8])) for index in range(16)]
sys.setswitchinterval(1e-5)
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*errors, all(found[index] is found[index + 8] is getattr(optax_ext, names[index]) for index in range(8)))
""")
        == "True"
    )


@pytest.mark.parametrize("one", [np.int64(1), np.float32(1), np.array(1), jnp.int32(1), jnp.float32(1)])
def test_numbers_of_libraries_become_those_of_python(one):
    schedule = optax_ext.PiecewiseConstantDecay([one, 2 * one], [one, one, one / 2])
    assert repr((schedule.boundaries, schedule.values)) == "((1, 2), (1.0, 1.0, 0.5))"


def test_a_traced_number_is_refused():
    with pytest.raises(optax_ext.config.ConfigError, match="learning_rate: must be a number, got .*Trace"):
        jax.jit(lambda rate: optax_ext.Constant(rate)(0))(0.5)


def test_what_is_not_imported_has_no_instances():
    assert lazy.loaded("a_module_that_is_not_there", "Array") == ()
    assert lazy.loaded("jax", "Array", "no_such_class") == (jax.Array,)
    assert lazy.loaded("numpy", "generic", "ndarray") == (np.generic, np.ndarray)


def test_annotations_resolve():
    hints = inspect.get_annotations(optax_ext.CosineDecay.__call__, eval_str=True)
    assert hints == {"step": jax.typing.ArrayLike, "return": jax.Array}
    hints = inspect.get_annotations(optax_ext.config.LARS.make, eval_str=True)
    assert hints["return"] == optax.GradientTransformationExtraArgs


def test_a_module_that_nobody_used_yet_can_be_copied_and_looked_at():
    script = """
import copy, inspect, pickle, sys
from optax_ext._core import lazy
assert not hasattr(lazy.jax, "__wrapped__") and "jax" not in sys.modules
assert pickle.loads(pickle.dumps(lazy.np)) is copy.copy(lazy.np) is sys.modules["numpy"]
print(lazy.jax.__name__)
"""
    assert run(script) == "jax"


def test_dir_lists_what_is_public_alone():
    for name in LAZY_PACKAGES:
        package = importlib.import_module(f"optax_ext{name}")
        listed = {key for key in dir(package) if not key.startswith("__")}
        assert listed - set(package.__all__) <= {
            "schedules",
            "masks",
            "transforms",
            "loss_scaling",
            "telemetry",
            "keras",
            "model_garden",
            "pytorch",
            "states",
        }
