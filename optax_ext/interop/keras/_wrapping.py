"""What Keras's newer optimizers have as arguments and is around an optimizer here: averages, scales, accumulation."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import shorten
from optax_ext.config import AdamW, FixedLossScale, LossScale, OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._report import Report, is_number, join

DEFAULTS: dict[str, Any] = {
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
# The average of ``use_ema``: in tf_keras it starts at the first parameters. In Keras 3 the second update is the first
# that averages: until then the average is the parameters.
_OF_TF_KERAS: dict[str, Any] = {"dynamic_decay": False, "initial": "params"}
OF_KERAS_3: dict[str, Any] = {"dynamic_decay": False, "start_step": 2}


class Wrapping(NamedTuple):
    """What is around an optimizer."""

    loss_scale: LossScale | None = None
    ema: ParamsEma | None = None
    accumulate_steps: int = 1

    def around(self, optimizer: Optimizer) -> Optimizer | OptimizationConfig:
        """Return the optimizer with what is around it, or by itself if nothing is."""
        if self == Wrapping():
            return optimizer
        return OptimizationConfig(optimizer, self.loss_scale, self.ema, accumulate_steps=self.accumulate_steps)


def take_wrapping(fields: dict[str, Any], path: str, report: Report) -> Wrapping:
    """Take the arguments for what is around an optimizer out of its fields."""
    is_keras_3 = {"loss_scale_factor", "gradient_accumulation_steps"} & fields.keys() or not (
        {"jit_compile", "is_legacy_optimizer"} & fields.keys()
    )
    given = {name: fields.pop(name) for name in DEFAULTS if name in fields}
    ema = _ema(given, OF_KERAS_3 if is_keras_3 else _OF_TF_KERAS, path, report)
    factor = given.get("loss_scale_factor")
    loss_scale = None
    if factor is not None:
        loss_scale = report.build(FixedLossScale, {"scale": factor}, path, {"scale": "loss_scale_factor"})
    steps = given.get("gradient_accumulation_steps")
    if steps is not None and (not is_number(steps) or steps % 1 != 0 or steps < 2):
        text = f"must be an integer of at least 2 or null, got {shorten(steps)}"
        report.problem(join(path, "gradient_accumulation_steps"), text)
        steps = None
    if steps is not None and ema is not None:
        text = "cannot be carried over with use_ema: Keras then averages at each step, not only where parameters move"
        report.problem(join(path, "gradient_accumulation_steps"), text)
    return Wrapping(loss_scale, ema, 1 if steps is None else int(steps))


def _ema(given: Mapping[str, Any], kind: Mapping[str, Any], path: str, report: Report) -> ParamsEma | None:
    use_ema = given.get("use_ema")
    if use_ema not in (None, False, True):
        report.problem(join(path, "use_ema"), f"must be true or false, got {shorten(use_ema)}")
    if use_ema is not True:
        return None
    if given.get("ema_overwrite_frequency") is not None:
        text = "cannot be carried over: nothing here overwrites the parameters by their average while they train, got"
        report.problem(join(path, "ema_overwrite_frequency"), f"{text} {shorten(given['ema_overwrite_frequency'])}")
    fields = {"average_decay": given.get("ema_momentum", DEFAULTS["ema_momentum"]), **kind}
    ema = report.build(ParamsEma, fields, path, {"average_decay": "ema_momentum"})
    text = "becomes an average beside the parameters, which Keras copies into them when fit ends: use ema_params(state)"
    report.note(join(path, "use_ema"), text)
    return ema


def without_clipping(inner: OptimizationConfig, path: str, report: Report) -> OptimizationConfig:
    """Return the optimizer at `path` as MovingAverage of tensorflow_addons calls it: without its clipping."""
    off: dict[str, float | None] = dict.fromkeys(("clipnorm", "clipvalue", "global_clipnorm"))
    if isinstance(inner.optimizer, AdamW):
        off["gradient_clip_norm"] = 0.0
    given = {field: none for field, none in off.items() if getattr(inner.optimizer, field) != none}
    for field in given:
        text = "is ignored, as in tensorflow_addons, whose MovingAverage does not let its optimizer clip gradients"
        report.note(join(path, field), text, surprising=True)
    return dataclasses.replace(inner, optimizer=dataclasses.replace(inner.optimizer, **given))
