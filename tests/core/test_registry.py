"""Tags find real, complete classes, whatever gin, cloudpickle, notebooks, reloads and threads make of them."""

import dataclasses
import gc
import importlib
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import weakref

import cloudpickle
import gin
import jax.numpy as jnp
import pytest

import optax_ext
from optax_ext import config
from optax_ext.config import ConfigError

COSINE = optax_ext.CosineDecay(0.5, 100)


def built(tag, **fields):
    return config.from_dict({"type": tag, **fields})


def run_cell(source):
    """Run code as a cell of the notebook."""
    exec(textwrap.dedent(source), vars(sys.modules["a_notebook"]))


@pytest.fixture
def notebook(monkeypatch):
    """A module that stands for a notebook's ``__main__``."""
    module = types.ModuleType("a_notebook")
    monkeypatch.setitem(sys.modules, "a_notebook", module)
    run_cell("import dataclasses, optax_ext\nimport jax.numpy as jnp")
    return module


def define_ramp(**options):
    """Define a schedule in a function, as a program does that is no module of its own."""

    @dataclasses.dataclass(frozen=True, **options)
    class Ramp(optax_ext.Schedule):
        slope: float = 1.0

        def __call__(self, step):
            return jnp.float32(self.slope * step)

    return Ramp


RAMP = """
    @dataclasses.dataclass(frozen=True)
    class NotebookRamp(optax_ext.Schedule):
        slope: float

        def __call__(self, step):
            return jnp.float32(self.slope * step)
"""


class TestGin:
    @pytest.fixture(autouse=True)
    def _clear(self):
        yield
        gin.clear_config()

    def test_a_configurable_of_ours_leaves_our_class_in_its_place(self):
        configurable = gin.external_configurable(optax_ext.CosineDecay, "GinCosine")
        gin.parse_config("GinCosine.decay_steps = 100\nGinCosine.initial_learning_rate = 0.5")
        assert type(built("cosine_decay", initial_learning_rate=0.5, decay_steps=100)) is optax_ext.CosineDecay
        assert configurable() == COSINE
        assert config.to_dict(configurable()) == config.to_dict(COSINE)
        recipe = config.SGD(optax_ext.LinearWarmup(configurable(), 10))
        assert config.from_dict(config.to_dict(recipe)) == recipe

    def test_a_configurable_whose_methods_gin_wraps_makes_instances_of_its_own_class(self):
        @dataclasses.dataclass(frozen=True)
        class GinRamp(optax_ext.Schedule):
            type = "ramp_of_gin"
            slope: float

            def __call__(self, step):
                return jnp.float32(self.slope * step)

            @gin.register
            def slower(self, factor=0.5):
                return self.slope * factor

        gin.register(GinRamp)
        configurable = gin.get_configurable(GinRamp)
        schedule = configurable(2.0)
        assert type(schedule) is not GinRamp
        assert schedule(3) == 6.0
        recipe = config.SGD(schedule)
        data = config.to_dict(recipe)
        assert data["learning_rate"] == {"type": "ramp_of_gin", "slope": 2.0}
        assert config.from_dict(data).learning_rate == GinRamp(2.0)
        assert config.from_dict(recipe) is recipe


