"""What the tests of recipes of PyTorch have in common: the golden file, and a run of a recipe beside it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optax_ext import schedules
from tests.marks import slow_unless
from tests.parity import golden_data

GOLDEN = golden_data.loads((Path(__file__).parent / "data" / "pytorch.json").read_text())
DATA = GOLDEN["data"]
RATE_TOLERANCE = 2e-5  # of the largest rate
TOLERANCE = 1e-5  # of the distance moved


def to_tree(flat: dict[str, Any]) -> dict[str, Any]:
    """Return torch's parameters as a JAX model has them, with `/` for the dot between the parts of a path."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        layer, _, leaf = name.partition(".")
        tree.setdefault(layer, {})[leaf] = jnp.asarray(value)
    return tree


def cases(name: str, *keys: str) -> list[Any]:
    """Return the cases of a kind, of which the first with each value of `keys` is quick, and the others are slow."""
    quick: dict[str, int] = {}
    for index, case in enumerate(GOLDEN[name]):
        quick.setdefault(str([case["arguments"].get(key) for key in keys]), index)
    first = [GOLDEN[name][index] for index in quick.values()]
    return slow_unless(lambda case: any(case is one for one in first), GOLDEN[name])


def case_id(case: dict[str, Any]) -> str:
    words = [f"{key}={value}" for key, value in case["arguments"].items()]
    return ",".join(words).replace(" ", "")[:90]


def assert_rates(recipe: Any, expected: list[float]) -> None:
    """Compare the rate of every step; that of PyTorch's Adagrad is without what divides it inside."""
    with jax.disable_jit():  # compiling each schedule would take longer
        rates = np.asarray(schedules.evaluate(recipe.optimizer.learning_rate, np.arange(len(expected))))
    apart = np.abs(rates.astype(np.float64) - expected)
    assert apart.max() <= RATE_TOLERANCE * max(expected), (apart.argmax(), rates, expected)


def run(recipe: Any, steps: int) -> tuple[dict[str, np.ndarray], Any]:
    """Return the parameters after each step by torch's names, and the states."""
    tx, params, series = recipe.make(), to_tree(DATA["params"]), []
    state = tx.init(params)

    states = []
    for index in range(steps):
        grads = to_tree({name: grad[index] for name, grad in DATA["grads"].items()})
        updates, state = tx.update(grads, state, params)  # compiling each optimizer would take longer
        params = optax.apply_updates(params, updates)
        series.append(params)
        states.append(state)
    return {name: np.stack([_leaf(params, name) for params in series]) for name in DATA["params"]}, states


def _leaf(tree: Any, name: str) -> np.ndarray:
    layer, _, leaf = name.partition(".")
    return np.asarray(tree[layer][leaf])


def assert_steps(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compare parameters after each step, by how far they have moved; what has hardly moved, by float32's rounding."""
    for name, first in DATA["params"].items():
        moved = np.abs(expected[name].astype(np.float64) - first).max(axis=tuple(range(1, first.ndim + 1)))
        apart = np.abs(ours[name].astype(np.float64) - expected[name]).max(axis=tuple(range(1, first.ndim + 1)))
        rounding = 4 * np.finfo(np.float32).eps * np.abs(first).max()
        assert (apart <= np.maximum(TOLERANCE * moved, rounding)).all(), (name, apart / moved)
