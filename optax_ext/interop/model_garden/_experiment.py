"""The parts of a Model Garden experiment: where its optimizer is, and that no other place has one without a word."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import did_you_mean, join_words, shorten
from optax_ext.interop._report import Report, join
from optax_ext.interop.model_garden._sections import SECTIONS

_PARTS = ("task", "trainer", "runtime")
_OPTIMIZATION = (*SECTIONS, "ema")
_NAMES = ("optimizer_config", *_OPTIMIZATION)  # of what is the optimizer's, wherever it stands
_CLOSE, _VERY_CLOSE = 0.75, 0.87  # ratios of difflib; one letter wrong of eight, or two swapped, is 0.88

# The fields of Model Garden 2.20, those of its multitask trainer included, and what some projects add to them.
_FIELDS: dict[str, tuple[str, ...]] = {
    "trainer": (
        *("optimizer_config", "train_steps", "train_epochs", "steps_per_loop", "summary_interval"),
        *("checkpoint_interval", "max_to_keep", "continuous_eval_timeout", "validation_steps", "validation_interval"),
        *("train_tf_while_loop", "train_tf_function", "eval_tf_function", "eval_tf_while_loop", "allow_tpu_summary"),
        *("best_checkpoint_export_subdir", "best_checkpoint_eval_metric", "best_checkpoint_metric_comp"),
        *("loss_upper_bound", "recovery_begin_steps", "recovery_max_trials", "validation_summary_subdir"),
        *("preemption_on_demand_checkpoint", "trainer_type", "task_sampler"),
    ),
    "runtime": (
        *("mixed_precision_dtype", "loss_scale", "distribution_strategy", "enable_xla", "gpu_thread_mode"),
        *("dataset_num_private_threads", "per_gpu_thread_count", "tpu", "num_gpus", "worker_hosts", "task_index"),
        *("all_reduce_alg", "num_packs", "run_eagerly", "batchnorm_spatial_persistent", "num_cores_per_replica"),
        *("tpu_enable_xla_dynamic_padder", "default_shard_dim", "use_tpu_mp_strategy"),
    ),
}
_TOP = (*_PARTS, "eval_tasks")
# What says something about the optimizer. The "ema" of _NAMES is too short to be close to.
_MATTERS = {"trainer": ("optimizer_config", "task", "runtime"), "runtime": ("mixed_precision_dtype", "loss_scale")}


class Experiment(NamedTuple):
    """The optimizer_config of an experiment, its runtime, and all of it; the last two are empty for the first alone."""

    optimization: Mapping[Any, Any]
    runtime: Mapping[Any, Any]
    whole: Mapping[Any, Any]


def read_experiment(config: Mapping[Any, Any], report: Report) -> Experiment:
    """Find the parts in an experiment, in a trainer alone, or in an optimizer_config alone.

    What names a part of the optimizer and stands elsewhere is a problem, and is read even so: what else is wrong in it
    is told at once.
    """
    if any(key in config for key in _PARTS):
        whole, parts = config, {"": config, **{name: as_mapping(config.get(name), name, report) for name in _FIELDS}}
    elif "optimizer_config" in config:
        whole, parts = {"trainer": config}, {"": {}, "trainer": config, "runtime": {}}
    else:
        return Experiment(_known_sections(config, report), {}, {})
    optimization = dict[Any, Any]()
    for name, part in parts.items():
        path = "" if part is config else name
        if name == "trainer" and "optimizer_config" in part:
            optimization |= _known_sections(_optimizer_config(part["optimizer_config"], report), report)
            part = {key: part[key] for key in part if key != "optimizer_config"}
        optimization = _misplaced(part, path, report) | optimization
        _check_names({key: part[key] for key in part if key not in _NAMES}, name, path, report)
    return Experiment(optimization, parts["runtime"], whole)


def as_mapping(value: Any, path: str, report: Report) -> Mapping[Any, Any]:
    """Return a mapping, or an empty one for null; anything else is a problem."""
    if isinstance(value, Mapping):
        return value
    if value is not None:
        report.problem(path, f"must be a mapping, got {shorten(value)}")
    return {}


def _optimizer_config(value: Any, report: Report) -> Mapping[Any, Any]:
    if value is None:
        report.problem("optimizer_config", "is null, and TensorFlow cannot build an optimizer from it either")
    return as_mapping(value, "optimizer_config", report)


def _known_sections(optimization: Mapping[Any, Any], report: Report) -> dict[Any, Any]:
    """Return the sections of an optimizer_config; any other is a problem."""
    for key, value in optimization.items():
        if key not in _OPTIMIZATION and not (key == "type" and value is None):  # which some projects' dumps have
            hint = did_you_mean(key, (*_NAMES, *_PARTS))
            report.problem(str(key), f"unknown section{hint}, accepted: {join_words(_OPTIMIZATION)}")
    return {key: value for key, value in optimization.items() if key in _OPTIMIZATION}


def _misplaced(part: Mapping[Any, Any], path: str, report: Report) -> dict[str, Any]:
    """Return the sections that stand outside of the optimizer_config; each of them is a problem."""
    found: dict[str, Any] = {}
    where = f"in {path}" if path else "outside of trainer.optimizer_config"
    for key in _NAMES:
        if key not in part:
            continue
        value = part[key]
        holds_all = key == "optimizer_config" or (isinstance(value, Mapping) and any(one in value for one in SECTIONS))
        if key == "optimizer" and holds_all:
            text = "holds a whole optimizer_config: move what is under it to trainer.optimizer_config"
        elif holds_all:
            text = "move it to trainer.optimizer_config"
        else:
            text = f"move it to trainer.optimizer_config.{key}"
        report.problem(join(path, key), f"is not read {where}, and Model Garden refuses it there: {text}")
        if not holds_all:
            found[key] = value
        elif isinstance(value, Mapping):
            found |= _known_sections(value, report)
    return found


def _check_names(part: Mapping[Any, Any], name: str, path: str, report: Report) -> None:
    """Refuse names that are misspelled, or hold a part of the optimizer; note those that only their project knows."""
    known = _FIELDS.get(name, _TOP)
    foreign: list[str] = []
    for key, value in part.items():
        if key in known:
            continue
        near = _meant(str(key), name, known)
        inside = "" if near else next(_optimizers_in(value, join(path, str(key))), "")
        if near:
            report.problem(join(path, str(key)), f"unknown field (did you mean {near!r}?)")
        elif inside:
            text = f"holds an optimizer at {inside}, which is not read: give the optimizer in trainer.optimizer_config"
            report.problem(join(path, str(key)), text)
        else:
            foreign.append(str(key))
    if foreign:
        are = "is not a field" if len(foreign) == 1 else "are not fields"
        report.note(path, f"{join_words(foreign)} {are} of Model Garden's own and not read")


def _meant(key: str, name: str, known: Collection[str]) -> str:
    """Return the field that a name is close to; what matters for an optimizer need not be as close as the rest."""
    for names, ratio in ((_MATTERS.get(name, _PARTS), _CLOSE), (_NAMES[:-1], _CLOSE), (known, _VERY_CLOSE)):
        if near := difflib.get_close_matches(key.lower(), names, n=1, cutoff=ratio):
            return near[0]
    return ""


def _optimizers_in(value: Any, path: str) -> Iterator[str]:
    """Yield the path of each mapping that is named as a part of the optimizer."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            inside = join(path, str(key))
            if key in _NAMES and isinstance(item, Mapping):
                yield inside
            yield from _optimizers_in(item, inside)