class TestCopies:
    """A class of the name of its own base, which adds nothing."""

    COPY = type(
        "CosineDecay",
        (optax_ext.CosineDecay,),
        {"__module__": optax_ext.CosineDecay.__module__, "__qualname__": "CosineDecay"},
    )

    def test_does_not_take_the_place_of_the_original(self):
        assert type(built("cosine_decay", initial_learning_rate=0.5, decay_steps=100)) is optax_ext.CosineDecay
        assert "cosine_decay" in config.json_schema()["$defs"]

    def test_is_validated_and_written_like_the_original(self):
        copy = self.COPY(0.5, decay_steps=100)
        assert type(copy) is self.COPY
        assert config.to_dict(copy) == config.to_dict(COSINE)
        assert config.from_dict(config.to_dict(config.SGD(copy))) == config.SGD(COSINE)
        assert copy(50) == COSINE(50)
        with pytest.raises(ConfigError, match="decay_steps: must be greater than 0, got 0"):
            self.COPY(0.5, decay_steps=0)

    def test_keeps_the_tag_that_the_original_chose(self, notebook):
        run_cell(RAMP.replace("slope: float", 'type = "steep"\n        slope: float'))
        original = notebook.NotebookRamp
        copy = type("NotebookRamp", (original,), {"__module__": "a_notebook", "__qualname__": "NotebookRamp"})
        assert config.to_dict(copy(2.0)) == {"type": "steep", "slope": 2.0}
        assert type(built("steep", slope=2.0)) is original

    def test_with_fields_of_its_own_must_be_decorated(self):
        fields = {"__module__": optax_ext.CosineDecay.__module__, "__annotations__": {"extra": float}}
        more = type("CosineDecay", (optax_ext.CosineDecay,), fields)
        with pytest.raises(TypeError, match="must be decorated"):
            more(0.5, 100)


FRESH_PROCESS = """
import pickle, sys
pickled = open(sys.argv[1], "rb").read()
assert "optax_ext" not in sys.modules
recipe = pickle.loads(pickled)
import optax_ext
from optax_ext import config
schedule = recipe.learning_rate
assert type(schedule).__module__ == "a_notebook" and "a_notebook" not in sys.modules
assert float(schedule(3)) == 6.0, schedule(3)
assert config.to_dict(recipe)["learning_rate"] == {"type": "pickled", "slope": 2.0, "knots": [1, 2], "name": "ramp"}
assert config.from_dict(config.to_dict(recipe)) == recipe
assert config.from_dict({"type": "pickled", "slope": 2.0}) == schedule
assert "pickled" in config.json_schema()["$defs"]
assert config.from_dict({"type": "constant", "learning_rate": 0.5}) == optax_ext.Constant(0.5)
try:
    type(schedule)(slope=-1.0)
except config.ConfigError as error:
    assert str(error.problems[0]) == "slope: must be positive, got -1.0", error
else:
    raise AssertionError("no error")
again = pickle.loads(pickled)
assert type(again.learning_rate) is type(schedule) and again == recipe
"""


class TestCloudpickle:
    # The class has the name of one of ours, and another tag: the tag is not there yet when cloudpickle makes the class.
    CONSTANT = """
        from typing import Annotated
        import pydantic

        def positive(value):
            if value <= 0:
                raise ValueError("must be positive")
            return value

        @dataclasses.dataclass(frozen=True)
        class Constant(optax_ext.Schedule):
            type = "pickled"
            slope: Annotated[float, pydantic.Field(le=10), pydantic.AfterValidator(positive)]
            knots: tuple[int, ...] = dataclasses.field(default_factory=lambda: (1, 2))
            name: str = dataclasses.field(default="ramp", kw_only=True)

            def __call__(self, step):
                return jnp.float32(self.slope * step)
    """

    def test_a_schedule_of_a_notebook_works_in_a_fresh_process(self, notebook, tmp_path):
        run_cell(self.CONSTANT)
        cloudpickle.register_pickle_by_value(notebook)
        try:
            pickled = cloudpickle.dumps(config.SGD(notebook.Constant(2.0)))
        finally:
            cloudpickle.unregister_pickle_by_value(notebook)
        (tmp_path / "recipe.pickle").write_bytes(pickled)
        subprocess.run([sys.executable, "-c", FRESH_PROCESS, tmp_path / "recipe.pickle"], check=True, timeout=120)

    @staticmethod
    def reloaded(value, module):
        """Pickle by value and load as another process would, which does not know the class yet."""
        cloudpickle.register_pickle_by_value(module)
        try:
            pickled = cloudpickle.dumps(value)
        finally:
            cloudpickle.unregister_pickle_by_value(module)
        other = pickled.replace(cloudpickle.cloudpickle._get_or_create_tracker_id(type(value)).encode(), b"0" * 32)
        assert other != pickled
        try:
            return pickle.loads(other)
        finally:
            cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.pop("0" * 32)

    def test_a_loaded_class_does_not_take_the_place_of_the_original_beside_it(self, notebook):
        run_cell(RAMP)
        original = notebook.NotebookRamp
        loaded = self.reloaded(original(2.0), notebook)
        assert type(loaded) is not original
        assert loaded(3) == 6.0
        assert type(built("notebook_ramp", slope=2.0)) is original
        assert config.from_dict(config.to_dict(config.SGD(loaded))) == config.SGD(original(2.0))
        assert type(loaded)(2.0) == loaded

    def test_nor_of_one_that_no_module_has(self):
        original = define_ramp()
        loaded = self.reloaded(original(2.0), sys.modules[__name__])
        assert type(loaded) is not original
        assert type(built("ramp", slope=2.0)) is original

    def test_what_cloudpickle_makes_and_throws_away_is_no_member(self):
        original = define_ramp()
        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        try:
            pickled = cloudpickle.dumps(original(2.0))
        finally:
            cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        assert type(pickle.loads(pickled)) is original
        assert built("ramp", slope=2.0) == original(2.0)
        optax_ext.LinearWarmup(original(2.0), 10)


