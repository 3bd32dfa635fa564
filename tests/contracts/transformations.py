"""Every transformation and config optimizer of ours, for the tests of what all of them promise."""

import jax
import jax.numpy as jnp
import optax

import optax_ext
from optax_ext import config

# Each is a function of `rate`, which makes a number or a schedule of a number, for every argument that takes either.
TRANSFORMATIONS = {
    "scale_by_trust_ratio": lambda rate: optax_ext.scale_by_trust_ratio(0.1),
    "params_ema": lambda rate: optax.chain(config.SGD(rate(5e-4), 0.9).make(), optax_ext.params_ema(0.9)),
    "lars": lambda rate: optax_ext.lars(rate(2.0), weight_decay=rate(1e-6)),
    "lars-nesterov": lambda rate: optax_ext.lars(rate(2.0), weight_decay=rate(1e-6), nesterov=True),
    "lars-popular": lambda rate: optax_ext.lars(rate(1.0), weight_decay=rate(1e-6), classic_momentum=False),
    "lars-without-momentum": lambda rate: optax_ext.lars(rate(1.0), momentum=0.0),
    "lars-stacked": lambda rate: optax_ext.lars(
        rate(2.0), weight_decay=rate(1e-6), separate_norms=True, stacked_axes=_last_axis_of_kernels, record=True
    ),
    "lamb": lambda rate: optax_ext.lamb(rate(1e-3), weight_decay=rate(1e-6)),
    "SGD": lambda rate: config.SGD(rate(8e-4), decay=1e-7).make(),
    "SGD-nesterov": lambda rate: config.SGD(rate(5e-4), momentum=0.9, nesterov=True).make(),
    "SGD-clipnorm": lambda rate: config.SGD(rate(5e-4), momentum=0.9, clipnorm=50.0).make(),
    "SGD-global_clipnorm": lambda rate: config.SGD(rate(5e-4), momentum=0.9, global_clipnorm=50.0).make(),
    "LARS": lambda rate: config.LARS(rate(2.0), nesterov=True, classic_momentum=False, clipnorm=50.0).make(),
    "LAMB": lambda rate: config.LAMB(rate(1e-3), weight_decay_rate=rate(1e-6)).make(),
    "Adafactor": lambda rate: config.Adafactor(rate(0.01), weight_decay_rate=rate(1e-6)).make(),
    "Muon": lambda rate: config.Muon(rate(0.03), weight_decay_rate=rate(1e-6), adam_weight_decay=rate(1e-6)).make(),
    "ScheduleFreeAdamW": lambda rate: config.ScheduleFreeAdamW(rate(0.03), weight_decay_rate=rate(1e-6)).make(),
    "Adam": lambda rate: config.Adam(rate(0.03)).make(),
    "Adam-amsgrad": lambda rate: config.Adam(rate(0.1), amsgrad=True).make(),
    "AdamW": lambda rate: config.AdamW(rate(0.03), weight_decay_rate=rate(1e-6)).make(),
    "RMSprop": lambda rate: config.RMSprop(rate(2e-3), epsilon_in_root=True).make(),
    "RMSprop-centered": lambda rate: config.RMSprop(rate(1e-3), momentum=0.5, centered=True).make(),
    "Adagrad": lambda rate: config.Adagrad(rate(1.0)).make(),
    "Adagrad-in-root": lambda rate: config.Adagrad(rate(1.0), 0.0, epsilon_in_root=True).make(),
    "Adadelta": lambda rate: config.Adadelta(rate(1.0)).make(),
    "Adamax": lambda rate: config.Adamax(rate(0.03)).make(),
    "Nadam": lambda rate: config.Nadam(rate(0.03)).make(),
    "Ftrl": lambda rate: config.Ftrl(rate(0.1), initial_accumulator_value=0.0, weight_decay_rate=rate(1e-6)).make(),
    "Lion": lambda rate: config.Lion(rate(1e-3), weight_decay_rate=rate(1e-6)).make(),
    "SGD-factors": lambda rate: config.SGD(
        rate(5e-4), 0.9, learning_rate_multipliers={"kernel": 0.75}, allow_unmatched=True, weight_decay_rate=1e-6
    ).make(),
    "Partition": lambda rate: config.Partition(
        [config.Group(["kernel"], config.LARS(rate(2.0), nesterov=True))],
        rest=config.Adam(rate(0.03)),
        global_clipnorm=50.0,
        allow_unmatched=True,
    ).make(),
    "skip_bad_steps": lambda rate: optax_ext.skip_bad_steps(
        config.Adam(rate(0.03)).make(), max_norm_ratio=10.0, warmup_steps=2
    ),
    "recipe": lambda rate: _make_recipe(rate, None),
}
# For which Adam or the same optimizer in another setting stands, save in the slow tests.
SIMILAR = ("Adadelta", "Adamax", "Nadam", "Lion", "Adam-amsgrad", "RMSprop-centered", "Adagrad-in-root", "SGD-factors")
INITIAL_SCALE = 8.0


def _last_axis_of_kernels(params):
    return jax.tree.map(lambda leaf: -1 if jnp.ndim(leaf) > 1 else None, params)


def _make_recipe(rate, loss_scale):
    return config.OptimizationConfig(config.Adam(rate(0.03)), loss_scale, config.ParamsEma(0.9)).make()


def make(name, form):
    """Return a transformation: bare, with schedules, or with schedules in loss scaling."""
    rate = (lambda value: value) if form == "bare" else optax_ext.Constant
    if form != "scaled":
        return TRANSFORMATIONS[name](rate)
    if name == "recipe":
        return _make_recipe(rate, config.FixedLossScale(INITIAL_SCALE))
    return optax_ext.dynamic_loss_scaling(TRANSFORMATIONS[name](rate), initial_scale=INITIAL_SCALE, max_scale=2.0**12)


def make_params(dtype="float32"):
    return {
        "kernel": jnp.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]], dtype),
        "bias": jnp.array([1.0, -0.5, 0.125], dtype),
    }


def make_grads(dtype="float32"):
    return {
        "kernel": jnp.array([[1.0, -3.0, 0.5], [-0.25, 2.0, 0.5]], dtype) * 8,
        "bias": jnp.array([0.5, 1.0, -2.0], dtype) * 8,
    }
