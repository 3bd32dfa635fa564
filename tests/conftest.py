"""What holds for every test: eight CPU devices, set before JAX starts, and the same examples of Hypothesis in each run.

So a test that turns red tells of the change at hand. The tests marked slow draw new examples every time.
"""

import gc
import importlib
import pkgutil

import jax
import pytest
from hypothesis import HealthCheck, settings

import optax_ext

jax.config.update("jax_num_cpu_devices", 8)
settings.register_profile(
    "same", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")

# Hypothesis also draws the constants of the modules imported so far, so none may be imported in the midst of a run.
for module in pkgutil.walk_packages(optax_ext.__path__, "optax_ext."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)


def freeze_heap() -> None:
    """Keep the garbage collector from walking again and again over what lives as long as the run."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    freeze_heap()


@pytest.fixture
def small_heap() -> None:
    """For tests under `jax.checking_leaks`, which collects garbage after each trace: a second's work in a long run."""
    freeze_heap()
