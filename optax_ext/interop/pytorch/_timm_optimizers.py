"""The optimizers of timm, by the names that ``opt`` has for them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.config import LAMB, LARS, SGD, Adadelta, Adagrad, Adam, AdamW, Lion, Nadam, Optimizer, RMSprop
from optax_ext.interop.pytorch._arguments import Arguments
from optax_ext.interop.pytorch._torch_optimizers import rmsprop_fields, sgd_fields
from optax_ext.schedules import Schedule

# What timm leaves out of weight decay: `param.ndim <= 1 or name.endswith(".bias")`.
EXCLUDED = ("rank <= 1", "(?:^|/)bias$")


class Settings(NamedTuple):
    """What the optimizers of timm have in common.

    Args:
      rate: The learning rate.
      weight_decay: At least 0.
      clip: The fields of our schema that say how gradients are clipped.
      own: The optimizer's own arguments, with the defaults of its class.
      args: All arguments.
    """

    rate: float | Schedule
    weight_decay: float
    clip: Mapping[str, float]
    own: Arguments
    args: Arguments

    def build(self, schema: Callable[..., Optimizer], **fields: Any) -> Optimizer | None:
        """Construct an optimizer; its problems are reported under timm's names."""
        given = {"learning_rate": self.rate, **self.clip, **fields}
        return self.args.report.build(schema, given, "", _NAMES)  # pyright: ignore[reportArgumentType] # a class

    def in_gradient(self) -> dict[str, Any]:
        """Return the fields of weight decay that is part of the gradient."""
        return {**self.decay(), "weight_decay_in_gradient": True} if self.weight_decay else {}

    def decay(self) -> dict[str, Any]:
        """Return the fields of weight decay."""
        if not self.weight_decay:
            return {}
        return {"weight_decay_rate": self.weight_decay, "exclude_from_weight_decay": EXCLUDED}


_NAMES = {
    "learning_rate": "lr",
    "weight_decay_rate": "weight_decay",
    "beta_1": "opt_betas",
    "beta_2": "opt_betas",
    "epsilon": "opt_eps",
    "momentum": "momentum",
    "rho": "opt_kwargs.alpha",
    "global_clipnorm": "clip_grad",
    "clipvalue": "clip_grad",
}


def _sgd(settings: Settings) -> Optimizer | None:
    fields = sgd_fields(settings.own)
    if fields["nesterov"] and not fields["momentum"]:
        text = "must be greater than 0 with Nesterov's momentum, as in PyTorch; 'momentum' has none"
        settings.own.problem("momentum", text)
    return settings.build(SGD, **fields, **settings.in_gradient())


def _adam(settings: Settings) -> Optimizer | None:
    if settings.weight_decay:
        text = "is part of the gradient in 'adam', which moments here do not see: set it to 0, or choose 'adamw'"
        settings.args.problem("weight_decay", text)
    return settings.build(Adam, **_moments(settings), epsilon_hat=False, amsgrad=settings.own.flag("amsgrad"))


def _adamw(settings: Settings) -> Optimizer | None:
    moments = {**_moments(settings), "epsilon_hat": False, "amsgrad": settings.own.flag("amsgrad")}
    return settings.build(AdamW, **moments, **settings.decay(), gradient_clip_norm=0.0)  # timm's limit may be 0


def _moments(settings: Settings) -> dict[str, Any]:
    beta_1, beta_2 = settings.own.numbers("betas", 2)
    return {"beta_1": beta_1, "beta_2": beta_2, "epsilon": settings.own.number("eps")}


def _lamb(settings: Settings) -> Optimizer | None:
    own, clip = settings.own, dict(settings.clip)
    limit = own.number_or_none("max_grad_norm")
    if limit is not None and "clipvalue" in clip:
        text = f"'value' comes before the clip to a norm of {limit:g} that 'lamb' has: set opt_kwargs.max_grad_norm"
        settings.args.note("clip_mode", f"{text} to null where that is not wanted")
    if limit is not None:
        clip["global_clipnorm"] = min(limit, clip.get("global_clipnorm", limit))  # clipping twice is clipping to less
    fields: dict[str, Any] = {**_moments(settings), **settings.decay(), **clip}
    if own.flag("trust_clip"):
        fields["max_ratio"] = 1.0
    if own.flag("always_adapt"):
        fields["exclude_from_layer_adaptation"] = ()
    elif not settings.weight_decay:
        fields["exclude_from_layer_adaptation"] = (".*",)  # timm adapts what decays
    for name in ("grad_averaging", "bias_correction"):
        if not own.flag(name):
            own.problem(name, "must be true: docs/migration.md shows such a LAMB as a chain")
    return settings.build(LAMB, **fields)


