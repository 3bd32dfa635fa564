"""What a step with metrics costs, by the compiled program: no further pass over gradients or parameters."""

import jax
import optax

import optax_ext

PARAMS = {"blocks": jax.ShapeDtypeStruct((4, 256, 256), "float32"), "head": jax.ShapeDtypeStruct((256, 256), "float32")}
SMALLEST = 4 * 256 * 256  # the bytes of one pass over the smaller parameter


def compile_step(record, read):
    inner = optax_ext.lars(0.5, weight_decay=1e-4, record=record, stacked_axes={"blocks": 0, "head": None})
    tx = optax_ext.dynamic_loss_scaling(inner)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, read(state)

    state = jax.eval_shape(tx.init, PARAMS)
    return jax.jit(step, donate_argnums=(0, 1)).lower(PARAMS, state, PARAMS).compile()


def test_no_further_pass_over_the_gradients():
    plain = compile_step(False, lambda state: None)
    logged = compile_step(True, lambda state: optax_ext.metrics(state, 0.5, per_layer=True))
    before, after = (compiled.cost_analysis()["bytes accessed"] for compiled in (plain, logged))
    assert before > 10 * SMALLEST
    assert after - before < SMALLEST / 50
    memory = [compiled.memory_analysis().temp_size_in_bytes for compiled in (plain, logged)]
    assert memory[1] - memory[0] < SMALLEST / 10
