"""A step selects its state as it is computed, and nobody can tell: what it relies on in JAX, and its traps."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import io_callback
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optax_ext
from optax_ext import config
from optax_ext.loss_scaling import _early_selection
from tests.marks import slow_unless

# All arithmetic below is exact, so that compiled and eager steps agree to the bit.
PARAMS = jnp.array([1.0, -2.0, 4.0])
GRADS = jnp.array([0.5, 1.0, -2.0])
SCALE = 8.0


def dynamic(inner, **options):
    """Scale losses by what stays the same when a step is skipped."""
    return optax_ext.dynamic_loss_scaling(inner, initial_scale=SCALE, min_scale=SCALE, **options)


def fixed(inner, **options):
    return optax_ext.fixed_loss_scaling(inner, SCALE, **options)


def scaled(grads, bad=False):
    """Return gradients times the scale, with a NaN if they are to be bad."""
    grads = jax.tree.map(lambda grad: grad * SCALE, grads)
    return jax.tree.map(lambda grad: grad.at[0].set(jnp.nan), grads) if bad else grads


def transformation(state, update):
    """Make a transformation of its first state and a function from gradients and a state to updates and a state."""
    return optax.GradientTransformation(lambda params: state, lambda grads, state, params=None: update(grads, state))


def to_bytes(tree):
    def is_key(leaf):
        return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)

    leaves = [jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
    return [(str(jnp.result_type(leaf)), np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in leaves]


def cast_like(tree, like):
    def cast(leaf, like):
        is_key = jnp.issubdtype(jnp.result_type(like), jax.dtypes.prng_key)
        return leaf if is_key else jnp.asarray(leaf).astype(jnp.result_type(like))

    return jax.tree.map(cast, tree, like)


def check(inner, wrap=dynamic, params=PARAMS, grads=GRADS):
    """Skip and apply steps in turn, as the bare transformation does, compiled or not."""
    tx = wrap(inner)
    first = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        state = first
        for bad in (True, False, True, False):
            updates, after = update(scaled(grads, bad), state, params)
            if bad:
                assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
                assert to_bytes(after.inner_state) == to_bytes(state.inner_state)
            else:
                expected, inner_state = inner.update(grads, state.inner_state, params)
                assert to_bytes(updates) == to_bytes(expected)
                assert to_bytes(after.inner_state) == to_bytes(cast_like(inner_state, state.inner_state))
            assert bool(after.grads_finite) is not bad
            assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(after))
            state = after


# Leaves of a state, and where their next values come from.

ZEROS, ONES = jnp.zeros(3), jnp.ones(3)
CONSTANT = np.array([7.0, 8.0, 9.0], np.float32)


def average(grads, state):
    return 0.5 * state + grads


def two_leaves_of_one_value(grads, state):
    new = average(grads, state["a"])
    return 2 * new + state["b"], {"a": new, "b": new}


def two_leaves_and_the_updates_of_one_value(grads, state):
    new = average(grads, state["b"])
    return new, {"a": new, "b": new}


def two_leaves_of_two_results_of_one_value(grads, state):
    first, second = jax.jit(lambda grads, a: (average(grads, a),) * 2)(grads, state["a"])
    return first - second + state["b"], {"a": first, "b": second}


def swap(grads, state):
    return grads + state["a"], {"a": state["b"], "b": state["a"]}


def swap_and_change(grads, state):
    return grads + state["a"], {"a": state["b"], "b": average(grads, state["b"])}


def one_reads_the_other(grads, state):
    a = average(grads, state["a"])
    b = 0.5 * state["b"] + a
    return a - b, {"a": a, "b": b}


PAIRS = [
    two_leaves_of_one_value,
    two_leaves_and_the_updates_of_one_value,
    two_leaves_of_two_results_of_one_value,
    swap,
    swap_and_change,
    one_reads_the_other,
]


@pytest.mark.parametrize(
    ("update", "wrap"),
    slow_unless(
        lambda update, wrap: wrap is dynamic or update is one_reads_the_other,
        itertools.product(PAIRS, (dynamic, fixed)),
    ),
)
def test_one_value_may_be_two_leaves(update, wrap):
    check(transformation({"a": ZEROS, "b": ONES}, update), wrap)


def read_all(grads, state):
    """Read a next state of more digits than the state stores."""
    new = grads * 2049 + state
    return 2 * new, new


LEAVES = {
    "the gradient": (ZEROS, lambda grads, state: (state, grads)),
    "itself": (ONES, lambda grads, state: (grads, state)),
    "itself, times one": (ONES, lambda grads, state: (grads, state * 1.0)),
    "a constant": (ZEROS, lambda grads, state: (grads + state, CONSTANT)),
    "a constant of jax": (ZEROS, lambda grads, state: (grads + state, jnp.asarray(CONSTANT))),
    "a number": (jnp.float32(0), lambda grads, state: (grads + state, 3.0)),
    "an array of a number": (jnp.float32(0), lambda grads, state: (grads + state, jnp.float32(3))),
    "an array that nothing was read for": (ZEROS, lambda grads, state: (grads + state, jnp.full(3, 2.0))),
    "a count": (jnp.int32(0), lambda grads, state: (grads, state + 1)),
    "a bool": (jnp.array(False), lambda grads, state: (grads, (grads > 0).any())),
    "an integer from a bool": (jnp.int32(5), lambda grads, state: (grads, (grads > 0).any())),
    "weakly typed": (jnp.float32(0), lambda grads, state: (grads * state, jnp.where((grads > 0).all(), 1.0, 2.0))),
    "the updates": (ZEROS, lambda grads, state: (average(grads, state),) * 2),
    "with no numbers": (jnp.zeros((0, 3)), lambda grads, state: (grads, state + 1)),
    # What reads the next state must read all of it, of which the state stores less.
    "narrower": (jnp.zeros(3, jnp.bfloat16), lambda grads, state: (grads * 257 + state,) * 2),
    "narrower, and read": (jnp.zeros(3, jnp.float16), read_all),
    "wider": (jnp.zeros(3), lambda grads, state: (grads, (grads + state).astype(jnp.bfloat16))),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_may_come_from_anywhere(name):
    check(transformation(*LEAVES[name]))


def test_a_leaf_may_be_an_input_of_the_step():
    params, grads = {"w": PARAMS, "i": jnp.arange(3)}, {"w": GRADS, "i": jnp.arange(3) + 4}
    inner = transformation({"i": jnp.arange(3)}, lambda grads, state: (grads, {"i": grads["i"]}))
    for update in (dynamic(inner).update, jax.jit(dynamic(inner).update)):
        state = dynamic(inner).init(params)
        _, after = update({**grads, "w": scaled(GRADS)}, state, params)
        chex.assert_trees_all_equal(after.inner_state["i"], grads["i"])
        _, skipped = update({**grads, "w": scaled(GRADS, bad=True)}, state, params)
        chex.assert_trees_all_equal(skipped.inner_state["i"], jnp.arange(3))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys(impl):
    def update(grads, state):
        key, noise = jax.random.split(state["key"])
        return grads + jax.random.bits(noise, (3,), jnp.uint8), {"key": key, "kept": state["kept"], "last": noise}

    keys = dict(zip(("key", "kept", "last"), jax.random.split(jax.random.key(3, impl=impl), 3), strict=True))
    check(transformation(keys, update))
    check(transformation({"key": jax.random.PRNGKey(3)}, lambda g, s: (g, {"key": jax.random.split(s["key"])[0]})))


def test_what_is_traced_in_a_context_is_computed_in_it():
    def update(grads, state):
        with jax.threefry_partitionable(False):  # which makes other numbers of a key
            return grads + jax.random.bits(state, (3,), jnp.uint8), jax.random.split(state)[0]

    check(transformation(jax.random.key(3), update))


def test_a_state_of_the_updates_structure_with_holes():
    def update(grads, state):
        new = jax.tree.map(average, grads, state)
        return new, new

    params = {"a": PARAMS, "b": optax.MaskedNode(), "c": (), "d": None}
    grads = {"a": GRADS, "b": optax.MaskedNode(), "c": (), "d": None}
    check(transformation({"a": ZEROS, "b": optax.MaskedNode(), "c": (), "d": None}, update), dynamic, params, grads)


# Calls in which a state may be computed.


def in_jit(grads, state):
    return jax.jit(lambda grads, state: (grads + state, average(grads, state)))(grads, state)


def in_jit_in_jit(grads, state):
    @jax.jit
    def inner(grads, state):
        new = average(grads, state)
        return new, 2 * new

    return jax.jit(lambda grads, state: inner(grads, state)[::-1])(grads, state)


def in_jit_that_returns_its_inputs(grads, state):
    return jax.jit(lambda grads, state: (state, grads))(grads, state)


def in_jit_that_returns_a_number(grads, state):
    return jax.jit(lambda grads, state: (state + grads, jnp.ones(3)))(grads, state)


def in_jit_with_static_arguments_and_donation(grads, state):
    function = jax.jit(lambda decay, grads, state: (grads, decay * state + grads), static_argnums=0, donate_argnums=2)
    return function(0.5, grads, state * 1)


def in_cond(grads, state):
    new = jax.lax.cond(grads.sum() > 0, lambda: state + 1, lambda: average(grads, state))
    return new + grads, new


def in_switch(grads, state):
    return grads, jax.lax.switch(jnp.int32(1), [lambda: state, lambda: average(grads, state)])


def in_scan(grads, state):
    new, steps = jax.lax.scan(lambda state, grad: (average(grad, state), state), state, jnp.stack([grads, 2 * grads]))
    return steps[1] + new, new


def in_while_loop(grads, state):
    new = jax.lax.while_loop(lambda s: s.sum() < 8, lambda s: average(grads, s) + 2, state)
    return new - grads, new


def in_fori_loop(grads, state):
    new = jax.lax.fori_loop(0, 3, lambda _, s: average(grads, s), state)
    return new - grads, new


def in_checkpoint(grads, state):
    new = jax.checkpoint(average)(grads, state)
    return new - grads, new


def in_custom_jvp(grads, state):
    new = jax.nn.relu(average(grads, state))
    return new - grads, new


def in_custom_vjp(grads, state):
    function = jax.custom_vjp(average)
    function.defvjp(lambda g, s: (average(g, s), None), lambda _, cotangent: (cotangent, 0.5 * cotangent))
    new = function(grads, state)
    return new - grads, new


def in_grad(grads, state):
    new = jax.grad(lambda state: jnp.sum(average(grads, state) ** 2))(state)
    return new - grads, new


def in_vmap(grads, state):
    new = jax.vmap(average)(grads, state)
    return new - grads, new


def in_an_effect_free_callback(grads, state):
    new = jax.pure_callback(lambda g, s: np.asarray(0.5 * s + g, np.float32), state, grads, state)
    return new - grads, new


def in_a_barrier(grads, state):
    new, grads = jax.lax.optimization_barrier((average(grads, state), grads))
    return new - grads, new


def in_linear_solve(grads, state):
    new = jax.lax.custom_linear_solve(lambda x: 2 * x, average(grads, state), lambda _, b: b / 2, symmetric=True)
    return new - grads, new


CALLS = [value for name, value in list(globals().items()) if name.startswith("in_")]


@pytest.mark.parametrize("update", CALLS)
def test_a_state_may_be_computed_in_a_call(update):
    check(transformation(ZEROS, update))


@pytest.mark.parametrize("update", slow_unless(lambda call: call in (in_jit, in_cond, in_scan, in_custom_vjp), CALLS))
def test_a_nested_jit_of_any_call(update):
    check(transformation(ZEROS, jax.jit(update)))


def test_a_nested_jit_that_places_its_results_still_does():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))
    placed = jax.jit(lambda grads, state: (grads, average(grads, state)), in_shardings=split, out_shardings=split)
    params = grads = jax.device_put(jnp.arange(1.0, 17.0), NamedSharding(mesh, P()))
    tx = dynamic(transformation(jax.device_put(jnp.zeros(16), NamedSharding(mesh, P())), placed))
    updates, state = jax.jit(tx.update)(scaled(grads), tx.init(params), params)
    assert updates.sharding.is_equivalent_to(split, 1)
    assert state.inner_state.sharding.is_equivalent_to(split, 1)
    chex.assert_trees_all_equal((updates, state.inner_state), (grads, grads))
    assert "jit" in str(jax.make_jaxpr(tx.update)(grads, tx.init(params), params))


# Effects.


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("effect", ["debug", "ordered debug", "io", "ordered io", "io that makes the state"])
def test_effects_come_once_a_step_also_if_it_is_skipped(effect, nested):
    calls = []

    def note(number):
        calls.append(float(number))
        return np.float32(len(calls))

    def update(grads, state):
        new = state + 1
        if "debug" in effect:
            jax.debug.callback(note, new, ordered="ordered" in effect)
        elif effect == "io that makes the state":
            new = io_callback(note, jax.ShapeDtypeStruct((), jnp.float32), new)
        else:
            io_callback(note, jax.ShapeDtypeStruct((), jnp.float32), new, ordered="ordered" in effect)
        return grads, new

    tx = dynamic(transformation(jnp.float32(0), jax.jit(update) if nested else update))
    for step in (tx.update, jax.jit(tx.update)):
        calls.clear()
        state = tx.init(PARAMS)
        for index, bad in enumerate((False, True, False, True)):
            _, after = step(scaled(GRADS, bad), state, PARAMS)
            jax.effects_barrier()
            assert len(calls) == index + 1
            assert bad is bool(after.inner_state == state.inner_state)
            state = after


# Transformations of JAX around an update.

INNER = transformation({"a": ZEROS, "b": ONES}, one_reads_the_other)


def stack(*trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def eagerly(function):
    return function


@pytest.mark.parametrize(
    ("update", "how", "state_axis"),
    slow_unless(
        lambda update, how, state_axis: how is jax.jit and (state_axis == 0 or update is in_cond),
        [
            (update, *how)
            for update in (two_leaves_of_one_value, swap_and_change, in_jit_in_jit, in_cond, in_scan)
            for how in ((jax.jit, 0), (jax.jit, None), (eagerly, None))
        ],
    ),
)
def test_vmap(update, how, state_axis):
    tx = dynamic(transformation({"a": ZEROS, "b": ONES} if update in PAIRS else ONES, update))
    state = tx.init(PARAMS)
    states = stack(*[state] * 4) if state_axis == 0 else state
    grads = [scaled(GRADS, bad) for bad in (False, True, False, True)]
    mapped = how(jax.vmap(tx.update, in_axes=(0, state_axis, None)))(stack(*grads), states, PARAMS)
    for index, grad in enumerate(grads):
        assert to_bytes(take(mapped, index)) == to_bytes(tx.update(grad, state, PARAMS))


def test_examples_of_vmap_agree_over_its_axis():
    tx = dynamic(INNER, axis_name="batch")
    state = tx.init(PARAMS)
    for grads, skipped in [((False, False), 0), ((False, True), 1)]:
        batch = stack(*[scaled(GRADS, bad) for bad in grads])
        _, states = jax.vmap(tx.update, in_axes=(0, None, None), axis_name="batch")(batch, state, PARAMS)
        assert states.skipped_steps.tolist() == [skipped] * 2


DIFFERENTIABLE = [call for call in CALLS if call not in (in_while_loop, in_an_effect_free_callback)]


@pytest.mark.parametrize(  # the calls, whose values are tested above, are differentiated by JAX
    "update",
    slow_unless(
        lambda update: update not in DIFFERENTIABLE or update in (in_jit, in_cond, in_scan, in_checkpoint),
        [two_leaves_of_one_value, swap_and_change, one_reads_the_other, *DIFFERENTIABLE],
    ),
)
def test_derivatives(update):
    inner = transformation({"a": ZEROS, "b": ONES} if update in PAIRS else ONES, update)
    tx = dynamic(inner)
    state, weights = tx.init(PARAMS), jnp.array([1.0, 2.0, 4.0])

    def value(update, grads, state):
        updates, state = update(grads, state, PARAMS)
        return jnp.sum(weights * updates) + sum(jnp.sum(weights * leaf) for leaf in jax.tree.leaves(state))

    def wrapped(grads, inner_state):
        update = lambda *arguments: (lambda updates, state: (updates, state.inner_state))(*tx.update(*arguments))  # noqa: E731
        return value(update, grads, state._replace(inner_state=inner_state))

    def bare(grads, inner_state):
        return value(inner.update, grads / SCALE, inner_state)

    primals = scaled(GRADS), state.inner_state
    tangents = jax.tree.map(jnp.ones_like, primals)

    @functools.partial(jax.jit, static_argnums=0)
    def derive(value, primals, tangents):
        reverse = None if update is in_fori_loop else jax.grad(value, (0, 1))(*primals)
        return reverse, None if update is in_custom_vjp else jax.jvp(value, primals, tangents)

    chex.assert_trees_all_equal(derive(wrapped, primals, tangents), derive(bare, primals, tangents))


def make_mesh(kind):
    return jax.make_mesh((8,), ("data",), axis_types=(kind,))


def by_device(bad_device=None):
    """Return 24 gradients, three of each device, which average to those of one."""
    grads = jnp.concatenate([GRADS * factor for factor in (0, 2, 0, 2, 1, 1, 0.5, 1.5)]) * SCALE
    return grads if bad_device is None else grads.at[3 * bad_device].set(jnp.inf)


def average_over_devices():
    return optax.stateless(lambda grads, params: jax.lax.pmean(grads, "data"))


@pytest.mark.parametrize("update", [*PAIRS, in_jit, in_cond, in_scan, in_checkpoint])
def test_shard_map_of_gradients_that_differ_with_a_replicated_state(update):
    inner = transformation({"a": ZEROS, "b": ONES} if update in PAIRS else ONES, update)
    state, whole = dynamic(inner).init(PARAMS), dynamic(inner)
    tx = dynamic(optax.chain(average_over_devices(), inner), axis_name="data")
    mapped = jax.jit(
        jax.shard_map(  # with its checks, by which what is replicated is proven to be
            tx.update, mesh=make_mesh(AxisType.Auto), in_specs=(P("data"), P(), P()), out_specs=(P(), P())
        )
    )
    for bad_device in (None, 5):
        updates, after = mapped(by_device(bad_device), tx.init(PARAMS), PARAMS)
        expected, expected_state = whole.update(scaled(GRADS, bad_device is not None), state, PARAMS)
        # What varies counts as parts of one whole.
        np.testing.assert_allclose(after.grad_norm, jnp.linalg.norm(by_device(bad_device) / SCALE), rtol=1e-6)
        after = after._replace(inner_state=after.inner_state[1], grad_norm=expected_state.grad_norm)
        assert to_bytes((updates, after)) == to_bytes((expected, expected_state))


def restart(grads, state):
    """Read a next state that does not vary over devices, as the old one does."""
    new = jnp.ones(3)
    return grads + new + state, new


@pytest.mark.parametrize("update", [in_jit, in_cond, in_scan, restart])
def test_shard_map_of_a_split_state(update):
    inner = transformation(jnp.ones(3), update)
    tx, whole = dynamic(inner, axis_name="data"), dynamic(inner)
    state = tx.init(PARAMS)
    specs = jax.tree.map(lambda leaf: P("data") if leaf.ndim else P(), state)
    mapped = jax.jit(
        jax.shard_map(
            tx.update,
            mesh=make_mesh(AxisType.Auto),
            in_specs=(P("data"), specs, P("data")),
            out_specs=(P("data"), specs),
        )
    )
    split = state._replace(inner_state=jnp.ones(24))
    for bad in (False, True):
        grads = jnp.tile(scaled(GRADS, bad), 8)
        updates, after = mapped(grads, split, jnp.tile(PARAMS, 8))
        expected, expected_state = whole.update(scaled(GRADS, bad), state, PARAMS)
        np.testing.assert_allclose(after.grad_norm, jnp.linalg.norm(grads / SCALE) if not bad else np.inf, rtol=1e-6)
        after = after._replace(inner_state=after.inner_state[:3], grad_norm=expected_state.grad_norm)
        assert to_bytes((updates[:3], after)) == to_bytes((expected, expected_state))


@pytest.mark.parametrize(
    ("update", "spec"),
    slow_unless(
        lambda update, spec: spec == P("data") or update is in_cond,
        itertools.product((in_jit, in_cond, in_scan, restart), (P(), P("data"))),
    ),
)
def test_an_explicit_mesh(update, spec):
    mesh = make_mesh(AxisType.Explicit)
    with jax.set_mesh(mesh):
        where = NamedSharding(mesh, spec)
        params = jax.device_put(jnp.tile(PARAMS, 8), where)
        if update is restart:
            update = lambda grads, state: (grads, 0 * grads + 2)  # noqa: E731
        inner = optax.GradientTransformation(jnp.ones_like, lambda grads, state, params=None: update(grads, state))
        tx, step = dynamic(inner), jax.jit(dynamic(inner).update)
        state = tx.init(params)
        for bad in (False, True, False):
            grads = jax.device_put(jnp.tile(scaled(GRADS, bad), 8), where)
            updates, after = step(grads, state, params)
            chex.assert_trees_all_equal((updates, after), tx.update(grads, state, params))
            assert jax.tree.map(jax.typeof, after) == jax.tree.map(jax.typeof, state)
            assert jax.typeof(updates) == jax.typeof(params)
            state = after
        assert step._cache_size() == 1


@pytest.mark.parametrize("update", [two_leaves_of_one_value, swap_and_change, in_jit, in_cond, in_while_loop])
def test_scan_over_steps(update):
    tx = dynamic(transformation({"a": ZEROS, "b": ONES} if update in PAIRS else ONES, update), growth_steps=2)
    grads = [scaled(GRADS / 4, bad) for bad in (False, True, False, False, True)]

    def step(state, grads):
        updates, state = tx.update(grads, state, PARAMS)
        return state, updates

    last, updates = jax.lax.scan(step, tx.init(PARAMS), jnp.stack(grads))
    state = tx.init(PARAMS)
    for index, grad in enumerate(grads):
        state, expected = step(state, grad)
        assert to_bytes(updates[index]) == to_bytes(expected)
    assert to_bytes(last) == to_bytes(state)


def test_a_state_that_was_donated():
    tx = dynamic(INNER)
    step, state, kept = jax.jit(tx.update, donate_argnums=(0, 1)), tx.init(PARAMS), tx.init(PARAMS)
    for bad in (False, True, False):
        old, (updates, state) = state, step(scaled(GRADS, bad), state, PARAMS)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old.inner_state))
        expected, kept = tx.update(scaled(GRADS, bad), kept, PARAMS)
        assert to_bytes((updates, state)) == to_bytes((expected, kept))


def by_grad(tx, grads, state):
    return jax.value_and_grad(lambda grads: jnp.sum(tx.update(grads, state, PARAMS)[0]))(grads)


def by_vmap(tx, grads, state):
    return jax.vmap(tx.update, in_axes=(0, None, None))(stack(grads, grads), state, PARAMS)


def by_itself(tx, grads, state):
    return tx.update(grads, state, PARAMS)


@pytest.mark.parametrize(
    ("update", "how"),
    slow_unless(
        lambda update, how: how is by_itself or (update is in_jit and how is by_grad),
        itertools.product((in_jit, in_cond, in_scan), (by_itself, by_grad, by_vmap)),
    ),
)
def test_without_compilation(update, how):
    tx = dynamic(transformation(ONES, update))
    state = tx.init(PARAMS)
    for bad in (False, True):
        if bad and how is by_grad:
            continue
        expected = how(tx, scaled(GRADS, bad), state)
        _early_selection._plain_jit.cache_clear()  # as in a process that never compiled
        with jax.disable_jit():
            disabled = how(tx, scaled(GRADS, bad), state)
        assert to_bytes(disabled) == to_bytes(expected)
        _early_selection._plain_jit.cache_clear()


@pytest.mark.usefixtures("small_heap")
@pytest.mark.parametrize(
    ("how", "inner"),
    slow_unless(
        lambda how, inner: how is by_vmap or inner is not INNER,
        [(by_itself, INNER), (by_grad, INNER), (by_vmap, INNER), (by_itself, optax.adamw(0.1))],
    ),
)
def test_nothing_leaks(how, inner):
    tx = dynamic(inner)
    state, good, bad = tx.init(PARAMS), scaled(GRADS), scaled(GRADS, bad=True)
    with jax.checking_leaks():
        jax.jit(lambda grads, state: how(tx, grads, state))(good, state)
        tx.update(bad, state, PARAMS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["sgd", "lamb", "AdamW", "narrower, and read", "wider"])
def test_strict_promotion(name, dtype):
    inner = {
        "sgd": lambda: optax.sgd(0.5, 0.5),
        "lamb": lambda: optax_ext.lamb(0.5),
        "AdamW": lambda: config.AdamW(0.5).make(),
    }.get(name)
    if inner is None:
        state, function = LEAVES[name]
        new = lambda grads, state: function(grads.astype(jnp.float32), state.astype(jnp.float32))  # noqa: E731
        inner = lambda: transformation(state, new)  # noqa: E731
    tx, params = dynamic(inner()), PARAMS.astype(dtype)
    state = tx.init(params)
    with jax.numpy_dtype_promotion("strict"):
        for bad in (False, True):
            for update in (tx.update, functools.partial(jax.eval_shape, tx.update)):  # of jit, all but the compilation
                _, after = update(scaled(GRADS.astype(dtype), bad), state, params)
                chex.assert_trees_all_equal_dtypes(after, state)


def test_extra_arguments_may_be_functions():
    def update(grads, state, params=None, *, value_fn, count, **extra_args):
        del extra_args
        new = average(grads, state) + value_fn(params)
        return new + count, new

    tx = dynamic(optax.GradientTransformationExtraArgs(lambda params: ONES, update))

    def step(grads, state, params, count):
        return tx.update(grads, state, params, value_fn=jnp.sum, count=count, name="text", nothing=None)

    state = tx.init(PARAMS)
    for bad in (False, True):
        eager = step(scaled(GRADS, bad), state, PARAMS, 2)
        assert to_bytes(jax.jit(step)(scaled(GRADS, bad), state, PARAMS, 2)) == to_bytes(eager)
        assert to_bytes(step(scaled(GRADS, bad), state, PARAMS, jnp.int32(2))) == to_bytes(eager)


def test_line_search_gets_its_function():
    tx = dynamic(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)))
    state, loss = tx.init(PARAMS), lambda params: jnp.sum(params**2)

    def step(grads, state):
        return tx.update(grads, state, PARAMS, value=loss(PARAMS), grad=2 * PARAMS, value_fn=loss)

    for bad in (False, True):
        grads = scaled(2 * PARAMS, bad)
        chex.assert_trees_all_close(jax.jit(step)(grads, state), step(grads, state), rtol=1e-6)


def sgd_in_loss_scaling(learning_rate, initial_scale=SCALE):
    inner = optax.sgd(learning_rate, 0.5)
    return optax_ext.dynamic_loss_scaling(inner, initial_scale=initial_scale, min_scale=SCALE)


@pytest.mark.parametrize(
    "tx",
    [
        optax.inject_hyperparams(sgd_in_loss_scaling)(0.5),
        optax.inject_hyperparams(sgd_in_loss_scaling)(optax_ext.Constant(0.5), initial_scale=SCALE),
        dynamic(optax.inject_hyperparams(optax.sgd, static_args="momentum")(0.5, momentum=0.5)),
        dynamic(optax.inject_hyperparams(optax.sgd)(optax_ext.Constant(0.5), momentum=0.5)),
    ],
)
def test_hyperparameters_that_are_traced(tx):
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    for bad in (False, True, False):
        updates, after = step(scaled(GRADS, bad), state, PARAMS)
        assert to_bytes((updates, after)) == to_bytes(tx.update(scaled(GRADS, bad), state, PARAMS))
        scaler, old = (
            next(s for s in (tree, tree.inner_state) if isinstance(s, optax_ext.LossScaleState))
            for tree in (after, state)
        )
        if bad:
            assert to_bytes(scaler.inner_state) == to_bytes(old.inner_state)
        state = after
    np.testing.assert_array_equal(updates, -0.5 * (1.5 if scaler.skipped_steps == 1 else np.nan) * GRADS)


def test_a_closure_over_what_is_traced_outside():
    state = sgd_in_loss_scaling(0.5).init(PARAMS)

    def total(learning_rate):  # all that the update is given is concrete
        updates, after = sgd_in_loss_scaling(learning_rate).update(scaled(GRADS), state, PARAMS)
        return jnp.sum(updates) + jnp.sum(optax.tree.get(after, "trace"))

    expected = -jnp.sum(GRADS)
    assert jax.grad(total)(0.5) == expected
    assert jax.jvp(total, (0.5,), (2.0,))[1] == 2 * expected
    np.testing.assert_array_equal(jax.vmap(total)(jnp.array([0.0, 1.0])), jnp.array([0, expected]) - expected)
    assert jax.jit(jax.grad(total))(0.5) == expected


@pytest.mark.parametrize("bad", [False, True])
def test_arguments_that_a_compiled_step_closes_over(bad):
    tx = dynamic(INNER)
    grads, state = scaled(GRADS, bad), tx.init(PARAMS)
    expected = tx.update(grads, state, PARAMS)
    assert to_bytes(jax.jit(lambda: tx.update(grads, state, PARAMS))()) == to_bytes(expected)
    shapes = jax.eval_shape(lambda: tx.update(grads, state, PARAMS))
    assert jax.tree.map(lambda leaf: leaf.dtype, shapes) == jax.tree.map(lambda leaf: leaf.dtype, expected)


@pytest.mark.skipif(not hasattr(jax, "new_ref"), reason="this JAX calls them otherwise")
def test_references():
    def update(grads, state):
        reference = jax.new_ref(state)
        reference[...] = 0.5 * reference[...] + grads
        return reference[...] + grads, jax.freeze(reference)

    tx = dynamic(transformation(ONES, update))
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    updates, after = step(scaled(GRADS), state, PARAMS)
    chex.assert_trees_all_equal((updates, after.inner_state), (0.5 + 2 * GRADS, 0.5 + GRADS))
    assert to_bytes(step(scaled(GRADS, bad=True), after, PARAMS)[1].inner_state) == to_bytes(after.inner_state)


# Transformations of Optax that need care.


def test_a_state_that_changes_structure_is_refused():
    tx = dynamic(optax.chain(optax.monitor({"norm": optax.tree.norm}), optax.sgd(0.5)))
    state = tx.init(PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(ValueError, match=r"MonitorState.*use optax\.snapshot"):
            update(scaled(GRADS), state, PARAMS)


def test_a_state_that_changes_structure_without_a_hint():
    tx = dynamic(transformation({"a": ZEROS}, lambda grads, state: (grads, {"b": ZEROS})))
    with pytest.raises(ValueError, match=r"must keep its structure.*init made .*'a'.*update made .*'b'"):
        tx.update(scaled(GRADS), tx.init(PARAMS), PARAMS)


def test_snapshot_is_what_to_use_instead():
    tx = dynamic(optax.chain(optax.snapshot("norm", optax.tree.norm), optax.sgd(0.5)))
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    _, after = step(scaled(GRADS), state, PARAMS)
    _, skipped = step(scaled(GRADS, bad=True), after, PARAMS)
    assert to_bytes(skipped.inner_state) == to_bytes(after.inner_state)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_lookahead(dtype):
    inner = optax.lookahead(optax.sgd(0.5, 0.5), sync_period=2, slow_step_size=0.5)
    tx = dynamic(inner)
    params = optax.LookaheadParams.init_synced(PARAMS.astype(dtype))
    for update in (tx.update, jax.jit(tx.update)):
        state, bare_state, moved, bare = tx.init(params), inner.init(params), params, params
        for bad in (False, True, False, True, False):
            updates, after = update(scaled(GRADS.astype(dtype), bad), state, moved)
            moved = optax.apply_updates(moved, updates)
            if bad:
                assert to_bytes(after.inner_state) == to_bytes(state.inner_state)
            else:
                updates, bare_state = inner.update(GRADS.astype(dtype), bare_state, bare)
                bare = optax.apply_updates(bare, updates)
            chex.assert_trees_all_equal(moved, bare)
            state = after
        assert not jnp.array_equal(moved.slow, params.slow)


GROUPS = {"head": PARAMS, "frozen": PARAMS}
GROUP_GRADS = {"head": scaled(GRADS), "frozen": scaled(GRADS)}
LABELS = {"head": "train", "frozen": "frozen"}


def freeze(train):
    return optax.partition({"train": train, "frozen": optax.set_to_zero()}, LABELS)


def with_nan(name):
    return {**GROUP_GRADS, name: GROUP_GRADS[name].at[1].set(jnp.nan)}


def checked(inner):
    return dynamic(inner, check_updates=True)


TRAINED = {"adam": optax.adam(0.1), "lamb": optax_ext.lamb(0.1), "AdamW": config.AdamW(0.1).make()}


@pytest.mark.parametrize(
    ("train", "compiled", "wrap"),
    slow_unless(
        lambda train, compiled, wrap: train == "adam" or (compiled and wrap is dynamic),
        itertools.product(TRAINED, (False, True), (dynamic, fixed, checked)),
    ),
)
def test_gradients_that_nothing_reads_need_not_be_finite(train, compiled, wrap):
    tx = wrap(freeze(TRAINED[train]))
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(GROUPS)
    clean = update(GROUP_GRADS, state, GROUPS)
    updates, after = update(with_nan("frozen"), state, GROUPS)
    if not compiled:  # where nothing but a NaN makes it look which gradients are read
        after = after._replace(grad_norm=clean[1].grad_norm)
    assert to_bytes((updates, after)) == to_bytes(clean)
    updates, after = update(with_nan("head"), state, GROUPS)
    assert not after.grads_finite
    assert not any(leaf.any() for leaf in updates.values())
    assert to_bytes(after.inner_state) == to_bytes(state.inner_state)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("clip", [optax.clip_by_global_norm(1.0), config.SGD(0.1, global_clipnorm=1.0).make()])
def test_gradients_that_a_norm_reads_must_be_finite(clip, compiled):
    tx = dynamic(optax.chain(clip, freeze(optax.adam(0.1))))
    update, state = jax.jit(tx.update) if compiled else tx.update, tx.init(GROUPS)
    assert update(GROUP_GRADS, state, GROUPS)[1].grads_finite
    updates, after = update(with_nan("frozen"), state, GROUPS)
    assert not after.grads_finite
    assert not any(leaf.any() for leaf in updates.values())


@pytest.mark.parametrize("compiled", [False, True])
def test_gradients_that_only_the_state_or_an_effect_reads_must_be_finite(compiled):
    def remember(grads, state):
        del state
        return jax.tree.map(jnp.zeros_like, grads), grads["frozen"]

    def show(grads, state):
        jax.debug.callback(lambda leaf: None, grads["frozen"])
        return jax.tree.map(jnp.zeros_like, grads), state

    for update in (remember, show):
        tx = dynamic(transformation(ZEROS, update))
        step, state = jax.jit(tx.update) if compiled else tx.update, tx.init(GROUPS)
        assert not step(with_nan("frozen"), state, GROUPS)[1].grads_finite
        assert step(with_nan("head"), state, GROUPS)[1].grads_finite


def test_a_device_with_a_bad_gradient_that_nothing_reads_does_not_skip():
    tx = dynamic(freeze(optax.sgd(0.5)), axis_name="data")
    state = tx.init(GROUPS)
    mapped = jax.jit(
        jax.shard_map(
            tx.update,
            mesh=make_mesh(AxisType.Auto),
            in_specs=(P("data"), P(), P("data")),
            out_specs=(P("data"), P()),
        )
    )
    params = jax.tree.map(lambda leaf: jnp.tile(leaf, 8), GROUPS)
    for name, finite in (("frozen", True), ("head", False)):
        grads = {**jax.tree.map(lambda leaf: jnp.tile(leaf, 8), GROUP_GRADS)}
        grads[name] = grads[name].at[17].set(jnp.nan)
        updates, after = mapped(grads, state, params)
        assert bool(after.grads_finite) is finite
        assert bool(updates["head"].any()) is finite


# Memory: what a step needs besides its arguments and results, in copies of the parameters.

LARGE = {f"layer{i}": {"kernel": jnp.full((256, 128), 0.1 * i), "bias": jnp.ones(128)} for i in range(1, 7)}
BYTES = sum(leaf.nbytes for leaf in jax.tree.leaves(LARGE))
OPTIMIZERS = {
    "optax.adamw": optax.adamw(1e-3),
    "optax.adamw in a nested jit": optax.GradientTransformation(
        optax.adamw(1e-3).init, jax.jit(optax.adamw(1e-3).update)
    ),
    "optax.sgd": optax.sgd(1e-3, momentum=0.9),
    "optax.lion": optax.lion(1e-3),
    "optax.rmsprop": optax.rmsprop(1e-3),
    "config.AdamW": config.AdamW(1e-3).make(),
    "config.RMSprop": config.RMSprop(1e-3).make(),
    "config.Adagrad": config.Adagrad(1e-3).make(),
    "optax_ext.lamb": optax_ext.lamb(1e-3),
}


@pytest.mark.skipif(jax.__version_info__ < (0, 10), reason="older XLA fuses no sum with anything on a CPU")
@pytest.mark.parametrize(
    "name",
    slow_unless(lambda name: name not in ("optax.sgd", "optax.rmsprop", "config.AdamW", "config.Adagrad"), OPTIMIZERS),
)
def test_loss_scaling_keeps_no_copy_of_the_parameters(name):
    def count_copies(tx):
        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        compiled = jax.jit(step, donate_argnums=(0, 1)).lower(LARGE, tx.init(LARGE), LARGE).compile()
        return compiled.memory_analysis().temp_size_in_bytes / BYTES

    # Lion by itself keeps one: its update reads the old momentum, whose place the next one takes.
    bare = count_copies(OPTIMIZERS[name]) if name == "optax.lion" else 0
    assert count_copies(dynamic(OPTIMIZERS[name])) <= bare + 0.05
