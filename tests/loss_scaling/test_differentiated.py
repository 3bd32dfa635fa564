"""Which arguments `jax.value_and_grad` may differentiate, by number, in a tuple, or in a partial of it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from optax_ext.loss_scaling._differentiated import check_differentiated

MODULE = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
WITH_A_FUNCTION = eqx.nn.MLP(2, 1, 3, 2, key=jax.random.key(0))
OF_ARRAYS = eqx.nn.Linear(2, 1, key=jax.random.key(0))
ARRAY = jnp.ones(2)
partial = functools.partial


@pytest.mark.parametrize(
    ("transform", "argnums", "args", "named"),
    [
        (jax.value_and_grad, 0, (MODULE, ARRAY), 0),
        (jax.value_and_grad, 1, (ARRAY, {"deep": [MODULE]}), 1),
        (jax.value_and_grad, -1, (ARRAY, MODULE), -1),
        (jax.value_and_grad, (0, 1), (ARRAY, MODULE), 1),
        (jax.value_and_grad, [1], (ARRAY, MODULE), 1),
        (partial(jax.value_and_grad, argnums=1), 0, (ARRAY, MODULE), 1),
        (partial(jax.value_and_grad, has_aux=True), 0, (MODULE, ARRAY), 0),
        (partial(partial(jax.value_and_grad, argnums=0), argnums=1), 0, (ARRAY, MODULE), 1),
        (partial(jax.value_and_grad, argnums=0), 1, (ARRAY, MODULE), 1),
    ],
)
def test_a_module_that_is_differentiated_is_named(transform, argnums, args, named):
    message = rf"argument {named} is a Flax NNX module, Linear: .* Pass transform=nnx\.value_and_grad"
    with pytest.raises(TypeError, match=message):
        check_differentiated(transform, argnums, args)


@pytest.mark.parametrize(
    ("transform", "argnums", "args"),
    [
        (jax.value_and_grad, 0, (ARRAY, MODULE)),
        (jax.value_and_grad, (1, 2), (MODULE, ARRAY, OF_ARRAYS)),
        (jax.value_and_grad, 5, (MODULE,)),  # as JAX itself says
        (jax.value_and_grad, -2, (MODULE,)),
        (jax.value_and_grad, "0", (MODULE,)),
        (nnx.value_and_grad, 0, (MODULE,)),
        (partial(nnx.value_and_grad, argnums=0), 0, (MODULE,)),
        (eqx.filter_value_and_grad, 0, (WITH_A_FUNCTION,)),
        (jax.value_and_grad, 0, (nnx.state(MODULE),)),
        (jax.value_and_grad, 0, ()),
    ],
)
def test_anything_else_is_left_to_what_differentiates(transform, argnums, args):
    check_differentiated(transform, argnums, args)


def test_a_module_of_equinox_may_hold_arrays_and_numbers_alone():
    for number in (1.5, 2, True, 1j):
        check_differentiated(jax.value_and_grad, 0, (eqx.tree_at(lambda m: m.bias, OF_ARRAYS, number),))
    message = (
        r"argument 0 is an Equinox module, MLP, and holds a leaf that is not an array \(.*\): .* "
        r"Pass transform=eqx\.filter_value_and_grad"
    )
    with pytest.raises(TypeError, match=message):
        check_differentiated(jax.value_and_grad, 0, ({"deep": WITH_A_FUNCTION},))
