"""The optimizers of transformers' Trainer, by the names that ``optim`` has for them."""

from collections.abc import Mapping
from typing import Any

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.config import SGD, Adagrad, AdamW, Lion, Optimizer, RMSprop
from optax_ext.interop.pytorch._arguments import Arguments
from optax_ext.interop.pytorch._torch_optimizers import rmsprop_fields, sgd_fields
from optax_ext.interop.pytorch._trainer_fields import ADAMW, DECAYS_AFTER, REFUSED_OPTIMIZERS
from optax_ext.schedules import Schedule

# What the Trainer leaves out of weight decay by the classes and names of modules: biases and normalizations.
EXCLUDED = ("rank <= 1", "(?i:bias|norm)")

# The arguments in `optim_args`, with torch's defaults. A weight decay in there has no effect: groups have their own.
_SGD = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "weight_decay": None}
_RMSPROP = {"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "centered": False, "weight_decay": None}
_ADAGRAD = {"eps": 1e-10, "lr_decay": 0.0, "weight_decay": None}
_OWN: dict[str, dict[str, Any]] = {"sgd": _SGD, "rmsprop": _RMSPROP, "adagrad": _ADAGRAD}
_CARRIED = (*sorted(ADAMW), *_OWN, "lion_32bit", "paged_lion_32bit")


def read_optimizer(args: Arguments, rate: float | Schedule) -> Optimizer | None:
    """Return the optimizer with its clipping and weight decay, or None if there was a problem."""
    name = args.text("optim").removeprefix("OptimizerNames.").lower()
    if args.flag("adafactor"):
        name = "adafactor"
    if name not in _CARRIED:
        reason = next((text for part, text in REFUSED_OPTIMIZERS.items() if part in name), None)
        reason = reason or f"is not one of transformers{did_you_mean(name, _CARRIED)}"
        args.problem("optim", f"{shorten(name)} {reason}, accepted: {join_words(_CARRIED)}")
        return None
    norm = args.number_or_none("max_grad_norm")
    clip = norm if norm and norm > 0 else None
    decay = args.number("weight_decay")
    excluded = EXCLUDED if decay else None
    if excluded:
        patterns = join_words(excluded)
        args.note("weight_decay", f"leaves out biases and normalizations, which are what {patterns} matches")
    if name in ADAMW:
        return _adamw(name, args, rate, clip, decay, excluded)
    if "lion" in name:
        return _lion(args, rate, clip, decay)
    own = _own_arguments(name, args)
    shared: dict[str, Any] = {"learning_rate": rate, "global_clipnorm": clip}
    if decay:
        shared |= {"weight_decay_rate": decay, "exclude_from_weight_decay": EXCLUDED, "weight_decay_in_gradient": True}
    if name == "sgd":
        names = {"momentum": "optim_args.momentum", **_SHARED}
        return args.report.build(SGD, {**shared, **sgd_fields(own)}, "", names)
    if name == "rmsprop":
        names = {"rho": "optim_args.alpha", "epsilon": "optim_args.eps", "momentum": "optim_args.momentum", **_SHARED}
        return args.report.build(RMSprop, {**shared, **rmsprop_fields(own)}, "", names)
    if own.number("lr_decay"):
        shared["decay"] = own.number("lr_decay")
    fields = {"initial_accumulator_value": 0.0, "epsilon": own.number("eps")}
    return args.report.build(Adagrad, {**shared, **fields}, "", {"epsilon": "optim_args.eps", **_SHARED})


def _adamw(
    name: str, args: Arguments, rate: float | Schedule, clip: float | None, decay: float, excluded: Any
) -> Optimizer | None:
    if args.given("optim_args") and args.value("optim_args"):
        args.note("optim_args", f"has no effect on {name!r}, as in transformers", surprising=True)
    peak = args.number("learning_rate")
    if name in DECAYS_AFTER and decay * peak > 6e-6:  # by which part of a step the two are apart
        text = f"lets the updated parameters decay, which at {peak:g} x {decay:g} is not what AdamW here does"
        args.problem("optim", f"{name!r} {text}: choose 'adamw_torch'")
    names = {"beta_1": "adam_beta1", "beta_2": "adam_beta2", "epsilon": "adam_epsilon", **_SHARED}
    fields = {
        "learning_rate": rate,
        "beta_1": args.number("adam_beta1"),
        "beta_2": args.number("adam_beta2"),
        "epsilon": args.number("adam_epsilon"),
        "weight_decay_rate": decay,
        "exclude_from_weight_decay": excluded,
        "gradient_clip_norm": clip or 0.0,
        "epsilon_hat": name == "adamw_hf",
    }
    return args.report.build(AdamW, fields, "", names)


def _lion(args: Arguments, rate: float | Schedule, clip: float | None, decay: float) -> Optimizer | None:
    fields: dict[str, Any] = {"learning_rate": rate, "global_clipnorm": clip}
    fields |= {"beta_1": args.number("adam_beta1"), "beta_2": args.number("adam_beta2")}
    if decay:
        fields |= {"weight_decay_rate": decay, "exclude_from_weight_decay": EXCLUDED}
    return args.report.build(Lion, fields, "", {"beta_1": "adam_beta1", "beta_2": "adam_beta2", **_SHARED})


def _own_arguments(name: str, args: Arguments) -> Arguments:
    """Return what ``optim_args`` says, ``"momentum=0.9, nesterov=True"``."""
    written, data = args.value("optim_args"), {}
    if isinstance(written, Mapping):
        data = dict(written)
    elif isinstance(written, str):
        pairs = [pair.partition("=") for pair in written.replace(" ", "").split(",") if pair]
        data = {key: {"true": True, "false": False}.get(value.lower(), value) for key, _, value in pairs}
    elif written is not None:
        args.problem("optim_args", f"must be text such as 'momentum=0.9', got {shorten(written)}")
    known = _OWN[name]
    for key in data:
        if key not in known:
            near = did_you_mean(key, known)
            args.problem(f"optim_args.{key}", f"is not an argument of {name!r}{near}, accepted: {join_words(known)}")
    own = Arguments(data, known, args.report, "optim_args")
    if own.given("weight_decay"):
        own.note(
            "weight_decay", "has no effect: the Trainer gives its groups the argument weight_decay", surprising=True
        )
    return own


_SHARED = {
    "weight_decay_rate": "weight_decay",
    "gradient_clip_norm": "max_grad_norm",
    "global_clipnorm": "max_grad_norm",
    "decay": "optim_args.lr_decay",
}
