"""Every public docstring is whole, and its example runs."""

import doctest
import inspect
import typing

import pytest

from optax_ext import cli, config, interop, loss_scaling, masks, schedules, telemetry, transforms

ROOMS = (
    schedules,
    masks,
    transforms,
    loss_scaling,
    config,
    telemetry,
    interop,
    interop.keras,
    interop.model_garden,
    interop.pytorch,
    cli,
)
PUBLIC = {
    f"{room.__name__}.{name}": getattr(room, name)
    for room in ROOMS
    for name in room.__all__
    if typing.get_origin(getattr(room, name)) is None  # a name for a type has no docstring of its own
}
# States are what their transformations return, families what their members are, a problem what an error holds.
WITHOUT_EXAMPLE = {
    "LossScaleState",
    "MasterWeightsState",
    "ParamsEmaState",
    "SkipBadStepsState",
    "Optimizer",
    "LossScale",
    "Problem",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = 0
    for test in doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={}):
        examples += len(test.examples)
        log: list[str] = []
        assert runner.run(test, out=log.append).failed == 0, "".join(log)
    assert (examples > 0) is (name.rpartition(".")[2] not in WITHOUT_EXAMPLE)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_described(name):
    thing = PUBLIC[name]
    doc = inspect.getdoc(thing) or ""
    if not inspect.isabstract(thing) and not (inspect.isclass(thing) and issubclass(thing, Warning)):
        for parameter in thing._fields if hasattr(thing, "_fields") else inspect.signature(thing).parameters:
            assert f"{parameter}:" in doc or f"``{parameter}``" in doc, f"{name} does not describe {parameter}"
    first = doc.splitlines()[0]
    assert first.endswith(".") or first.rstrip().endswith("$.")
