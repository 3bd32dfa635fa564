"""What in a Model Garden experiment is not the optimizer's, and what to do with it in JAX."""

from collections.abc import Iterator, Mapping
from typing import Any

from optax_ext._core.errors import shorten
from optax_ext.interop._report import Report, is_number, join
from optax_ext.interop.model_garden._numbers import read_number

# The field of the losses of a task, and of the tasks that have no losses (YOLO and CenterNet).
_L2 = "l2_weight_decay"
_L2_OF_TASKS = "task.weight_decay"
_PRIVACY = "differential_privacy_config"


def beside_the_optimizer(experiment: Mapping[Any, Any]) -> dict[str, Any]:
    """Return by its path what whoever trains with the optimizer has to know."""
    found: dict[str, Any] = {}
    for path in ("trainer.train_steps", "trainer.train_epochs", "runtime.mixed_precision_dtype", _L2_OF_TASKS):
        part, _, field = path.partition(".")
        if isinstance(experiment.get(part), Mapping) and field in experiment[part]:
            found[path] = experiment[part][field]
    return found | dict(_of_task(experiment.get("task"), "task"))


def _of_task(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what a task says, or one of several that are trained together."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = join(path, str(key))
            if key in (_L2, _PRIVACY):
                yield place, item
            elif place == "task.train_data" and isinstance(item, Mapping) and "global_batch_size" in item:
                yield join(place, "global_batch_size"), item["global_batch_size"]
            else:
                yield from _of_task(item, place)


def note_what_is_beside(beside: Mapping[str, Any], report: Report) -> None:
    """Say what to do with each of these."""
    for path, value in beside.items():
        number = read_number(value)
        field = path.rpartition(".")[2]
        if field == _PRIVACY:
            if value is not None:
                text = "clips gradients and adds noise to them, which a recipe does not: set it to null, and chain"
                report.problem(path, f"{text} optax.clip_by_global_norm and optax.add_noise before what make() returns")
        elif field == "mixed_precision_dtype":
            if value in ("float16", "bfloat16"):
                text = f"{value} is for the model: let its layers compute in it, and keep their parameters in float32"
                report.note(path, f"{text} (in Flax, dtype=jnp.{value} and param_dtype=jnp.float32)")
        elif field == _L2 or path == _L2_OF_TASKS:
            _note_l2(path, number, report)
        elif not is_number(number) or number <= 0:
            pass  # 0, the default, is no length of a run and no size of a batch
        elif field == "train_steps":
            text = f"{number} is the length of the run, which a recipe does not have"
            report.note(path, f"{text}: see its rate with `optax-ext describe --steps {number}`")
        elif field == "train_epochs":
            text = f"{number} is the length of the run in epochs, which a recipe does not have"
            report.note(path, f"{text}: the steps of all schedules are counted in batches")
        else:
            report.note(path, f"{number} is the size of the batches that the learning rate and all steps are for")


def _note_l2(path: str, number: Any, report: Report) -> None:
    """Say how the loss of a task is regularized: by `tf.keras.regularizers.l2(l2_weight_decay / 2)` of kernels."""
    if not is_number(number):
        if number is not None:
            report.problem(path, f"must be a number, got {shorten(number)}")
    elif number != 0:
        text = (
            f"is not the optimizer's, and is lost unless you add it to the loss, as Model Garden does: {number} / 2 *"
            " sum(kernel**2) over the kernels of all convolutional and dense layers (most models leave out those of"
            " depthwise convolutions), but no bias or normalization"
        )
        report.note(path, text, surprising=True)
