"""The arguments of ``torch.optim``'s SGD and RMSprop, which the Trainer and timm both give them, as fields of ours."""

from typing import Any

from optax_ext.interop.pytorch._arguments import Arguments


def sgd_fields(own: Arguments) -> dict[str, Any]:
    """Return the fields of SGD, whose momentum torch multiplies by the newest rate."""
    momentum = own.number("momentum")
    if own.number("dampening"):
        own.problem("dampening", f"must be 0, got {own.number('dampening')}: nothing here dampens momentum")
    return {"momentum": momentum, "nesterov": own.flag("nesterov"), "learning_rate_in_momentum": not momentum}


def rmsprop_fields(own: Arguments) -> dict[str, Any]:
    """Return the fields of RMSprop, whose momentum torch multiplies by the newest rate."""
    fields = {"rho": own.number("alpha"), "epsilon": own.number("eps"), "centered": own.flag("centered")}
    momentum = own.number("momentum")
    return {**fields, "momentum": momentum, "learning_rate_in_momentum": not momentum}
