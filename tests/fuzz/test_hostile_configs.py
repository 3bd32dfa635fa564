"""Whatever a config holds, reading it ends soon in a config or in one ConfigError, and what was read survives."""

import copy
import json
import tempfile
import tracemalloc
import warnings
from pathlib import Path

import jax.numpy as jnp
import optax
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optax_ext import config, interop
from optax_ext._core import files, yaml_files

ROOT = Path(__file__).parents[2]
RECIPES = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "examples" / "configs").glob("*.yaml"))]
RECIPES.append(
    {
        "type": "lars",
        "learning_rate": 0.1,
        "exclude_from_weight_decay": ["rank <= 1"],
        "separate_norms": True,
        "max_ratio": 10,
        "stacked_axes": {"kernel": 0, "bias": [0]},
    }
)
DATA = ROOT / "tests" / "interop" / "data"
KERAS = [case["serialized"] for case in json.loads((DATA / "configs.json").read_text())["cases"]]
MODEL_GARDEN = [
    {
        "runtime": {key: record[key] for key in ("mixed_precision_dtype", "loss_scale") if key in record},
        "trainer": {"optimizer_config": record["optimizer_config"]},
    }
    for record in json.loads((DATA / "model_garden.json").read_text())["records"]
]
PARAMS = {"conv1": {"kernel": jnp.ones(2), "bias": jnp.ones(1)}}
quietly = settings(suppress_health_check=list(HealthCheck))


