"""Every public docstring is whole, and its example runs."""

import doctest
import inspect

import pytest

import optax_ext
from optax_ext._schema import ConfigError

PUBLIC = {
    name: getattr(optax_ext, name) for name in optax_ext.__all__ if not inspect.ismodule(getattr(optax_ext, name))
}
PUBLIC["config.ConfigError"] = ConfigError


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = 0
    for test in doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name, globs={}):
        examples += len(test.examples)
        log: list[str] = []
        assert runner.run(test, out=log.append).failed == 0, "".join(log)
    assert examples > 0 or name in ("LossScaleState", "ParamsEmaState"), "a public name has an example"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_is_described(name):
    thing = PUBLIC[name]
    doc = inspect.getdoc(thing) or ""
    parameters = thing._fields if hasattr(thing, "_fields") else inspect.signature(thing).parameters
    if name == "Schedule":
        parameters = ()
    for parameter in parameters:
        assert f"{parameter}:" in doc, f"{name} does not describe {parameter}"
    first = doc.splitlines()[0]
    assert first.endswith(".") or first.rstrip().endswith("$.")