def _lars(settings: Settings) -> Optimizer | None:
    own, momentum = settings.own, settings.own.number("momentum")
    if own.flag("trust_clip"):
        text = "clips to the rate, as no LARS of a recipe does: docs/migration.md shows the chain"
        settings.args.problem("opt", f"{shorten(settings.args.value('opt'))} {text}")
    fields = {"momentum": momentum, "nesterov": own.flag("nesterov"), "eeta": own.number("trust_coeff")}
    fields |= {"separate_norms": True, "learning_rate_in_momentum": not momentum, **settings.decay()}
    if own.number("eps") != _LARS["eps"]:  # which no norm notices
        fields["epsilon"] = own.number("eps")
    if own.flag("always_adapt"):
        fields["exclude_from_layer_adaptation"] = ()
    elif not settings.weight_decay:
        fields["exclude_from_layer_adaptation"] = (".*",)
    return settings.build(LARS, **fields)


def _rmsprop(settings: Settings) -> Optimizer | None:
    return settings.build(RMSprop, **rmsprop_fields(settings.own), **settings.in_gradient())


def _rmsprop_tf(settings: Settings) -> Optimizer | None:
    own = settings.own
    fields = {**rmsprop_fields(own), "epsilon_in_root": True, "initial_mean_square": 1.0}
    fields["learning_rate_in_momentum"] |= own.flag("lr_in_momentum")
    decay = settings.decay() if own.flag("decoupled_decay") else settings.in_gradient()
    return settings.build(RMSprop, **fields, **decay)


def _nadam(settings: Settings) -> Optimizer | None:
    decay = settings.decay() if settings.own.flag("decoupled_weight_decay") else settings.in_gradient()
    return settings.build(Nadam, **_moments(settings), momentum_decay=settings.own.number("momentum_decay"), **decay)


def _lion(settings: Settings) -> Optimizer | None:
    beta_1, beta_2 = settings.own.numbers("betas", 2)
    return settings.build(Lion, beta_1=beta_1, beta_2=beta_2, **settings.decay())


def _adadelta(settings: Settings) -> Optimizer | None:
    own = settings.own
    return settings.build(Adadelta, rho=own.number("rho"), epsilon=own.number("eps"), **settings.in_gradient())


def _adagrad(settings: Settings) -> Optimizer | None:
    fields = {"initial_accumulator_value": 0.0, "epsilon": settings.own.number("eps")}
    return settings.build(Adagrad, **fields, **settings.in_gradient())


class _Kind(NamedTuple):
    build: Callable[[Settings], Optimizer | None]
    defaults: Mapping[str, Any]


_SGD = {"momentum": 0.9, "dampening": 0.0, "nesterov": True}
_ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
_LAMB = {
    "betas": (0.9, 0.999),
    "eps": 1e-6,
    "bias_correction": True,
    "grad_averaging": True,
    "max_grad_norm": 1.0,
    "trust_clip": False,
    "always_adapt": False,
}
_LARS = {
    "momentum": 0.9,
    "nesterov": False,
    "trust_coeff": 0.001,
    "eps": 1e-8,
    "trust_clip": False,
    "always_adapt": False,
}
_RMSPROP = {"momentum": 0.9, "alpha": 0.9, "eps": 1e-8, "centered": False}
_RMSPROP_TF = {**_RMSPROP, "eps": 1e-10, "lr_in_momentum": True, "decoupled_decay": False}
_NADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3, "decoupled_weight_decay": False}
KINDS: dict[str, _Kind] = {
    "sgd": _Kind(_sgd, _SGD),
    "nesterov": _Kind(_sgd, _SGD),
    "momentum": _Kind(_sgd, {**_SGD, "nesterov": False}),
    "fusedsgd": _Kind(_sgd, _SGD),
    "fusedmomentum": _Kind(_sgd, {**_SGD, "nesterov": False}),
    "adam": _Kind(_adam, _ADAM),
    "fusedadam": _Kind(_adam, _ADAM),
    "adamw": _Kind(_adamw, _ADAM),
    "adamwlegacy": _Kind(_adamw, _ADAM),
    "fusedadamw": _Kind(_adamw, _ADAM),
    "lamb": _Kind(_lamb, _LAMB),
    "lambc": _Kind(_lamb, {**_LAMB, "trust_clip": True}),
    "lars": _Kind(_lars, _LARS),
    "nlars": _Kind(_lars, {**_LARS, "nesterov": True}),
    "larc": _Kind(_lars, {**_LARS, "trust_clip": True}),
    "nlarc": _Kind(_lars, {**_LARS, "nesterov": True, "trust_clip": True}),
    "rmsprop": _Kind(_rmsprop, _RMSPROP),
    "rmsproptf": _Kind(_rmsprop_tf, _RMSPROP_TF),
    "rmsproptfw": _Kind(_rmsprop_tf, {**_RMSPROP_TF, "decoupled_decay": True}),
    "nadam": _Kind(_nadam, _NADAM),
    "lion": _Kind(_lion, {"betas": (0.9, 0.99)}),
    "adadelta": _Kind(_adadelta, {"rho": 0.9, "eps": 1e-6}),
    "adagrad": _Kind(_adagrad, {"eps": 1e-8}),
}

