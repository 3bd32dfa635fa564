"""Real configs of Keras, transformers, tensorflow_addons and Model Garden: the numbers of what wrote them."""

import json
import warnings
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from optax_ext import Schedule, config, interop

DATA = json.loads((Path(__file__).parent / "data" / "corpus.json").read_text())
RECORDS = {record["id"]: record for record in DATA["records"]}
KNOWN = [name for name, record in RECORDS.items() if "by" in record]
UNKNOWN = [name for name, record in RECORDS.items() if "by" not in record]


def nested(arrays):
    tree = {}
    for path, array in arrays.items():
        module, name = path.split("/")
        tree.setdefault(module, {})[name] = np.asarray(array, np.float32)
    return tree


PARAMS = nested(DATA["params"])
GRADS = [nested(grads) for grads in DATA["grads"]]


def read(record):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        if record["kind"].startswith("model_garden"):
            return interop.from_model_garden(record["config"])
        return interop.from_keras(record["config"], class_name=record.get("class_name"))


def flat(tree):
    arrays = (tree[module][name] for module, name in (path.split("/") for path in DATA["names"]))
    return np.concatenate([np.ravel(array) for array in arrays])


@pytest.mark.parametrize("name", KNOWN)
def test_rates_and_steps_are_those_of_the_real_software(name):
    record = RECORDS[name]
    imported = read(record)
    rate = imported if isinstance(imported, Schedule) else imported.learning_rate_at
    if rates := record.get("learning_rate"):
        expected = np.array(list(rates.values()))
        # Near 0 a rate is a difference of larger ones, and has the rounding of these in float32.
        rounding = np.spacing(np.float32(expected.max()))
        ours = rate(np.array([int(step) for step in rates]))
        np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=rounding)
    if "params" not in record:
        return
    tx, params = imported.make(), PARAMS
    state, start = tx.init(params), flat(params)
    scaled = getattr(imported, "loss_scale", None) is not None
    for step, (grads, after) in enumerate(zip(GRADS, record["params"], strict=True), start=1):
        grads = jax.tree.map(lambda g: g * np.float32(state.loss_scale), grads) if scaled else grads  # noqa: B023
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        ours, expected = flat(params), np.array(after, np.float32)
        # Each step rounds the parameter to float32 once, which is all that is seen of the smallest rates.
        rounding = step * np.spacing(np.maximum(np.abs(start), np.abs(expected)))
        np.testing.assert_array_less(np.abs(ours - expected), 1e-5 * np.abs(expected - start) + 1.01 * rounding)


REASONS = {
    "k038": "class_name: SWA has no counterpart here: read its `optimizer`",
    "k061": "class_name: RectifiedAdam has no counterpart here: optax.radam",
    "k070": "learning_rate.class_name: 'kgcnn>LinearWarmupExponentialDecay' is a class of another package",
    "k115": "learning_rate.class_name: 'kgcnn>LinearWarmupExponentialDecay' is a class of another package",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_nobody_here_knows_is_refused_with_all_reasons(name):
    with pytest.raises(config.ConfigError) as caught:
        read(RECORDS[name])
    assert REASONS.get(name, "") in str(caught.value)


@pytest.mark.parametrize("name", [name for name in UNKNOWN if name in ("k038", "k070", "k115")])
def test_what_is_refused_loads_once_its_reason_is_gone(name):
    data = RECORDS[name]["config"]
    data = data["optimizer"] if name == "k038" else json.loads(json.dumps(data))
    if name != "k038":
        fields = data["config"]["optimizer"]["config"] if name == "k070" else data["config"]
        fields["learning_rate"] = 0.001
    read({"kind": "keras", "config": data}).make()
