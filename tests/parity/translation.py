"""TensorFlow's configs and variable names in the words of optax_ext."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax

import optax_ext


def make_schedule(spec: Mapping[str, Any]) -> optax_ext.Schedule:
    """Make the schedule of `{"class": ..., "config": ...}`."""
    name = spec["class"].removesuffix("WithOffset").replace("PolynomialWarmUp", "PolynomialWarmup")
    config = {key: value for key, value in spec["config"].items() if key != "name"}
    if "after_warmup_lr_sched" in config:
        config["after"] = make_learning_rate(config.pop("after_warmup_lr_sched"))
    return getattr(optax_ext, name)(**config)


def make_learning_rate(value: float | Mapping[str, Any]) -> optax_ext.Schedule | float:
    """Return a number as it is, and make the schedule that a mapping describes."""
    return make_schedule(value) if isinstance(value, Mapping) else value


def make_lars(config: Mapping[str, Any], names: Sequence[str]) -> optax.GradientTransformationExtraArgs:
    """Make `lars` of a config without clipping and `decay`, for variables of these names."""
    weight_decay_patterns = config.get("exclude_from_weight_decay")
    return optax_ext.lars(
        make_learning_rate(config.get("learning_rate", 0.01)),
        momentum=config.get("momentum", 0.9),
        weight_decay=config.get("weight_decay_rate", 0.0),
        trust_coefficient=config.get("eeta", 0.001),
        nesterov=config.get("nesterov", False),
        classic_momentum=config.get("classic_momentum", True),
        weight_decay_mask=make_mask(weight_decay_patterns, names),
        # TensorFlow's empty list falls back like None
        trust_ratio_mask=make_mask(config.get("exclude_from_layer_adaptation") or weight_decay_patterns, names),
    )


def make_config_lars(config: Mapping[str, Any], names: Sequence[str]) -> optax.GradientTransformationExtraArgs:
    """Make what the schema of a config makes, with clipping and `decay`; its patterns are those of TensorFlow."""
    del names
    learning_rate = make_learning_rate(config.get("learning_rate", 0.01))
    return optax_ext.config.LARS(**{**config, "learning_rate": learning_rate}).make()


def make_mask(patterns: Sequence[str] | None, names: Sequence[str]) -> dict[str, Any]:
    """Exclude as TensorFlow does: it searches in names that end in ":0", which `optax_ext.path_mask` has not."""
    return nest({name: not any(re.search(pattern, name + ":0") for pattern in patterns or ()) for name in names})


def nest(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Make a tree of parameters: `{"dense/kernel": x}` becomes `{"dense": {"kernel": x}}`."""
    tree: dict[str, Any] = {}
    for name, value in variables.items():
        *scopes, leaf = name.split("/")
        node = tree
        for scope in scopes:
            node = node.setdefault(scope, {})
        node[leaf] = value
    return tree


def flatten(tree: Any) -> dict[str, Any]:
    """Undo `nest`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