def read(source, **arguments):
    """Call a reader; return what it read, or None for a ConfigError that says something."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        warnings.simplefilter("ignore", FutureWarning)  # `re` on sets that other engines nest
        try:
            return source(**arguments)
        except config.ConfigError as error:
            assert error.problems
            assert all(problem.message and problem.path.isprintable() for problem in error.problems)
            assert str(error)
            return None


def check(found):
    """Write what was read and read it back; make it, and initialise it or be told why not."""
    if found is None:
        return
    data = config.to_dict(found)
    assert config.from_dict(data) == found
    assert config.from_dict(json.loads(files.json_text(data))) == found
    assert config.from_dict(yaml_files.read_yaml(yaml_files.yaml_text(data), "yaml")) == found
    if isinstance(found, config.OptimizationConfig | config.Optimizer):
        transformation = found.make()
        assert isinstance(transformation, optax.GradientTransformation)
        try:
            transformation.init(PARAMS)
        except ValueError as error:
            expected = ("matches none of the 2 parameters", "match none", "must have axis", "must agree", "counts once")
            assert any(text in str(error) for text in expected)


def read_bytes(content, suffix, reader):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"any{suffix}")
        path.write_bytes(content)
        return read(lambda: reader(path))


def read_all(data):
    """Give data to everything that reads data, and return what it was read as."""
    yield read(lambda: config.from_dict(data))
    yield read(lambda: interop.from_keras(data))
    yield read(lambda: interop.from_keras(data, class_name="LARS", translate_patterns=False))
    yield read(lambda: interop.translate({"compile_config": {"optimizer": data}}).config)
    yield read(lambda: interop.from_model_garden(data))
    yield read(lambda: interop.from_model_garden(data, MODEL_GARDEN[0]))
    yield read(lambda: interop.from_model_garden(MODEL_GARDEN[0], data, translate_patterns=False))


# ---------------------------------------------------------------------------------------------------------
# Bytes and text

WORDS = [
    "type", "optimizer", "lars", "learning_rate", "class_name", "config", "trainer", "optimizer_config", "runtime",
    "ema",
    "loss_scale", "constant", "cosine_decay", "1e-3", "0.1", ".inf", "-.nan", "true", "null", "~", "<<", "&a",
    "*a", "!!int",
    "!!binary", "!!timestamp", "!!set", "!!omap", "!!python/tuple", "!!python/object/apply:os.system", "!<x>",
    "---", "...",
    "%YAML 1.1", "|", ">", ">-", "? ", ": ", "- ", ", ", "[", "]", "{", "}", '"', "'", "#", "\n", "\n  ", "\n    ",
    "\t",
    '"\\ud800"', '"\\x00"', "0x10", "9" * 5000, "\ufeff", "\u2028", "\x85", "é", "@", "`",
    "exclude_from_weight_decay", "bias",
]  # fmt: skip
texts = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=25).map("".join)
contents = st.binary(max_size=300) | texts.map(lambda text: text.encode("utf-8", "replace"))
suffixes = st.sampled_from([".json", ".yaml", ".yml", ".YAML", ".txt", "", ".keras", ".h5", ".pb", ".md"])


def check_any_file(content, suffix):
    check(read_bytes(content, suffix, config.load))
    check(read_bytes(content, suffix, interop.from_model_garden))
    check(read_bytes(content, suffix, interop.from_file))


@settings(quietly, max_examples=300)
@given(content=contents, suffix=suffixes)
def test_any_bytes_in_a_file_load_or_are_a_config_error(content, suffix):
    check_any_file(content, suffix)


@pytest.mark.slow
@settings(quietly, max_examples=20_000, derandomize=False)
@given(content=contents, suffix=suffixes)
def test_many_bytes_in_a_file_load_or_are_a_config_error(content, suffix):
    """`pytest -m slow tests/fuzz -k many_bytes`; last run: 20,000 files, each by two readers, in 176 s: passed."""
    check_any_file(content, suffix)


# ---------------------------------------------------------------------------------------------------------
# Data, from nothing and from real recipes

HUGE = [10**400, -(2**31), 2**31, 2**63, 1e308, 5e-324, -0.0, float("nan"), float("inf"), float("-inf")]
TEXTS = ["", "dynamic", "x" * 5000, "\x00\x1b", "\ud800", "1e-3", "(a+)+$", "(?=(a+)+$)x", "(", "9" * 5000]
OTHER = [None, True, b"bytes", 1j, object, {1, 2}, range(3), (), [], {}, ["bias"], [[]], [None], {"type": []}]
PARTS = [{"type": "constant", "learning_rate": 0.5}, {"class_name": "LARS", "config": {}}]
PARTS += [{"class_name": "__tensor__", "config": 5}, {"class_name": "__tuple__", "items": 5}]
too_long = st.just(5000).map(
    lambda digits: -(10**digits)
)  # which Python refuses to write out, Hypothesis's own repr too
ODD = (
    st.one_of(
        *map(st.sampled_from, (HUGE, TEXTS, OTHER, PARTS)), too_long, st.integers(), st.floats(), st.text(max_size=5)
    )
).map(copy.deepcopy)
KEYS = ["type", "optimizer", "name", "config", "class_name", "learning_rate", "offset", "warmup_steps", "decay_steps"]
KEYS += ["stacked_axes", "^blocks/", "rank <= 1"]
odd_keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from([None, 1, True, 1.5, b"type", (1, 2), "", "\n", "\x00", "\ud800", "k" * 5000, "a.b"]),
    st.text(max_size=4),
    too_long,
)
anything = st.recursive(
    ODD, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(odd_keys, inner, max_size=4), max_leaves=12
)


def containers(data):
    """Return the dicts and lists of a recipe that have something in them, from the root down."""
    children = list(data.values() if isinstance(data, dict) else data if isinstance(data, list) else ())
    return ([data] if children else []) + [found for child in children for found in containers(child)]


@st.composite
def mutated(draw, recipes):
    data = copy.deepcopy(draw(st.sampled_from(recipes)))
    for _ in range(draw(st.integers(1, 3))):
        holders = containers(data)
        if not holders:
            break
        holder = draw(st.sampled_from(holders))
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
        action = draw(
            st.sampled_from(["odd", "odd", "delete", "duplicate", "swap", "wrap", "deepen", "rename", "graft"])
        )
        if action == "odd":
            holder[key] = draw(ODD)
        elif action == "delete":
            del holder[key]
        elif action == "duplicate" and isinstance(holder, dict):
            holder[draw(odd_keys)] = copy.deepcopy(holder[key])
        elif action == "duplicate":
            holder.append(copy.deepcopy(holder[key]))
        elif action == "swap":
            holder[key], holder[other] = holder[other], holder[key]
        elif action == "wrap":
            holder[key] = draw(
                st.sampled_from([[holder[key]], {"config": holder[key]}, {"after": holder[key]}, repr_of(holder[key])])
            )
        elif action == "deepen":
            for _ in range(draw(st.sampled_from([5, 33, 60]))):
                holder[key] = {"after": holder[key]}
        elif action == "rename" and isinstance(holder, dict):
            holder[draw(odd_keys)] = holder.pop(key)
        elif action == "graft":
            holder[key] = copy.deepcopy(draw(st.sampled_from(holders)))
    return data


def check_data(data):
    before = copy.deepcopy(data)
    for found in read_all(data):
        check(found)
    assert repr_of(data) == repr_of(before), "what is read is left as it is"


def repr_of(data):
    try:
        return repr(data)
    except (ValueError, RecursionError):  # integers that Python does not write out
        return None


mutants = mutated(RECIPES) | mutated(KERAS) | mutated(MODEL_GARDEN)


@settings(quietly, max_examples=200)
@given(data=anything)
def test_any_data_is_read_or_is_a_config_error(data):
    check_data(data)


@pytest.mark.filterwarnings("ignore:.*learning_rate .* is 0 at every step:UserWarning")
@pytest.mark.filterwarnings("ignore:.*climbs to a schedule that is 0:UserWarning")  # as some of these do
@settings(quietly, max_examples=400)
@given(data=mutants)
def test_any_mutant_of_a_real_recipe_is_read_or_is_a_config_error(data):
    check_data(data)


@pytest.mark.filterwarnings("ignore:.*learning_rate .* is 0 at every step:UserWarning")
@pytest.mark.filterwarnings("ignore:.*climbs to a schedule that is 0:UserWarning")  # as some of these do
@pytest.mark.slow
@settings(quietly, max_examples=10_000, derandomize=False)
@given(data=anything | mutants)
def test_many_data_are_read_or_are_a_config_error(data):
    """`pytest -m slow tests/fuzz -k many_data`; last run: 10,000 inputs, each by six readers, in 107 s: passed."""
    check_data(data)


# ---------------------------------------------------------------------------------------------------------
# Bounds by construction: each of these would take all time or memory if something did not limit it


def nested(levels, leaf, key="after"):
    for _ in range(levels):
        leaf = {key: leaf} if key else [leaf]
    return leaf


LOOP = {}
LOOP["after"] = LOOP
LIST_LOOP = []
LIST_LOOP.append(LIST_LOOP)
WIDE = [0] * 1000
ENDLESS = {
    "10,000 mappings in each other": nested(10_000, 1),
    "10,000 lists in each other": nested(10_000, 1, ""),
    "a mapping in itself": LOOP,
    "a list in itself": LIST_LOOP,
    "a billion values": nested(1, [[WIDE] * 1000] * 1000),
    "an integer of 10,000 digits": {"type": "constant", "learning_rate": 10**10_000},
    "a key of 10,000 digits": {"type": "constant", 10**10_000: 1},
    "a type of 10,000 digits": {"type": 10**10_000, "class_name": 10**10_000, "optimizer": {"type": 10**10_000}},
    "10,000 unknown fields": {"type": "constant"} | {f"field_{index}": 1 for index in range(10_000)},
    "1,000 wrong keys below a long one": {"x" * 90_000: dict.fromkeys(range(1_000))},
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_refused(what):
    for found in read_all(ENDLESS[what]):
        assert found is None


@pytest.mark.parametrize("reader", [config.from_dict, interop.from_keras, interop.from_model_garden])
def test_problems_below_a_long_key_do_not_take_its_length_each(reader):
    """Were each of the 30,000 to keep its path, that would be 2.7 GB."""
    tracemalloc.start()
    try:
        with pytest.raises(config.ConfigError) as raised:
            reader({"optimizer": {"x" * 90_000: dict.fromkeys(range(30_000))}})
        assert len(raised.value.problems) == 30_000
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 200e6


@pytest.mark.parametrize("place", ["type", "clipnorm", "epsilon", "momentum"])
def test_an_integer_that_python_does_not_write_out_is_refused_wherever_it_is(place):
    huge = -(10**5000)
    fields = {"learning_rate": 0.1, "jit_compile": False, place: huge}
    recipe = {
        "optimizer": {"type": "sgd_experimental", "sgd_experimental": {place: huge}, place: huge, "momentum": 0.9}
    }
    for data in ({"optimizer": fields}, {"class_name": "SGD", "config": fields}, recipe):
        for found in read_all(data):
            assert found is None
    with pytest.raises(config.ConfigError, match="optimizer.type: must be a finite number, got int too long"):
        config.from_dict({"optimizer": {"type": huge}})


@pytest.mark.parametrize("value", PARTS)
def test_what_looks_like_kerass_own_and_is_not_is_refused(value):
    fields = {"learning_rate": value, "momentum": "much"}
    assert read(lambda: interop.from_keras({"class_name": "SGD", "config": fields})) is None


def test_messages_are_short_whatever_the_file():
    long = "x" * 90_000
    for text in (
        f"!{long}",
        f"a: !!{long} b",
        f"*{long}",
        f"{{{long}: 1, {long[:4000]}: 2}}",
        f"type: {long}",
        f"a: !!bool {long}",
    ):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "recipe.yaml")
            path.write_text(text[:99_000])
            with pytest.raises(config.ConfigError) as raised:
                config.load(path)
            assert all(len(problem.message) < 2000 for problem in raised.value.problems)
