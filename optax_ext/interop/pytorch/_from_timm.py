"""The arguments of timm's ``train.py`` as a recipe."""

import os
from collections.abc import Mapping
from typing import Any, cast

from optax_ext._core.errors import shorten
from optax_ext._core.public import public
from optax_ext.config import OptimizationConfig, Optimizer, ParamsEma
from optax_ext.interop._files import read_mapping
from optax_ext.interop._report import PLACEHOLDER_RATE, Report
from optax_ext.interop._translation import Translation, warn_about
from optax_ext.interop.pytorch._arguments import Arguments
from optax_ext.interop.pytorch._from_training_arguments import GRAD_SCALER
from optax_ext.interop.pytorch._timm_fields import KNOWN, READ
from optax_ext.interop.pytorch._timm_optimizers import read_optimizer
from optax_ext.interop.pytorch._timm_schedules import read_schedule


@public
def from_timm(
    source: Mapping[str, Any] | str | os.PathLike[str],
    *,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
) -> OptimizationConfig:
    """Read the arguments of timm's ``train.py``, as it trains with them.

    ``source`` is the ``args.yaml`` that ``train.py`` writes beside its checkpoints, or a file for its ``--config``.

    timm changes the learning rate once an epoch: the schedule is then piecewise constant, with a value for each epoch.
    Only with ``sched_on_updates`` is it a smooth one.

    Args:
      source: The mapping, or the path of the file. What is missing has the default of timm 1.0.31.
      steps_per_epoch: Number of updates of the optimizer in an epoch: batches divided by ``grad_accum_steps``, rounded
        up. It is needed for every schedule.
      global_batch_size: Number of examples of an update, on all devices together. It is needed where ``lr`` is not set,
        since timm then scales ``lr_base`` by it.

    Returns:
      A whole recipe: the optimizer with its schedule; an average of the parameters for ``model_ema``, and a loss scale
      for ``amp`` in float16.

    Raises:
      ConfigError: If an argument is not valid or cannot be carried over, or one of the two numbers is needed.

    Warns:
      TranslationWarning: If something is left to do. [`translate_timm`][optax_ext.interop.translate_timm] returns
        these and all other notes.

    Examples:
      >>> from optax_ext import interop
      >>> arguments = {"opt": "sgd", "lr": 0.4, "weight_decay": 0.0, "sched": "step", "decay_epochs": 30, "epochs": 60}
      >>> recipe = interop.from_timm(arguments | {"warmup_epochs": 0, "smoothing": 0.0}, steps_per_epoch=100)
      >>> recipe.optimizer.learning_rate
      PiecewiseConstantDecay(boundaries=(2999,), values=(0.4, 0.04000000000000001))

    Differs from timm:
      A step that loss scaling skips does not advance the schedule. Clipping does not add 1e-6 to the norm.
    """
    translation = translate_timm(source, steps_per_epoch=steps_per_epoch, global_batch_size=global_batch_size)
    warn_about(translation.notes, stacklevel=2)
    return translation.config


@public
def translate_timm(
    source: Mapping[str, Any] | str | os.PathLike[str],
    *,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
) -> Translation[OptimizationConfig]:
    """Read the arguments of timm's ``train.py``, as [`from_timm`][optax_ext.interop.from_timm] does, with all notes.

    Args:
      source: The mapping, or the path of a YAML or JSON file.
      steps_per_epoch: Number of updates of the optimizer in an epoch.
      global_batch_size: Number of examples of an update, on all devices together.

    Returns:
      The recipe with all notes.

    Raises:
      ConfigError: If an argument is not valid or cannot be carried over, or one of the two numbers is needed.

    Examples:
      >>> from optax_ext import interop
      >>> arguments = {"opt": "adamw", "sched": "none", "weight_decay": 0.0, "lr_base": 1e-3, "smoothing": 0.0}
      >>> translation = interop.translate_timm(arguments, global_batch_size=1024)
      >>> print(translation.notes[0])
      lr: is 0.002, lr_base x (1024 / 256) ** 0.5
    """
    report = Report()
    args = Arguments(read_mapping(source, "source"), READ, report)
    args.report_unknown(KNOWN, "timm's train.py")
    base = _base_rate(args, args.count("global_batch_size", global_batch_size))
    rate = read_schedule(args, base, args.count("steps_per_epoch", steps_per_epoch))
    optimizer = read_optimizer(args, rate)
    recipe = _build_recipe(args, optimizer)
    report.finish(str(source) if isinstance(source, str | os.PathLike) else "timm's arguments")
    whole = cast(OptimizationConfig, recipe)  # None only where there was a problem
    return Translation(whole, tuple(report.notes), "timm")


