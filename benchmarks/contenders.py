"""What is compared: one training step for each optimizer, from gradients to new parameters.

A step is `(params, state, grads) -> (params, state)`. The gradients are given, so that only the optimizer is measured.
"""

import dataclasses
import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import optax_ext
from benchmarks.peers import SCALE, Init, Step, with_flax, with_jmp, with_mpx
from benchmarks.trees import is_adapted


@dataclasses.dataclass(frozen=True)
class Contender:
    """A row of the tables.

    Attributes:
      family: The rows that are measured together; `--only` takes its name.
      of: The row that this one is given as a ratio of; None for a row that others are ratios of.
      make: Makes `init`, from parameters to the initial state, and the step.
      grads_scale: What the gradients arrive multiplied by.
      package: A package that the row needs and that may not be there.
      stacked_axis: The axis along which the leaves of a tree's layers are stacked for the row; None to leave them.
    """

    family: str
    of: str | None
    make: Callable[[], tuple[Init, Step]]
    grads_scale: float = 1.0
    package: str | None = None
    stacked_axis: int | None = None


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """What an optimizer is measured in.

    Attributes:
      name: The name of the row; the braces stand for that of the optimizer.
      make: Makes `init` and the step of an optimizer.
      grads_scale: As in a row.
      package: As in a row.
    """

    name: str
    make: Callable[[optax.GradientTransformation], tuple[Init, Step]]
    grads_scale: float = 1.0
    package: str | None = None