_NO_COUNTERPART = "has no counterpart here that returns timm's numbers"
_REFUSED = {
    "fusedlamb": "is apex's LAMB: 'lamb' is timm's",
    "fusednovograd": _NO_COUNTERPART,
}


def read_optimizer(args: Arguments, rate: float | Schedule) -> Optimizer | None:
    """Return the optimizer with its clipping and weight decay, or None if there was a problem."""
    name = args.text("opt").lower()
    if name not in KINDS:
        near = did_you_mean(name, KINDS)
        reason = "wraps Lookahead around an optimizer: in Optax it is optax.lookahead" if "lookahead_" in name else ""
        reason = reason or _REFUSED.get(name, f"{_NO_COUNTERPART}{near}")
        args.problem("opt", f"{shorten(name)} {reason}, accepted: {join_words(KINDS)}")
        return None
    if args.value("layer_decay") is not None:
        text = "gives the layers of a model of timm rates of their own, which a recipe does not: use optax.partition"
        args.problem("layer_decay", text)
    weight_decay = args.number("weight_decay")
    if weight_decay:
        text = f"leaves out {join_words(EXCLUDED)}; what a model's no_weight_decay() names, such as a pos_embed of a"
        args.note("weight_decay", f"{text} ViT, is for you to add to exclude_from_weight_decay", surprising=True)
    own = _own_arguments(args, KINDS[name].defaults)
    return KINDS[name].build(Settings(rate, weight_decay, _clipping(args), own, args))


def _own_arguments(args: Arguments, defaults: Mapping[str, Any]) -> Arguments:
    """Return the arguments of an optimizer itself, those in ``opt_kwargs`` over those beside it."""
    kwargs = args.value("opt_kwargs")
    if not isinstance(kwargs, Mapping):
        args.problem("opt_kwargs", f"must be a mapping, got {shorten(kwargs)}")
        kwargs = {}
    beside = {"momentum": args.number("momentum"), "eps": args.number("opt_eps"), "betas": args.value("opt_betas")}
    given = {name: value for name, value in beside.items() if name in defaults and value is not None}
    for name in kwargs:
        if name not in defaults:
            near = did_you_mean(name, defaults)
            args.problem(f"opt_kwargs.{name}", f"cannot be carried over{near}, accepted: {join_words(defaults)}")
    own = Arguments({**given, **kwargs}, defaults, args.report, "opt_kwargs")
    if "betas" in defaults and own.given("betas"):
        own.numbers("betas", 2)
    return own


def _clipping(args: Arguments) -> dict[str, float]:
    limit, mode = args.number("clip_grad"), args.text("clip_mode")
    if limit is None:
        return {}
    if mode == "agc":
        text = "clips each unit by the norm of its parameters, which a recipe does not: chain optax.adaptive_grad_clip"
        args.problem("clip_mode", f"'agc' {text} before what make() returns")
    elif mode not in ("norm", "value"):
        args.problem("clip_mode", f"must be 'norm' or 'value', got {shorten(mode)}")
    return {"clipvalue" if mode == "value" else "global_clipnorm": limit}