def _base_rate(args: Arguments, global_batch_size: int | None) -> float:
    """Return the learning rate of the optimizer, which timm scales by the batch where it is not set."""
    rate = args.number("lr")
    if rate:
        if rate < 0:
            args.problem("lr", f"must be at least 0, got {rate}")
        return rate
    devices = args.integer("world_size")
    if global_batch_size is None and devices:
        global_batch_size = args.integer("batch_size") * devices * max(1, args.integer("grad_accum_steps"))
    if global_batch_size is None:
        text = "is not set, so that lr_base is scaled by the examples of an update, on all devices: give"
        args.problem("lr", f"{text} global_batch_size, batch_size x devices x grad_accum_steps")
        return PLACEHOLDER_RATE
    size, scale = args.integer("lr_base_size"), args.text("lr_base_scale")
    if scale not in ("", "sqrt", "linear"):
        args.problem("lr_base_scale", f"must be 'sqrt' or 'linear', got {shorten(scale)}")
    adaptive = any(part in args.text("opt").lower() for part in ("ada", "lamb"))
    power = 0.5 if scale == "sqrt" or (not scale and adaptive) else 1.0
    for name in ("lr_base", "lr_base_size"):
        if args.number(name) <= 0:
            args.problem(name, f"must be greater than 0, got {args.number(name)}")
            return PLACEHOLDER_RATE
    rate = args.number("lr_base") * (global_batch_size / size) ** power
    root = " ** 0.5" if power == 0.5 else ""
    args.note("lr", f"is {rate:g}, lr_base x ({global_batch_size} / {size}){root}")
    return rate


def _build_recipe(args: Arguments, optimizer: Optimizer | None) -> OptimizationConfig | None:
    smoothing = args.number("smoothing")
    if smoothing:
        text = f"is part of the loss: give it labels of optax.smooth_labels(one_hot, {smoothing:g})"
        args.note("smoothing", text)
    amp = args.flag("amp") or args.flag("native_amp") or args.flag("apex_amp")
    dtype = args.text("amp_dtype").removeprefix("torch.")
    loss_scale = GRAD_SCALER if amp and dtype in ("float16", "half") else None
    fields: dict[str, Any] = {"optimizer": optimizer, "loss_scale": loss_scale, "ema": _read_ema(args)}
    fields["accumulate_steps"] = max(1, args.integer("grad_accum_steps"))  # as train.py does
    return optimizer and args.report.build(OptimizationConfig, fields, "", {})


def _read_ema(args: Arguments) -> ParamsEma | None:
    if not args.flag("model_ema"):
        return None
    if args.flag("model_ema_warmup"):
        args.problem("model_ema_warmup", "raises the decay by a formula that no schedule here has: set it to false")
    args.note("model_ema", "averages batch statistics too, for which the training loop needs a second make()")
    fields = {
        "average_decay": args.number("model_ema_decay"),
        "start_step": 2,  # after the first update the average is the parameters
        "dynamic_decay": False,
        "trainable_weights_only": False,
    }
    return args.report.build(ParamsEma, fields, "", {"average_decay": "model_ema_decay"})
