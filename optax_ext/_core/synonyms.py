"""Other people's words for what has a name here: an error tells ours."""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from optax_ext._core.errors import did_you_mean

# From a word to ours, the first that a thing has. Recipes use TensorFlow's words, transformations Optax's.
_SYNONYMS = {
    # Optax
    "init_value": ("initial_learning_rate", "learning_rate", "warmup_learning_rate"),
    "value": ("learning_rate",),
    "peak_value": ("warmup_target", "after"),
    "end_value": ("end_learning_rate",),
    "transition_steps": ("decay_steps", "warmup_steps"),
    "transition_begin": ("offset",),
    "exponent": ("power",),
    "trust_coefficient": ("eeta",),
    "weight_decay": ("weight_decay_rate",),
    "weight_decay_mask": ("exclude_from_weight_decay",),
    "trust_ratio_mask": ("exclude_from_layer_adaptation",),
    "b1": ("beta_1",),
    "b2": ("beta_2",),
    "eps": ("epsilon",),
    "max_norm": ("global_clipnorm",),
    "decay": ("average_decay",),
    "decay_rate": ("rho",),
    "mask": ("weight_decay_mask", "exclude_from_weight_decay"),
    "schedule": ("learning_rate", "after"),
    # TensorFlow
    "eeta": ("trust_coefficient",),
    "weight_decay_rate": ("weight_decay",),
    "exclude_from_weight_decay": ("weight_decay_mask",),
    "exclude_from_layer_adaptation": ("trust_ratio_mask",),
    "beta_1": ("b1",),
    "beta_2": ("b2",),
    "epsilon": ("eps",),
    "dynamic_growth_steps": ("growth_steps",),
    "ema_momentum": ("average_decay",),
    "num_updates": ("dynamic_decay",),
    "zero_debias": ("debias",),
    # PyTorch, transformers and DeepSpeed
    "lr": ("learning_rate", "initial_learning_rate"),
    "beta1": ("beta_1", "b1"),
    "beta2": ("beta_2", "b2"),
    "betas": ("beta_1 beta_2", "b1 b2"),
    "alpha": ("rho",),
    "gamma": ("decay_rate",),
    "milestones": ("boundaries",),
    "T_max": ("decay_steps",),
    "T_0": ("first_decay_steps",),
    "T_mult": ("t_mul",),
    "num_warmup_steps": ("warmup_steps",),
    "num_stable_steps": ("stable_steps",),
    "num_decay_steps": ("decay_steps",),
    "max_grad_norm": ("global_clipnorm",),
    "init_scale": ("initial_scale", "scale"),
    "growth_interval": ("growth_steps",),
    "growth_factor": ("multiplier",),
    "backoff_factor": ("multiplier",),
    "loss_scale_window": ("growth_steps",),
    "min_loss_scale": ("min_scale",),
    "min_coeff": ("min_ratio",),
    "max_coeff": ("max_ratio",),
    "ema_decay": ("average_decay",),
    "momentum": ("average_decay",),
    "use_num_updates": ("dynamic_decay",),
    "update_after_step": ("start_step",),
    # timm
    "trust_coeff": ("trust_coefficient", "eeta"),
    # MaxText
    "scan_axis": ("stacked_axes",),
    "param_scan_axis": ("stacked_axes",),
    "stack_axis": ("stacked_axes",),
    # ours, once
    "allow_unmatched_patterns": ("allow_unmatched",),
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def suggest(word: object, known: Collection[str]) -> str:
    """Return " (did you mean 'x'?)" for what a word is called here, or the closest known word, or nothing."""
    choices = (choice.split() for choice in _SYNONYMS.get(str(word), ()))
    ours = next((names for names in choices if all(name in known for name in names)), None)
    return f" (did you mean {' and '.join(map(repr, ours))}?)" if ours else did_you_mean(word, known)


def suggest_arguments(function: _Function) -> _Function:
    """Make a function tell the right word for a keyword that it does not have."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        unknown = next((name for name in kwargs if name not in names), None)
        if unknown is not None:
            hint = suggest(unknown, names)
            raise TypeError(f"{function.__name__} has no argument {unknown!r}{hint}, accepted: {', '.join(names)}")
        return function(*args, **kwargs)

    return cast(_Function, checked)
