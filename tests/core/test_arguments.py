"""The arguments of functions: the ranges and the words of fields."""

import collections
import dataclasses
import decimal
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import omegaconf
import optax
import pytest

import optax_ext
from optax_ext import config
from optax_ext.config import ConfigError

BOTH = {  # a field, and the function and argument that mean the same
    ("lars", "momentum"): (config.LARS, optax_ext.lars, "momentum", 0.1),
    ("lars", "weight_decay"): (config.LARS, optax_ext.lars, "weight_decay_rate", 0.1),
    ("lars", "trust_coefficient"): (config.LARS, optax_ext.lars, "eeta", 0.1),
    ("lamb", "b1"): (config.LAMB, optax_ext.lamb, "beta_1", 0.1),
    ("lamb", "b2"): (config.LAMB, optax_ext.lamb, "beta_2", 0.1),
    ("params_ema", "average_decay"): (config.ParamsEma, optax_ext.params_ema, "average_decay"),
    ("params_ema", "start_step"): (config.ParamsEma, optax_ext.params_ema, "start_step"),
    **{
        ("dynamic", name): (config.DynamicLossScale, optax_ext.dynamic_loss_scaling, name)
        for name in ("initial_scale", "growth_steps", "multiplier", "min_scale", "hysteresis")
    },
}
WRONG = [-0.5, 1.5, 0, 1, float("nan"), float("inf"), 1e39, 1e-40, "0.5", True, [0.5], 2.0**31, np.float32(-2), 2.5]


def message(make, arguments, **keywords):
    try:
        make(*arguments, **keywords)
    except ValueError as error:
        if isinstance(error, ConfigError):
            return f"{error.problems[0].path} {error.problems[0].message}"
        return str(error)
    return None


@pytest.mark.parametrize("pair", BOTH, ids=".".join)
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_functions_and_schemas_say_the_same_about_the_same_mistake(pair, value):
    schema, function, field, *rate = BOTH[pair]
    said = message(schema, rate, **{field: value})
    inner = [optax.sgd(0.1)] if pair[0] == "dynamic" else rate
    expected = (
        None if said is None else said.replace(f"{field} must", f"{pair[1]} must").replace("got (0.5,)", "got [0.5]")
    )
    found = message(function, inner, **{pair[1]: value})
    assert found == expected


@pytest.mark.parametrize("steps", [3e0, np.float32(3), np.int64(3), jnp.float32(3), jnp.int32(3), 3])
def test_a_whole_number_is_an_integer(steps):
    assert config.DynamicLossScale(growth_steps=steps, hysteresis=steps) == config.DynamicLossScale(
        growth_steps=3, hysteresis=3
    )
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1), growth_steps=steps, hysteresis=steps, initial_scale=8.0)
    params, grads = jnp.ones(2), jnp.ones(2)
    state = tx.init(params)
    for _ in range(3):
        _, state = tx.update(grads, state, params)
    assert state.loss_scale == 16.0
    optax_ext.params_ema(start_step=steps)
    for _ in range(3):
        _, state = tx.update(jnp.full(2, jnp.inf), state, params)
    assert state.loss_scale == 8.0
    with pytest.raises(FloatingPointError, match="3 updates in a row"):
        optax_ext.raise_if_stalled(state, max_consecutive_skips=steps)


def test_a_whole_number_past_what_float32_holds_stays_exact():
    state = optax_ext.dynamic_loss_scaling(optax.sgd(0.1)).init(jnp.ones(1))
    state = state._replace(counter=jnp.int32(2**24 + 2))
    tx = optax_ext.dynamic_loss_scaling(optax.sgd(0.1), growth_steps=2.0**24 + 4)  # 2**24 + 3 rounds up to it
    _, state = tx.update(jnp.ones(1), state, jnp.ones(1))
    assert state.counter == 2**24 + 3


def test_traced_values_pass():
    def scale(growth_steps, multiplier, max_scale):
        tx = optax_ext.dynamic_loss_scaling(
            optax.sgd(0.1), growth_steps=growth_steps, multiplier=multiplier, max_scale=max_scale
        )
        state = tx.init(jnp.ones(2))
        return tx.update(jnp.ones(2), state, jnp.ones(2))[1].loss_scale

    assert jax.jit(scale)(1, 4.0, 2.0**20) == 2.0**17
    assert scale(1, 4.0, float("inf")) == 2.0**17


def test_a_long_double_is_a_number():
    assert optax_ext.Constant(np.longdouble(0.5)) == optax_ext.Constant(0.5)
    optax_ext.lars(np.longdouble(0.5), momentum=np.longdouble(0.5))


SEQUENCES = {
    "list": lambda items: list(items),
    "tuple": lambda items: tuple(items),
    "array": lambda items: np.array(items),
    "deque": lambda items: collections.deque(items),
    "omegaconf": lambda items: omegaconf.OmegaConf.create(list(items)),
}


class TestSequences:
    @pytest.mark.parametrize("make", SEQUENCES)
    def test_any_is_taken_and_kept_as_a_tuple(self, make):
        expected = optax_ext.PiecewiseConstantDecay((10, 20), (1.0, 0.5, 0.25))
        found = optax_ext.PiecewiseConstantDecay(SEQUENCES[make]([10, 20]), SEQUENCES[make]([1.0, 0.5, 0.25]))
        assert found == expected
        assert hash(found) == hash(expected)
        assert type(found.boundaries) is type(found.values) is tuple
        patterns = SEQUENCES[make](["bias", "scale"])
        if make != "array":
            assert config.LARS(0.1, exclude_from_weight_decay=patterns).exclude_from_weight_decay == ("bias", "scale")
            assert optax_ext.path_mask(exclude=patterns) == optax_ext.path_mask(exclude=("bias", "scale"))

    def test_a_range_is_one(self):
        assert optax_ext.PiecewiseConstantDecay(range(1, 3), [1.0, 0.5, 0.25]).boundaries == (1, 2)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ("bias", "must be a list, got 'bias': write [bias]"),
            ("a: b", "must be a list, got 'a: b': write ['a: b']"),
            (b"bias", "must be a list, got b'bias'"),
            ({"bias": 1}, "must be a list, got {'bias': 1}"),
            ({"bias"}, "must be a list, got {'bias'}"),
            (5, "must be a list, got 5"),
            (None, "must be a list, got None"),
            ([["bias"]], "must be text, got ('bias',)"),
        ],
    )
    def test_what_is_none_is_refused(self, wrong, text):
        with pytest.raises(ConfigError) as raised:
            config.LARS(0.1, exclude_from_weight_decay=wrong)
        assert raised.value.problems[0].message == text

    def test_a_users_own_field_may_be_one(self):
        @dataclasses.dataclass(frozen=True)
        class Knots(optax_ext.Schedule):
            knots: tuple[int, ...]

            def __call__(self, step):
                return jnp.float32(self.knots[0])

        assert Knots([1, 2]).knots == (1, 2)


@pytest.mark.parametrize("value", [decimal.Decimal("0.5"), fractions.Fraction(1, 2)])
def test_numbers_that_jax_cannot_compute_with_are_refused(value):
    with pytest.raises(ValueError, match="momentum must be a number, got"):
        optax_ext.lars(0.1, momentum=value)
    with pytest.raises(ValueError, match="scale must be a number, got"):
        optax_ext.fixed_loss_scaling(optax.sgd(0.1), value)