def _step(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return tx.init, step


def _step_loss_scaled(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    return _step(optax_ext.dynamic_loss_scaling(tx, initial_scale=SCALE))


def _step_if_finite(tx: optax.GradientTransformation) -> tuple[Init, Step]:
    return _step(optax.apply_if_finite(tx, max_consecutive_errors=10**6))


def _step_logged(tx: optax.GradientTransformation, *, per_layer: bool = False) -> tuple[Init, Step]:
    """Make the step of a loss-scaled optimizer with its metrics, which come and go with its state."""
    tx = optax_ext.dynamic_loss_scaling(tx, initial_scale=SCALE)
    init_bare, step_bare = _step(tx)

    def log(state: Any) -> tuple[Any, Any]:
        return state, optax_ext.metrics(state, _RATE, per_layer=per_layer)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        params, state = step_bare(params, state[0], grads)
        return params, log(state)

    return lambda params: log(init_bare(params)), step


BARE = Wrapper("{}", _step)
SCALED = Wrapper("loss-scaled {}", _step_loss_scaled, SCALE)
IF_FINITE = Wrapper("apply_if_finite({})", _step_if_finite)
FLAX = Wrapper("DynamicScale + {}", with_flax, SCALE, "flax")
JMP = Wrapper("jmp + {}", with_jmp, SCALE, "jmp")
MPX = Wrapper("mpx + {}", with_mpx, SCALE, "mpx")


_RATE = 0.1


def _bandwidth_floor() -> tuple[Init, Step]:
    """Read and write what SGD with momentum must, in two flat arrays without any other work."""

    def flat(tree: Any) -> jax.Array:
        leaves = jax.tree.leaves(tree)
        return jnp.zeros(sum(leaf.size for leaf in leaves), leaves[0].dtype)

    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        velocity = state + grads
        return params - velocity, velocity

    return flat, step


def _sgd() -> optax.GradientTransformation:
    return optax.chain(optax.add_decayed_weights(1e-4, is_adapted), optax.sgd(_RATE, momentum=0.9))


def _lars(make: Callable[..., optax.GradientTransformation]) -> optax.GradientTransformation:
    return make(_RATE, weight_decay=1e-4, weight_decay_mask=is_adapted, trust_ratio_mask=is_adapted, momentum=0.9)


def _recording_lars() -> optax.GradientTransformation:
    return _lars(functools.partial(optax_ext.lars, record=True))


def _adamw() -> optax.GradientTransformation:
    return optax.adamw(_RATE, weight_decay=1e-2, mask=is_adapted)


def _config_adamw(gradient_clip_norm: float) -> optax.GradientTransformation:
    return optax_ext.config.AdamW(
        _RATE,
        weight_decay_rate=1e-2,
        exclude_from_weight_decay=["bias|norm"],  # the leaves of rank 1
        gradient_clip_norm=gradient_clip_norm,
    ).make()


def _lamb() -> optax.GradientTransformation:
    return optax_ext.lamb(_RATE, weight_decay=1e-2, weight_decay_mask=is_adapted, trust_ratio_mask=is_adapted)


def _rmsprop() -> optax.GradientTransformation:
    return optax_ext.config.RMSprop(_RATE, momentum=0.9).make()


def _clip(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), tx)


def _average(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(tx, optax_ext.params_ema(0.999))


FLOOR = "bandwidth floor"

# The optimizers: family, name, the row it is a ratio of, how it is made, and what it is also measured in.
_Made = Callable[[], optax.GradientTransformation]
_OPTIMIZERS: list[tuple[str, str, str | None, _Made, list[Wrapper]]] = [
    ("sgd", "optax.sgd", None, _sgd, [IF_FINITE, SCALED]),
    ("lars", "optax.lars", "optax.sgd", lambda: _lars(optax.lars), [IF_FINITE, FLAX]),
    ("lars", "optax_ext.lars", "optax.sgd", lambda: _lars(optax_ext.lars), [SCALED]),
    ("adamw", "optax.adamw", None, _adamw, [IF_FINITE, FLAX, JMP, MPX, SCALED]),
    ("adamw", "config.AdamW", "optax.adamw", lambda: _config_adamw(0.0), [IF_FINITE, SCALED]),
    ("clip", "clip + optax.adamw", "optax.adamw", lambda: _clip(_adamw()), [SCALED]),
    ("clip", "clip + config.AdamW", "config.AdamW", lambda: _config_adamw(1.0), [SCALED]),
    ("ema", "optax.adamw + ema", "optax.adamw", lambda: _average(_adamw()), [SCALED]),
    ("master", "master_weights(optax.adamw)", "optax.adamw", lambda: optax_ext.master_weights(_adamw()), [SCALED]),
    ("lamb", "optax.lamb", "optax.adamw", lambda: optax.lamb(_RATE, weight_decay=1e-2, mask=is_adapted), []),
    ("lamb", "optax_ext.lamb", "optax.adamw", _lamb, [SCALED]),
    ("rmsprop", "optax.rmsprop", None, lambda: optax.rmsprop(_RATE, momentum=0.9), []),
    ("rmsprop", "config.RMSprop", "optax.rmsprop", _rmsprop, [IF_FINITE, SCALED]),
]

# What is kept of each step, and what is made of it, as a ratio of the step without.
_SCALED_LARS = "loss-scaled optax_ext.lars"
_RECORDED: dict[str, Contender] = {
    "optax_ext.lars with record": Contender("record", "optax_ext.lars", lambda: _step(_recording_lars())),
    f"{_SCALED_LARS} with metrics": Contender(
        "record", _SCALED_LARS, lambda: _step_logged(_lars(optax_ext.lars)), SCALE
    ),
    f"{_SCALED_LARS} with record": Contender(
        "record", _SCALED_LARS, lambda: _step_loss_scaled(_recording_lars()), SCALE
    ),
    f"{_SCALED_LARS} with record and metrics": Contender(
        "record", _SCALED_LARS, lambda: _step_logged(_recording_lars()), SCALE
    ),
    f"{_SCALED_LARS} with record and metrics per layer": Contender(
        "record", _SCALED_LARS, lambda: _step_logged(_recording_lars(), per_layer=True), SCALE
    ),
}

# The rows: each optimizer by itself, and in each wrapper, as a ratio of itself.
CONTENDERS: dict[str, Contender] = {FLOOR: Contender("sgd", "optax.sgd", _bandwidth_floor)} | {
    wrapper.name.format(name): Contender(
        family,
        of if wrapper is BARE else name,
        lambda wrapper=wrapper, make=make: wrapper.make(make()),
        wrapper.grads_scale,
        wrapper.package,
    )
    for family, name, of, make, wrappers in _OPTIMIZERS
    for wrapper in [BARE, *wrappers]
}
CONTENDERS |= _RECORDED

# Optimizers with a norm for each layer, on the same numbers: a leaf for each layer, and all layers in one leaf, as a
# scanned model keeps them.
_KERNELS = optax_ext.path_mask(exclude=["rank <= 1"], allow_unmatched=True)
_MASKS = {"weight_decay_mask": _KERNELS, "trust_ratio_mask": _KERNELS}


def _clip_by_norm(stacked_axes: Any) -> optax.GradientTransformation:
    return optax.chain(optax_ext.transforms.clip_by_norm(1.0, stacked_axes=stacked_axes), optax.sgd(_RATE, 0.9))


_OF_LAYERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "lars": partial(optax_ext.lars, _RATE, weight_decay=1e-4, **_MASKS),
    "popular lars": partial(optax_ext.lars, _RATE, weight_decay=1e-4, classic_momentum=False, **_MASKS),
    "separate norms": partial(optax_ext.lars, _RATE, weight_decay=1e-4, separate_norms=True, **_MASKS),
    "lamb": partial(optax_ext.lamb, _RATE, weight_decay=1e-2, **_MASKS),
    "clip_by_norm": _clip_by_norm,
}
for _name, _make in _OF_LAYERS.items():
    for _axis, _form in {None: "unrolled", 0: "scanned", 1: "scanned at axis 1"}.items():
        _axes = None if _axis is None else optax_ext.path_axes({"^layers/": _axis}, allow_unmatched=True)
        CONTENDERS[f"{_name}, {_form}"] = Contender(
            "scanned",
            None if _axis is None else f"{_name}, unrolled",
            lambda make=_make, axes=_axes: _step(make(stacked_axes=axes)),
            stacked_axis=_axis,
        )

FAMILIES = list(dict.fromkeys(row.family for row in CONTENDERS.values()))


def choose(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the rows to measure in turns, by the names of their tables.

    Args:
      names: Families, of which each is a table, with the rows that its own are ratios of; and rows, which are one
        table together. Rows whose package is not there are left out, with a word on standard error.
    """
    named = [name for name in names if name in CONTENDERS]
    tables = {"rows": named} if named else {}
    for family in (name for name in names if name in FAMILIES):
        members = {member for name, row in CONTENDERS.items() if row.family == family for member in _with_bases(name)}
        tables[family] = [name for name in CONTENDERS if name in members]
    absent = {name for name in set().union(*tables.values()) if not _is_there(CONTENDERS[name].package)}
    for name in sorted(absent):
        print(
            f'{name}: left out, needs {CONTENDERS[name].package}: pip install "optax_ext[benchmark]"', file=sys.stderr
        )
    return {table: [name for name in rows if name not in absent] for table, rows in tables.items()}


def _with_bases(name: str) -> list[str]:
    of = CONTENDERS[name].of
    return [name] if of is None else [name, *_with_bases(of)]


def _is_there(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None
