"""A run that skips bad steps goes on from its checkpoint as if it had never stopped."""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.distributed.test_guard import FACTORS, PARAMS, grads_of, make, run_on_one_device


@pytest.mark.parametrize("scaled", [False, True])
def test_a_run_goes_on_from_a_checkpoint_in_its_middle(scaled: bool, tmp_path: Path) -> None:
    """It is saved before a NaN and a spike, which only an average that was restored can tell."""
    tx, steps = make(scaled), run_on_one_device(scaled)
    update = jax.jit(tx.update)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", steps[1][1])
        checkpointer.wait_until_finished()
        state = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: tx.init(PARAMS)))
    for factor, expected in list(zip(FACTORS, steps, strict=True))[2:]:
        grads = jax.tree.map(lambda grad: grad * 8 if scaled else grad, grads_of(factor))
        updates, state = update(grads, state, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, (updates, state), expected)
