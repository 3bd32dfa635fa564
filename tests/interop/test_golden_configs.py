"""The configs whose steps the parity tests compare, read as the importers read them."""

import pytest

from optax_ext import interop
from tests.parity import golden_data, test_keras

CASES = [case for case in golden_data.load("keras")["cases"] if case["generation"] != "torch" and "exclude" not in case]
ENVELOPES = {
    "keras 3": ({"module": "keras.optimizers"}, {}),
    "tf_keras": ({}, {"jit_compile": False}),
    "tf_keras legacy": ({"module": "keras.optimizers.legacy"}, {}),
    "tensorflow_addons": ({"registered_name": "Addons>"}, {}),
}


def serialized(value):
    if isinstance(value, dict) and value.keys() == {"class", "config"}:
        return {"class_name": value["class"], "config": serialized(value["config"])}
    return {key: serialized(item) for key, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['generation']}-{case['class']}")
def test_each_config_is_read_as_what_takes_its_steps(case):
    envelope, more = ENVELOPES[case["generation"]]
    data = {"class_name": case["class"], "config": serialized(case["config"]) | more} | envelope
    if "registered_name" in data:
        data["registered_name"] += case["class"]
    assert interop.from_keras(data) == test_keras.make_schema(case)
