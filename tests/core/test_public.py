"""Where public names live: in the room that exports them, for tracebacks, pickles, `help` and the registry."""

import dataclasses
import importlib
import inspect
import pickle
import pydoc
import subprocess
import sys
import typing

import jax
import jax.numpy as jnp
import optax
import pytest

import optax_ext
from optax_ext import config

ROOMS = ["schedules", "masks", "transforms", "loss_scaling", "config", "telemetry", "interop", "cli"]
PUBLIC = {
    f"optax_ext.{room}.{name}": thing
    for room in ROOMS
    for name in importlib.import_module(f"optax_ext.{room}").__all__
    if inspect.isroutine(thing := getattr(importlib.import_module(f"optax_ext.{room}"), name)) or inspect.isclass(thing)
}
SCHEMAS = {name: thing for name, thing in PUBLIC.items() if hasattr(thing, "__pydantic_config__")}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_lives_in_its_room(name):
    thing, room = PUBLIC[name], ".".join(name.split(".")[:2])
    assert thing.__module__ == room or thing.__module__.startswith(f"{room}."), "rooms may have rooms"
    assert "._" not in thing.__module__
    assert getattr(sys.modules[thing.__module__], thing.__qualname__) is thing
    assert pickle.loads(pickle.dumps(thing)) is thing
    if inspect.isclass(thing):
        typing.get_type_hints(thing)


STATES = {
    "loss scale": lambda: optax_ext.dynamic_loss_scaling(optax.sgd(0.1)).init(jnp.ones(2)),
    "master weights": lambda: optax_ext.master_weights(optax.sgd(0.1)).init(jnp.ones(2)),
    "average": lambda: optax_ext.params_ema().init(jnp.ones(2)),
    "counts": lambda: optax_ext.nonfinite_leaves({"w": jnp.array([jnp.nan])})["w"],
}


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_pickled(state):
    original = STATES[state]()
    copy = pickle.loads(pickle.dumps(original))
    assert jax.tree.structure(copy) == jax.tree.structure(original)
    assert "._" not in type(copy).__module__


def test_what_is_private_and_what_is_a_users_own_stay_where_they_are():
    @dataclasses.dataclass(frozen=True)
    class Mine(optax_ext.Schedule):
        type = "mine_stays"

        def __call__(self, step):
            return jnp.float32(step)

    assert Mine.__module__ == __name__
    assert optax_ext.Schedule.__mro__[1].__module__ == "optax_ext._core.tagged"
    fields = {"__module__": "optax_ext_of_others._private", "__call__": Mine.__call__, "type": "of_others"}
    assert type("OfOthers", (optax_ext.Schedule,), fields).__module__ == "optax_ext_of_others._private"


RELOAD = """
import importlib, pickle, sys
import optax_ext
from optax_ext import config
old = optax_ext.CosineDecay
module = importlib.reload(sys.modules["optax_ext.schedules._cosine"])
fields = {"type": "cosine_decay", "initial_learning_rate": 0.5, "decay_steps": 9}
assert type(config.from_dict(fields)) is module.CosineDecay is not old
assert module.CosineDecay.__module__ == "optax_ext.schedules"
assert "cosine_decay" in config.json_schema()["$defs"]
"""


def test_a_reload_of_the_private_file_replaces_the_class():
    subprocess.run([sys.executable, "-W", "error", "-c", RELOAD], check=True, timeout=120)


@pytest.mark.parametrize("name", SCHEMAS)
def test_help_shows_plain_types_and_no_machinery(name):
    page = pydoc.render_doc(SCHEMAS[name], renderer=pydoc.plaintext)
    for internal in ("Annotated", "pydantic", "alidator", "FieldInfo", "__dataclass_fields__", "_defined_in"):
        assert internal not in page
    assert "Annotated" not in str(inspect.signature(SCHEMAS[name]))


def test_a_signature_reads_as_it_is_meant():
    cosine = inspect.signature(optax_ext.CosineDecay)
    assert str(cosine) == (
        "(initial_learning_rate: float | optax_ext.schedules.RatePerBatch, decay_steps: int | str, alpha: float = 0.0,"
        " warmup_target: float | optax_ext.schedules.RatePerBatch | None = None, warmup_steps: int | str = 0,"
        " offset: int | str = 0,"
        " before_offset: Literal['extrapolate', 'hold'] = 'extrapolate')"
    )
    assert cosine.parameters["alpha"].annotation is float
    ema = inspect.signature(config.OptimizationConfig).parameters["ema"]
    assert str(ema) == "ema: optax_ext.config.ParamsEma | None = None"
    assert typing.get_type_hints(optax_ext.CosineDecay)["alpha"] is float


class TestRepr:
    def test_shows_what_is_required_and_what_differs_in_the_order_of_the_signature(self):
        lars = config.LARS(0.1, global_clipnorm=1.0, exclude_from_weight_decay=["bias"], momentum=0.5, eeta=0.001)
        assert repr(optax_ext.CosineDecay(0.1, 9)) == "CosineDecay(initial_learning_rate=0.1, decay_steps=9)"
        assert repr(lars) == (
            "LARS(learning_rate=0.1, momentum=0.5, exclude_from_weight_decay=('bias',), global_clipnorm=1.0)"
        )
        assert repr(config.ParamsEma()) == "ParamsEma()"

    @pytest.mark.parametrize(
        "schema",
        [
            optax_ext.LinearWarmup(optax_ext.CosineDecay(6.4, 100, offset=5), 5),
            optax_ext.PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001], before_offset="hold"),
            config.OptimizationConfig(config.LAMB(0.1), config.FixedLossScale(8.0), config.ParamsEma(0.5)),
        ],
    )
    def test_evaluates_to_an_equal_schema(self, schema):
        assert eval(repr(schema), {**vars(optax_ext.schedules), **vars(config)}) == schema

    def test_a_users_own_class_has_it_unless_it_says_otherwise(self):
        @dataclasses.dataclass(frozen=True)
        class Stairs(optax_ext.Schedule):
            height: float
            knots: tuple[int, ...] = dataclasses.field(default_factory=lambda: (1, 2))
            note: str = dataclasses.field(default="x", repr=False)

            def __call__(self, step):
                return jnp.float32(self.height)

        @dataclasses.dataclass(frozen=True)
        class Loud(Stairs):
            def __repr__(self):
                return "LOUD"

        @dataclasses.dataclass(frozen=True)
        class SpokenAloud(Loud):
            pass

        assert repr(Stairs(0.5, note="y")) == "Stairs(height=0.5)"
        assert eval(repr(Stairs(0.5, (3,))), {"Stairs": Stairs}) == Stairs(0.5, (3,))
        assert repr(Loud(0.5)) == repr(SpokenAloud(0.5)) == "LOUD"
