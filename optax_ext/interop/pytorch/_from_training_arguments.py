"""``TrainingArguments`` of Hugging Face's transformers as a recipe."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from optax_ext._core.errors import ConfigError, Problem, did_you_mean, join_words, shorten
from optax_ext._core.public import public
from optax_ext.config import DynamicLossScale, OptimizationConfig, Optimizer
from optax_ext.interop._files import read_mapping
from optax_ext.interop._report import PLACEHOLDER_RATE, Report
from optax_ext.interop._translation import Translation, warn_about
from optax_ext.interop.pytorch._arguments import Arguments
from optax_ext.interop.pytorch._trainer_fields import KNOWN, READ
from optax_ext.interop.pytorch._trainer_optimizers import read_optimizer
from optax_ext.interop.pytorch._trainer_schedules import KINDS, REFUSED, Asked, build_schedule
from optax_ext.schedules import Schedule

GRAD_SCALER = DynamicLossScale(initial_scale=2.0**16)  # torch.amp.GradScaler: x 2 after 2000 steps, x 0.5 at a skip


@public
def from_training_arguments(
    source: Mapping[str, Any] | str | os.PathLike[str], *, num_training_steps: int | None = None
) -> OptimizationConfig:
    """Read ``TrainingArguments`` or ``Seq2SeqTrainingArguments`` of transformers, as the Trainer trains with them.

    ``source`` is what ``args.to_dict()`` returns, or a JSON or YAML file with the same keys, such as a script of TRL is
    given. ``training_args.bin`` is a pickle, which is not opened: it could run any code. Where it is your own,
    ``json.dump(args.to_dict(), file)`` writes JSON of what ``torch.load`` makes of it.

    Args:
      source: The mapping, or the path of the file. What is missing has the default of transformers.
      num_training_steps: Number of steps of the optimizer in the whole training, which the Trainer logs as "Total
        optimization steps" and writes as ``max_steps`` to ``trainer_state.json``. It is needed where the schedule
        depends on it and the arguments say epochs rather than ``max_steps``.

    Returns:
      A whole recipe: the optimizer with its schedule, and a loss scale where ``fp16`` is set.

    Raises:
      ConfigError: If an argument is not valid or cannot be carried over, or ``num_training_steps`` is needed.

    Warns:
      TranslationWarning: If an argument has no effect, or a part of the training is not the optimizer's.
        [`translate_training_arguments`][optax_ext.interop.translate_training_arguments] returns these and all other
        notes.

    Examples:
      >>> from optax_ext import interop
      >>> arguments = {"learning_rate": 2e-5, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "weight_decay": 0.01}
      >>> recipe = interop.from_training_arguments(arguments, num_training_steps=1000)
      >>> recipe.optimizer.learning_rate
      LinearWarmup(after=CosineDecay(initial_learning_rate=2e-05, decay_steps=900, offset=100), warmup_steps=100)
      >>> recipe.optimizer.exclude_from_weight_decay
      ('rank <= 1', '(?i:bias|norm)')

    Differs from transformers:
      The Trainer excludes biases and normalizations from weight decay by the names and classes of modules. Here they
      are parameters with at most one axis, and those with ``bias`` or ``norm`` in their paths: so are a scalar such as
      CLIP's ``logit_scale``, and the scales of RMSNorm, which decay in transformers before version 5. Clipping does not
      add 1e-6 to the norm.
    """
    translation = translate_training_arguments(source, num_training_steps=num_training_steps)
    warn_about(translation.notes, stacklevel=2)
    return translation.config


@public
def translate_training_arguments(
    source: Mapping[str, Any] | str | os.PathLike[str], *, num_training_steps: int | None = None
) -> Translation[OptimizationConfig]:
    """Read ``TrainingArguments``, as [`from_training_arguments`][optax_ext.interop.from_training_arguments] does.

    Args:
      source: The mapping, or the path of a JSON or YAML file.
      num_training_steps: Number of steps of the optimizer in the whole training.

    Returns:
      The recipe with all notes.

    Raises:
      ConfigError: If an argument is not valid or cannot be carried over, or ``num_training_steps`` is needed.

    Examples:
      >>> from optax_ext import interop
      >>> translation = interop.translate_training_arguments({"max_steps": 100, "label_smoothing_factor": 0.1})
      >>> print(translation.notes[0])
      label_smoothing_factor: is part of the loss: give it labels of optax.smooth_labels(one_hot, 0.1)
    """
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() in (".bin", ".pt", ".pkl"):
        text = (
            "is a pickle, which can run any code and is not opened: where it is your own and transformers is installed,"
        )
        call = "json.dump(args.to_dict(), open('training_args.json', 'w'))"
        args = f"args = torch.load({str(source)!r}, weights_only=False)"
        raise ConfigError(str(source), [Problem("", f"{text} write JSON of it with {args}; {call}")])
    report = Report()
    args = Arguments(read_mapping(source, "source"), READ, report)
    args.report_unknown(KNOWN, "TrainingArguments")
    total = _total_steps(args, args.count("num_training_steps", num_training_steps))
    rate = _read_schedule(args, total)
    optimizer = read_optimizer(args, rate)
    _note_the_rest(args)
    recipe = _build_recipe(args, optimizer)
    report.finish(str(source) if isinstance(source, str | os.PathLike) else "training arguments")
    whole = cast(OptimizationConfig, recipe)  # None only where there was a problem
    return Translation(whole, tuple(report.notes), "training_arguments")


def _total_steps(args: Arguments, given: int | None) -> int | None:
    """Return the steps of the training, from the arguments or as they were given."""
    written = args.integer("max_steps")
    if written <= 0:
        return given
    if given not in (None, written):
        args.problem("max_steps", f"is {written}, but num_training_steps is {given}: leave that out")
    return written


def _read_schedule(args: Arguments, total: int | None) -> Schedule | float:
    name = args.text("lr_scheduler_type").removeprefix("SchedulerType.").lower()
    if name in REFUSED:
        args.problem("lr_scheduler_type", f"{name!r} {REFUSED[name]}")
        return PLACEHOLDER_RATE
    if name not in KINDS:
        near = did_you_mean(name, KINDS)
        args.problem("lr_scheduler_type", f"{shorten(name)} is not one of transformers{near}: {join_words(KINDS)}")
        return PLACEHOLDER_RATE
    kwargs = _read_kwargs(args)
    ratio = _warmup_ratio(args)
    if total is None and (ratio > 0 or (KINDS[name].needs_total and "num_stable_steps" not in kwargs)):
        epochs = f"num_train_epochs ({shorten(args.value('num_train_epochs'))})"
        text = f"is not set, and how many steps {epochs} makes depends on the data: give num_training_steps"
        args.problem("max_steps", f"{text}, which the Trainer logs as 'Total optimization steps'")
    peak = args.number("learning_rate")
    if peak < 0:
        args.problem("learning_rate", f"must be at least 0, got {peak}")
    warmup = math.ceil((total or 0) * ratio) if ratio > 0 else int(args.number("warmup_steps"))
    return build_schedule(name, Asked(peak, warmup, total, kwargs, args.report))


def _warmup_ratio(args: Arguments) -> float:
    """Return the warm-up as a part of the training; 0 if it is in steps."""
    steps, ratio = args.number("warmup_steps"), args.number("warmup_ratio")
    if steps < 0:
        args.problem("warmup_steps", f"must be at least 0, got {steps}")
    if not 0 <= ratio <= 1:
        args.problem("warmup_ratio", f"must be in [0, 1], got {ratio}")
    if steps > 0 and ratio > 0:
        args.note("warmup_ratio", "has no effect, as in transformers, since warmup_steps is set", surprising=True)
    if 0 < steps < 1:  # of transformers 5
        return steps
    return 0.0 if steps > 0 else ratio


def _read_kwargs(args: Arguments) -> Mapping[str, Any]:
    kwargs = args.value("lr_scheduler_kwargs")
    if isinstance(kwargs, str):
        with contextlib.suppress(ValueError):
            kwargs = json.loads(kwargs or "{}")
    if isinstance(kwargs, Mapping):
        return kwargs
    if kwargs is not None:
        args.problem("lr_scheduler_kwargs", f"must be a mapping, got {shorten(kwargs)}")
    return {}


def _note_the_rest(args: Arguments) -> None:
    """Say what to do with arguments that change the training, and are not the optimizer's."""
    smoothing, noise = args.number("label_smoothing_factor"), args.number("neftune_noise_alpha")
    if smoothing:
        text = f"is part of the loss: give it labels of optax.smooth_labels(one_hot, {smoothing:g})"
        args.note("label_smoothing_factor", text, surprising=True)
    if noise:
        args.note("neftune_noise_alpha", "is noise on embeddings, which the model adds", surprising=True)
    deepspeed = args.value("deepspeed")
    if isinstance(deepspeed, Mapping) and {"optimizer", "scheduler"} & deepspeed.keys():
        text = "has an optimizer or a scheduler of DeepSpeed's own: take it out, and describe it by the other arguments"
        args.problem("deepspeed", text)
    elif deepspeed:
        text = "may bring an optimizer, a schedule, clipping and a loss scale of its own, which are not read"
        args.note("deepspeed", text, surprising=True)
    accelerator = args.value("accelerator_config")
    accumulation = accelerator.get("gradient_accumulation_kwargs") if isinstance(accelerator, Mapping) else None
    if isinstance(accumulation, Mapping) and accumulation.get("num_steps") is not None:
        text = "must not have num_steps in gradient_accumulation_kwargs: write it as gradient_accumulation_steps"
        args.problem("accelerator_config", text)
    if args.flag("bf16"):
        args.note("bf16", "is for the model to compute in, and needs no loss scale")


def _build_recipe(args: Arguments, optimizer: Optimizer | None) -> OptimizationConfig | None:
    loss_scale = GRAD_SCALER if args.flag("fp16") else None
    steps = args.integer("gradient_accumulation_steps")
    fields: dict[str, Any] = {"optimizer": optimizer, "loss_scale": loss_scale, "accumulate_steps": steps}
    names = {"accumulate_steps": "gradient_accumulation_steps"}
    return optimizer and args.report.build(OptimizationConfig, fields, "", names)
