"""Where the config of an optimizer stands in what Keras saves about a model, or in a file that holds such a thing."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from optax_ext._core.errors import join_keys
from optax_ext._core.writers import foreign_writer

# What Keras saves about the training of a model: `compile_config` in .keras, and `training_config` elsewhere.
_TRAINING = ("compile_config", "training_config")
_OPTIMIZER = ("optimizer", "optimizer_config")
_OF_TRAINING = {
    *("auto_scale_loss", "from_serialized", "jit_compile", "loss", "loss_weights", "metrics", "run_eagerly"),
    *("sample_weight_mode", "steps_per_execution", "weighted_metrics"),
}
_OF_MODELS = {*_TRAINING, "build_config", "keras_version", "model_config", "modelTopology"}
# Words of keys that may change what an optimizer does, so that it is not read without them.
_CHANGES = re.compile(
    "accumulat(?:e|ion)|average|averaging|clip|clipnorm|clipping|clipvalue|decay|ema|learning|lr|momentum|optim"
    "|optimizers?|scheduler?|warmup"
)


class Found(NamedTuple):
    """The config of an optimizer, or the name of its class, and where it stands.

    Args:
      keys: The keys that lead to it.
      data: What stands there.
      beside: Places near it that may change what it does.
    """

    keys: tuple[str, ...]
    data: Any
    beside: tuple[str, ...]

    @property
    def place(self) -> str:
        """The path to it."""
        return join_keys(self.keys)


def is_model(data: Any) -> bool:
    """Whether this is what Keras saves about a model, rather than an optimizer."""
    if not isinstance(data, Mapping):
        return False
    config = data.get("config")
    return bool(_OF_MODELS & data.keys()) or (
        "class_name" in data and isinstance(config, Mapping) and "layers" in config
    )


def find_optimizers(data: Any) -> list[Found]:
    """Return the optimizers of Keras that stand nearest to the root, and what is nearest is at the same depth.

    Args:
      data: What JSON holds, of any depth.

    Returns:
      None of what is within the layers of a model, which may have been compiled on their own.
    """
    level: list[tuple[tuple[str, ...], Any, tuple[str, ...]]] = [((), data, ())]
    while level:
        found: list[Found] = []
        below: list[tuple[tuple[str, ...], Any, tuple[str, ...]]] = []
        for keys, node, beside in level:
            here = list(_optimizers_of(keys, node))
            taken = {keys_of[len(keys)] for keys_of, _ in here}
            beside = (*beside, *(join_keys((*keys, key)) for key in _changing(node) if key not in taken))
            found.extend(Found(keys_of, config, beside) for keys_of, config in here)
            below.extend(((*keys, key), child, beside) for key, child in _children(node))
        if found:
            return found
        level = below
    return []


def is_optimizer(value: Any) -> bool:
    """Whether this is a config of Keras as a whole, and not a model."""
    return foreign_writer(value) in ("keras", "get_config") and not is_model(value)


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        of_class = "class_name" in node
        pairs = ((key, value) for key, value in node.items() if not (of_class and key == "config"))
    else:
        pairs = ((str(index), value) for index, value in enumerate(node)) if isinstance(node, list) else ()
    opened = ((str(key), _open_json(key, value)) for key, value in pairs)
    yield from ((key, value) for key, value in opened if isinstance(value, Mapping | list))


def _open_json(key: Any, value: Any) -> Any:
    """Open JSON inside of JSON or YAML, as an attribute of HDF5 becomes when its file is printed."""
    if key not in (*_TRAINING, *_OPTIMIZER) or not isinstance(value, str) or not value.lstrip().startswith("{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # in which no optimizer is found


def _optimizers_of(keys: tuple[str, ...], node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the optimizers that stand directly under a node, and those in lists and mappings of several."""
    if not isinstance(node, Mapping):
        return
    # Elsewhere a name and a rate are not enough to know that they are Keras's.
    training = bool(keys and keys[-1] in _TRAINING) or bool(_OF_TRAINING & node.keys())
    for key, value in node.items():
        if not isinstance(key, str) or "optimizer" not in key.lower():
            continue
        place, value = (*keys, key), _open_json(key, value)
        if isinstance(value, str):
            if training:
                yield place, value
        elif _is_one(value, training):
            yield from _parts_of(place, value)
        elif isinstance(value, Mapping | list):
            yield from (((*place, name), part) for name, part in _children(value) if _is_one(part, training))


def _is_one(value: Any, training: bool) -> bool:
    return isinstance(value, Mapping) and is_optimizer(value) and (training or "class_name" in value)


def _parts_of(place: tuple[str, ...], optimizer: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield an optimizer, or those in a MultiOptimizer, each of which has layers of its own."""
    config, name = optimizer.get("config"), optimizer.get("class_name")
    specs = config.get("optimizer_specs") if isinstance(config, Mapping) else None
    if isinstance(name, str) and name.endswith("MultiOptimizer") and isinstance(specs, list) and len(specs) > 1:
        for index, spec in enumerate(specs):
            yield (*place, "config", "optimizer_specs", str(index), "optimizer"), spec
    else:
        yield place, optimizer


def _changing(node: Any) -> Iterator[str]:
    for key in node if isinstance(node, Mapping) else ():
        if isinstance(key, str) and key not in _OF_TRAINING:
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", key)
            if any(_CHANGES.fullmatch(word.lower()) for word in words):
                yield key


def compile_adds_loss_scale(model: Any, optimizer: Found) -> bool:
    """Whether Keras puts a loss scale around the optimizer when it compiles a model, before or after it is saved.

    A ``compile_config`` has the optimizer as it was given to ``compile``. Around it, Keras puts a LossScaleOptimizer if
    the dtype policy of the model is mixed_float16. Other formats have the optimizer with it.
    """
    if "compile_config" not in optimizer.keys or not isinstance(model, Mapping):
        return False
    holder: Any = model
    for key in optimizer.keys[: optimizer.keys.index("compile_config")]:
        holder = holder.get(key) if isinstance(holder, Mapping) else None
    training = holder.get("compile_config") if isinstance(holder, Mapping) else None
    if not isinstance(training, Mapping) or training.get("auto_scale_loss") is False:
        return False
    written = optimizer.data.get("class_name") if isinstance(optimizer.data, Mapping) else None
    if isinstance(written, str) and "LossScaleOptimizer" in written:
        return False
    config = holder.get("config")
    if not isinstance(config, Mapping):
        return False
    if "dtype" in config:  # of Keras 3, whose models have a policy of their own
        return _is_mixed(config["dtype"])
    layers = config.get("layers")
    configs = (
        [layer.get("config") for layer in layers if isinstance(layer, Mapping)] if isinstance(layers, list) else []
    )
    return any(_is_mixed(layer.get("dtype")) for layer in configs if isinstance(layer, Mapping))


def _is_mixed(policy: Any) -> bool:
    config = policy.get("config") if isinstance(policy, Mapping) else None
    return (config.get("name") if isinstance(config, Mapping) else policy) == "mixed_float16"