class TestRedefinition:
    def test_the_newest_definition_of_a_notebook_counts(self, notebook):
        run_cell(RAMP)
        old = notebook.NotebookRamp
        run_cell(RAMP.replace("slope: float", "slope: float = 3.0"))
        assert type(built("notebook_ramp")) is notebook.NotebookRamp is not old
        assert list(config.json_schema()["$defs"]["notebook_ramp"]["properties"]) == ["type", "slope"]

    def test_a_definition_that_failed_leaves_the_old_one(self, notebook):
        run_cell(RAMP)
        old = notebook.NotebookRamp
        with pytest.raises(TypeError, match="non-default argument"):
            run_cell(RAMP.replace("slope: float", "slope: float = 3.0\n        late: int"))
        assert type(built("notebook_ramp", slope=1.0)) is old

    def test_a_definition_from_the_old_one_or_from_another_base_counts(self, notebook):
        run_cell(RAMP)
        derived = "@dataclasses.dataclass(frozen=True)\nclass NotebookRamp(BASE):\n    extra: float = 1.0"
        run_cell(derived.replace("BASE", "NotebookRamp"))
        assert built("notebook_ramp", slope=1.0, extra=2.0) == notebook.NotebookRamp(1.0, 2.0)
        run_cell(derived.replace("BASE", "optax_ext.Constant"))
        assert built("notebook_ramp", learning_rate=1.0, extra=2.0) == notebook.NotebookRamp(1.0, 2.0)

    def test_slots_make_a_second_class_that_counts(self):
        slotted = define_ramp(slots=True)
        assert type(built("ramp", slope=2.0)) is slotted
        assert built("ramp", slope=2.0)(3) == 6.0

    def test_a_reload_counts(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        header = "import dataclasses, optax_ext\nimport jax.numpy as jnp\n"
        (tmp_path / "some_schedules.py").write_text(
            header + textwrap.dedent(RAMP.replace("NotebookRamp", "ReloadedRamp"))
        )
        module = importlib.import_module("some_schedules")
        old = module.ReloadedRamp
        assert type(built("reloaded_ramp", slope=1.0)) is old
        importlib.reload(module)
        assert type(built("reloaded_ramp", slope=1.0)) is module.ReloadedRamp is not old
        del sys.modules["some_schedules"]

    def test_what_was_replaced_is_let_go(self, notebook):
        gone = []
        for _ in range(5):
            run_cell(RAMP)
            gone.append(weakref.ref(notebook.NotebookRamp))
        gc.collect()
        assert sum(ref() is not None for ref in gone) <= 2

    def test_what_nobody_else_keeps_is_not_lost(self):
        def define():
            @dataclasses.dataclass(frozen=True)
            class Unkept(optax_ext.Constant):
                extra: float = 1.0

        define()
        gc.collect()
        assert built("unkept", learning_rate=2.0)(3) == 2.0


def test_a_decorated_base_that_is_abstract_is_no_member():
    @dataclasses.dataclass(frozen=True)
    class HasPeak(optax_ext.Schedule):
        peak: float

    with pytest.raises(ConfigError, match="unknown type 'has_peak'"):
        built("has_peak", peak=1.0)

    @dataclasses.dataclass(frozen=True)
    class OfPeak(HasPeak):
        def __call__(self, step):
            return jnp.float32(self.peak)

    assert built("of_peak", peak=1.0) == OfPeak(1.0)


def test_threads_that_define_classes_at_once_lose_none(monkeypatch):
    barrier = threading.Barrier(8)

    def define(index):
        barrier.wait()
        for each in range(20):
            fields = {"__call__": lambda self, step: jnp.float32(step), "__module__": __name__}
            cls = type(f"Thread{index}Each{each}", (optax_ext.Schedule,), fields)
            dataclasses.dataclass(frozen=True)(cls)
            assert type(built(cls.type)) is cls

    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the threads take turns as often as they can
    try:
        threads = [threading.Thread(target=define, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    for index in range(8):
        for each in range(20):
            built(f"thread{index}_each{each}")


class TestTwoRealClasses:
    def test_of_one_tag_are_an_error_where_the_second_is_defined(self, notebook):
        with pytest.raises(TypeError, match=r"'cosine_decay' of CosineDecay is taken by optax_ext\.schedules\.Cosine"):
            run_cell(RAMP.replace("NotebookRamp", "CosineDecay"))
        assert type(built("cosine_decay", initial_learning_rate=0.5, decay_steps=100)) is optax_ext.CosineDecay

    def test_of_one_tag_that_come_without_a_class_statement_are_an_error_where_it_is_read(self):
        def made(module):
            fields = {"__call__": lambda self, step: jnp.float32(step), "__module__": module, "type": "claimed_twice"}
            return dataclasses.dataclass(frozen=True)(type("Claiming", (optax_ext.Schedule,), fields))

        first, second = made("one_module"), made("another_module")
        with pytest.raises(ConfigError) as raised:
            config.SGD({"type": "claimed_twice"})
        assert str(raised.value.problems[0]) == (
            "learning_rate.type: 'claimed_twice' is the tag of one_module.Claiming and another_module.Claiming:"
            " give one another in an attribute `type`"
        )
        assert config.SGD(second()).learning_rate == second()
        assert built("constant", learning_rate=0.5) == optax_ext.Constant(0.5)
        del first, second

    def test_the_main_module_of_a_spawned_process_is_the_main_module(self, monkeypatch):
        spawned = types.ModuleType("__mp_main__")
        monkeypatch.setitem(sys.modules, "__mp_main__", spawned)
        ours = dataclasses.dataclass(frozen=True)
        body = {"__call__": lambda self, step: jnp.float32(step), "__qualname__": "SpawnedRamp"}
        spawned.SpawnedRamp = ours(type("SpawnedRamp", (optax_ext.Schedule,), {**body, "__module__": "__mp_main__"}))
        pickled_by_value = ours(type("SpawnedRamp", (optax_ext.Schedule,), {**body, "__module__": "__main__"}))
        assert type(built("spawned_ramp")) is spawned.SpawnedRamp is not pickled_by_value


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: config.LARS(optax_ext.CosineDecay), "learning_rate: must be constructed, as CosineDecay(initial_lear"),
        (
            lambda: optax_ext.LinearWarmup(optax_ext.Constant, 5),
            "after: must be constructed, as Constant(learning_rate",
        ),
        (lambda: config.OptimizationConfig(config.SGD), "optimizer: must be constructed, as SGD(learning_rate, "),
        (lambda: config.OptimizationConfig(config.SGD(0.1), ema=config.ParamsEma), "ema: must be constructed, as Para"),
        (lambda: config.SGD(optax_ext.Schedule), "learning_rate: must be constructed, as Schedule(); got the class"),
    ],
)
def test_a_class_in_place_of_an_instance_says_so(wrong, message):
    with pytest.raises(ConfigError) as raised:
        wrong()
    assert [str(problem)[: len(message)] for problem in raised.value.problems] == [message]
