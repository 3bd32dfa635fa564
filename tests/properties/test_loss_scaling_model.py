"""Any sequence of finite and non-finite gradients and losses, in leaves of any kind, against a model in NumPy.

Around any optimizer: what it makes of finite gradients is its own, and no test here looks at it. All are held to the
scale, to the counters, to what a skip must leave alone, and to integers and finite parameters that stay what they are.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.dtypes import bfloat16, float0

import optax_ext
from optax_ext import config
from tests.marks import slow_unless

f32 = np.float32
FAULTS = [np.nan, np.inf, -np.inf, 1e6]  # the last is one in a gradient in float16 alone


def model(step, finite, o, consecutive_hysteresis=True):
    """The rule, written once more: scale, counter, skips, skips in a row and since growth after one more step."""
    scale, counter, skips, in_a_row, since_growth = step
    skips, in_a_row = (skips, 0) if finite else (skips + 1, in_a_row + 1)
    if "scale" in o:  # a fixed one
        return o["scale"], 0, skips, in_a_row, 0
    counter, since_growth = (counter + 1, since_growth) if finite else (0, since_growth + 1)
    if counter == o["growth_steps"]:
        counter, since_growth, grown = 0, 0, scale * o["multiplier"]
        scale = grown if np.isfinite(grown) and grown <= o["max_scale"] else scale
    elif not finite and (in_a_row if consecutive_hysteresis else since_growth) >= o["hysteresis"]:
        scale = scale / o["multiplier"]
    return min(max(scale, o["min_scale"]), o["max_scale"]), counter, skips, in_a_row, since_growth


# The kinds of leaves: a parameter, and the type that its gradients come in, or all that ever comes.
LEAVES = {
    "float32": (np.linspace(-1, 1, 3, dtype=f32), f32),
    "float16": (np.array([[1.0, -0.5]], np.float16), np.float16),
    "bfloat16": (np.array([0.25, -0.0], bfloat16), bfloat16),
    "float16 with float32 gradients": (np.array([2.0], np.float16), f32),
    "float32 with bfloat16 gradients": (np.array([0.5, 2.0], f32), bfloat16),
    "scalar": (np.array(0.75, f32), f32),
    "number": (0.25, f32),
    "zero-size": (np.ones((0, 2), np.float16), np.float16),
    "complex": (np.array([1 - 2j, 0.5j], np.complex64), np.complex64),
    "integer": (np.array([3, -4], np.int32), np.zeros(2, np.int32)),
    "float0": (np.array(7, np.int32), np.zeros((), float0)),
    "None": (np.array([4.0, 5.0], f32), None),
    "masked": (optax.MaskedNode(), optax.MaskedNode()),
}
# Rates at which ten gradients of 1e6 move no parameter out of the range of float16.
RATE = 1e-4
MOMENTUM = optax.chain(  # with a trace in the parameters' types, two counts, and a copy of the parameters
    optax.trace(0.9, nesterov=True),
    optax.scale_by_learning_rate(optax_ext.CosineDecay(RATE, 20)),
    optax_ext.params_ema(0.9, initial="params"),
)
INNER = {
    "momentum": MOMENTUM,
    "clipped momentum": optax.chain(optax.clip(1.0), MOMENTUM),
    "config.Adam": config.Adam(0.1).make(),
    "config.AdamW": config.AdamW(0.1, weight_decay_rate=0.1).make(),
    "config.RMSprop": config.RMSprop(0.1, momentum=0.5, centered=True).make(),
    "config.Adagrad": config.Adagrad(0.1).make(),
    "lamb": optax_ext.lamb(optax_ext.Constant(0.1), weight_decay=0.1),
    "optax.adamw": optax.adamw(0.1),
    "optax.lion": optax.lion(0.1),
    "optax.adafactor": optax.adafactor(0.1, min_dim_size_to_factor=1),
    "optax.lookahead": optax.lookahead(optax.sgd(RATE, 0.9), sync_period=3, slow_step_size=0.5),
    "master weights": optax_ext.master_weights(
        optax.chain(optax.adamw(0.01), optax_ext.params_ema(0.9, initial="params"))
    ),
}
EVERY_LEAF = tuple(LEAVES)
# What Optax's own take: no gradient that is None, and Python numbers where nothing asks them for their type.
PLAIN_LEAVES = tuple(kind for kind in LEAVES if kind not in ("None", "masked", "complex", "zero-size"))
TREES = dict.fromkeys(INNER, PLAIN_LEAVES) | {"momentum": EVERY_LEAF}


def has_gradients(kind):
    return isinstance(LEAVES[kind][1], type)


def make_params(name, kinds):
    params = [LEAVES[kind][0] for kind in kinds]
    params = [param if isinstance(param, float) else jax.tree.map(jnp.asarray, param) for param in params]
    return optax.LookaheadParams.init_synced(params) if name == "optax.lookahead" else params


def make_grads(kinds, faults, scale, index):
    """Return scaled gradients, finite but for the faults: for each a leaf, a place in it, and a value."""
    grads = [LEAVES[kind][1] for kind in kinds]
    numeric = [i for i, kind in enumerate(kinds) if has_gradients(kind)]
    for i in numeric:
        param, dtype = LEAVES[kinds[i]]
        shape = np.shape(param)
        grads[i] = np.array(f32(scale) * np.cos(index + np.arange(np.prod(shape))).reshape(shape), dtype)
    for leaf, place, value in faults:
        grad = grads[numeric[leaf % len(numeric)]] if numeric else np.ones(0)
        if grad.size:
            grad.flat[place % grad.size] = f32(value) * scale
    return grads


def are_finite(dtypes, grads, scale):
    """Whether gradients are finite as the inner transformation gets them: those of float16 are shown to it in float32.

    The others come in the types of their parameters.
    """
    numeric = [isinstance(grad, np.ndarray) and jnp.issubdtype(grad.dtype, jnp.inexact) for grad in grads]
    pairs = itertools.compress(zip(dtypes, grads, strict=True), numeric)
    shown = [
        (grad.astype(np.result_type(grad, f32)) / scale).astype(f32 if dtype == np.float16 else dtype)
        for dtype, grad in pairs
    ]
    return all(np.isfinite(np.asarray(grad, np.complex64)).all() for grad in shown)


def wrap(name, options, **flags):
    if "scale" in options:
        flags.pop("consecutive_hysteresis", None)
        return optax_ext.fixed_loss_scaling(INNER[name], **options, **flags)
    return optax_ext.dynamic_loss_scaling(INNER[name], **options, **flags)


def update(name, flags, options, grads, state, params):
    updates, state = wrap(name, options, **dict(flags)).update(grads, state, params)
    moves = jax.tree.map(lambda p, u: jnp.zeros_like(p) if u is None else u, params, updates)
    return updates, state, optax.apply_updates(params, moves)


# With traced options, so that one program serves all of a tree.
compiled_update = jax.jit(update, static_argnums=(0, 1))


def to_bytes(tree):
    return [
        (jnp.result_type(leaf), np.shape(leaf), np.asarray(leaf, jnp.result_type(leaf)).tobytes())
        for leaf in jax.tree.leaves(tree)
    ]


def is_finite(tree):
    return all(np.isfinite(np.asarray(leaf, np.complex64)).all() for leaf in jax.tree.leaves(tree))


def abs_zeros(tree):
    """Without the signs of zeros: adding the update 0.0 to -0.0 makes 0.0."""
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, jnp.result_type(leaf)) + np.zeros((), jnp.result_type(leaf)), tree
    )


def get_counts(state):
    return {int(value) for _, value in optax.tree.get_all_with_path(state, "count")}


def set_counts(state, count):
    return optax.tree.set(state, count=jnp.int32(count)) if get_counts(state) else state


def check_step(before, after, expected, finite, count, params, new_params, updates):
    numbers = (
        after.loss_scale,
        after.counter,
        after.skipped_steps,
        after.consecutive_skips,
        after.skips_since_growth,
    )
    assert [number.item() for number in numbers] == [float(expected[0]), *expected[1:]]
    assert after.grads_finite.item() is finite
    assert get_counts(after.inner_state) in ({count}, get_counts(()))
    assert len(get_counts(after.inner_state)) == len(get_counts(before.inner_state))
    assert is_finite((new_params, after.inner_state))
    for old, new in zip(*map(jax.tree.leaves, (params, new_params)), strict=True):
        if not jnp.issubdtype(jnp.result_type(old), jnp.inexact):
            assert to_bytes(new) == to_bytes(old)
    if not finite:
        assert to_bytes(after.inner_state) == to_bytes(set_counts(before.inner_state, count))
        assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(updates))
        assert to_bytes(abs_zeros(new_params)) == to_bytes(abs_zeros(params))
    if isinstance(after.inner_state, optax_ext.MasterWeightsState):
        for master, param in zip(after.inner_state.master, new_params, strict=True):
            if not isinstance(master, optax.MaskedNode):
                assert to_bytes(abs_zeros(param)) == to_bytes(abs_zeros(master.astype(param.dtype)))


def check_sequence(update, name, kinds, options, flags, sequence):
    """Go through steps: faults, and the scale that is set by hand before them, if any."""
    params, count = make_params(name, kinds), 0
    program = tuple(item for item in flags.items() if item[0] == "count_skipped_steps" or "scale" not in options)
    dtypes = [getattr(LEAVES[kind][0], "dtype", np.dtype(f32)) for kind in kinds]
    state = wrap(name, options).init(params)
    step = (options["scale" if "scale" in options else "initial_scale"], 0, 0, 0, 0)
    for index, (faults, scale) in enumerate(sequence):
        if scale is not None:
            state, step = state._replace(loss_scale=scale), (f32(scale), *step[1:])
        with np.errstate(all="ignore"):
            grads = make_grads(kinds, faults, step[0], index)
            finite = are_finite(dtypes, grads, step[0])
            step = model(step, finite, options, flags.get("consecutive_hysteresis", True))
        count += finite or flags["count_skipped_steps"]
        before, old_params = state, params
        updates, state, params = update(name, program, options, grads, state, params)
        check_step(before, state, step, finite, count, old_params, params, updates)
        if name != "optax.lookahead":  # a Python number stays one, and weakly typed
            pairs = zip(params, old_params, strict=True)
            params = [float(param) if isinstance(old, float) else param for param, old in pairs]


def draw_dynamic(exponents, growth_steps, multiplier, hysteresis):
    low, start, high = sorted(exponents)
    return {
        "initial_scale": f32(2.0**start),
        "min_scale": f32(2.0**low),
        "max_scale": f32(2.0**high),
        "growth_steps": growth_steps,
        "multiplier": f32(multiplier),
        "hysteresis": hysteresis,
    }


exponents = st.integers(-100, 127) | st.integers(-4, 20)
dynamic = st.builds(
    draw_dynamic,
    st.tuples(exponents, exponents, exponents),
    st.integers(1, 4),
    st.sampled_from([2.0, 4.0, 1.5, 3.0]),
    st.integers(1, 3),
)
fixed = st.builds(lambda exponent: {"scale": f32(2.0**exponent)}, exponents)
flags = st.fixed_dictionaries({"count_skipped_steps": st.booleans(), "consecutive_hysteresis": st.booleans()})
fault = st.tuples(st.integers(0, 8), st.integers(0, 2), st.sampled_from(FAULTS))
faults = st.lists(fault, max_size=2)
by_hand = st.builds(lambda exponent: jnp.float32(2.0**exponent), exponents)
by_hand_or_number = by_hand | st.builds(lambda exponent: 2.0**exponent, exponents)


def sequences(scales):
    return st.lists(st.tuples(faults, st.none() | st.none() | st.none() | scales), min_size=1, max_size=10)


trees = st.lists(st.sampled_from(list(LEAVES)), max_size=5)
few_trees = st.sampled_from([()] + [("float16", "None", "zero-size", "complex")] * 2 + [EVERY_LEAF] * 3)


@settings(max_examples=60)
@given(kinds=few_trees, options=dynamic | fixed, flags=flags, sequence=sequences(by_hand))
def test_compiled_updates_are_those_of_the_model(kinds, options, flags, sequence):
    check_sequence(compiled_update, "momentum", kinds, options, flags, sequence)


@settings(max_examples=20)
@given(kinds=trees, options=dynamic | fixed, flags=flags, sequence=sequences(by_hand_or_number))
def test_eager_updates_of_any_tree_are_those_of_the_model(kinds, options, flags, sequence):
    check_sequence(update, "momentum", kinds, options, flags, sequence)


# Two programs each: the flags of one leave nothing out that those of the other have.
TWO_FLAGS = [
    {"count_skipped_steps": False, "consecutive_hysteresis": False},
    {"count_skipped_steps": True, "consecutive_hysteresis": True},
]
two_flags = st.sampled_from(TWO_FLAGS)
AROUND = [name for name in INNER if "momentum" not in name]
# States of every kind: two moments, factored ones, a second copy of the parameters, float32 copies and averages.
QUICK = ("config.Adam", "config.RMSprop", "optax.adafactor", "optax.lookahead", "master weights")


@pytest.mark.parametrize(
    ("name", "flags"),
    slow_unless(  # every second optimizer has the other flags, which momentum has all of
        lambda name, flags: flags is TWO_FLAGS[AROUND.index(name) % 2] and name in QUICK,
        itertools.product(AROUND, TWO_FLAGS),
    ),
)
def test_compiled_updates_around_any_optimizer_are_those_of_the_model(name, flags):
    @settings(max_examples=25)
    @given(options=dynamic, sequence=sequences(by_hand))
    def check(options, sequence):
        check_sequence(compiled_update, name, TREES[name], options, flags, sequence)

    check()


LOSS_PARAMS = [np.array([1.0, 0.0, -3.0], f32), np.array([0.5, 2.0], np.float16), np.array(1.5, bfloat16)]


def loss_fn(params, factor):
    return factor * sum(jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in params)


@jax.jit
def compiled_step(options, factor, state, params):
    loss, grads = optax_ext.value_and_grad(loss_fn, state)(params, factor)
    return loss, update("clipped momentum", (), options, grads, state, params)


def check_losses(options, factors):
    params = [jnp.asarray(param) for param in LOSS_PARAMS]
    state, count = wrap("clipped momentum", options).init(params), 0
    step = (options["initial_scale"], 0, 0, 0, 0)
    for factor in factors:
        with np.errstate(all="ignore"):
            grads = [np.array(f32(factor) * step[0] * 2 * np.asarray(p, f32), p.dtype) for p in params]
            finite = are_finite([param.dtype for param in params], grads, step[0])
            step = model(step, finite, options)
            expected_loss = loss_fn(params, f32(factor))
        count += finite
        before, old_params = state, params
        loss, (updates, state, params) = compiled_step(options, f32(factor), state, params)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        check_step(before, state, step, finite, count, old_params, params, updates)


# 1e5 overflows in the gradients of float16 at a scale of 1, and 1e30 in the scaled loss.
losses = st.lists(st.sampled_from([0.125, -0.25, *FAULTS[:3], 1e5, 1e30]), max_size=12)


@settings(max_examples=100)
@given(options=dynamic, factors=losses)
def test_losses_of_any_size_are_those_of_the_model(options, factors):
    check_losses(options, factors)


def test_a_scale_grows_until_float16_overflows_and_comes_back():
    """The scale that a healthy run settles at, found by going past it: 2**17 * 0.125 * 2 * 2 is not a float16."""
    options = draw_dynamic((0, 10, 30), 2, 2.0, 1)
    check_losses(options, [0.125] * 40)


def test_a_scale_that_is_set_by_hand_is_held_in_its_limits():
    options = draw_dynamic((0, 8, 12), 3, 2.0, 1)
    update = jax.jit(partial(wrap("momentum", options).update), static_argnums=())
    state, grads, params = wrap("momentum", options).init(jnp.ones(2)), jnp.ones(2), jnp.ones(2)
    for scale, held in ((2.0**20, 2.0**12), (2.0**-20, 1.0), (2.0**12 + 1, 2.0**12), (0.5, 1.0)):
        for number in (scale, np.float64(scale), jnp.float32(scale)):
            changed = optax.tree.set(state, loss_scale=number)
            for how in (update, wrap("momentum", options).update):
                updates, after = how(grads * scale, changed, params)
                assert (after.loss_scale, after.loss_scale.dtype, after.loss_scale.weak_type) == (held, f32, False)
                np.testing.assert_allclose(updates, -RATE * 1.9, rtol=1e-6)
                _, after = how(grads * np.nan, changed, params)
                assert after.loss_scale == min(max(scale / 2, 1.0), 2.0**12)


def test_overflows_in_every_second_step_lower_the_scale_unless_they_must_be_consecutive():
    """Case: hysteresis of 2, and float16 gradients that overflow whenever the scale is 65536, in every second step."""
    for consecutive, scale, skips in ((True, 2.0**16, 1000), (False, 2.0**15, 2)):
        options = {**draw_dynamic((0, 16, 20), 2000, 2.0, 2)}
        step = (options["initial_scale"], 0, 0, 0, 0)
        tx = wrap("momentum", options, consecutive_hysteresis=consecutive)
        state, update, params = tx.init(jnp.ones(1)), jax.jit(tx.update), jnp.ones(1)
        for index in range(2000):
            overflows = index % 2 == 1 and state.loss_scale == 2.0**16
            _, state = update(jnp.full(1, jnp.inf if overflows else 0.0), state, params)
            step = model(step, not overflows, options, consecutive)
        assert (state.loss_scale, state.skipped_steps) == (scale, skips) == (step[0], step[2])


CHECKED = [np.array([1.0, -4.0], np.float16), np.array([2.0], bfloat16), np.array(1.0, f32)]


@jax.jit
def checked_update(options, grads, state, params):
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(1.0), **options, check_updates=True)
    updates, state = tx.update(grads, state, params)
    return updates, state, optax.apply_updates(params, updates)


magnitudes = st.sampled_from([0.0, 1.0, 3e4, 65504.0, 65519.0, 65520.0, 7e4, 3.3e38, 3.4e38, np.nan, np.inf])
signed = st.builds(lambda magnitude, sign: f32(sign * magnitude), magnitudes, st.sampled_from([-1, 1]))


@settings(max_examples=150)
@given(options=dynamic, sequence=st.lists(st.tuples(signed, signed, signed), min_size=1, max_size=8))
def test_no_checked_update_makes_a_parameter_that_is_not_finite(options, sequence):
    options["multiplier"] = f32(2.0)  # so that a division by the scale is exact
    params = [jnp.asarray(param) for param in CHECKED]
    state = optax_ext.dynamic_loss_scaling(optax.sgd(1.0), **options, check_updates=True).init(params)
    step = (options["initial_scale"], 0, 0, 0, 0)
    for numbers in sequence:
        with np.errstate(all="ignore"):
            pairs = zip(params, numbers, strict=True)
            grads = [np.full(param.shape, number * step[0], f32) for param, number in pairs]
            shown = [
                (grad / step[0]).astype(bfloat16 if param.dtype == bfloat16 else f32).astype(f32)
                for param, grad in zip(params, grads, strict=True)
            ]
            expected = [
                (np.asarray(param, f32) - grad).astype(param.dtype) for param, grad in zip(params, shown, strict=True)
            ]
        finite = is_finite((shown, expected))
        step = model(step, finite, options)
        before, old_params = state, params
        updates, state, params = checked_update(options, grads, state, params)
        check_step(before, state, step, finite, 0, old_params, params, updates)
        if finite:
            assert to_bytes(abs_zeros(params)) == to_bytes(abs_zeros(expected))


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=False, database=None)
@given(data=st.data(), name=st.sampled_from(list(INNER)), sequence=sequences(by_hand))
def test_twenty_thousand_sequences(data, name, sequence):
    """`pytest -m slow tests/properties`: new ones each time; 500 take half a minute."""
    is_momentum = name == "momentum"
    kinds = data.draw(few_trees if is_momentum else st.just(TREES[name]))
    options = data.draw(dynamic | fixed if is_momentum else dynamic)
    flags_drawn = data.draw(flags if is_momentum else two_flags)
    check_sequence(compiled_update, name, kinds, options, flags_drawn, sequence)
