"""The examples of the importers run, and every argument is described."""

import doctest
import inspect

import pytest

from optax_ext import interop


@pytest.mark.parametrize("name", interop.__all__)
def test_the_example_runs(name):
    thing = getattr(interop, name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    examples = 0
    for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={}):
        examples += len(test.examples)
        log: list[str] = []
        assert runner.run(test, out=log.append).failed == 0, "".join(log)
    assert examples > 0
    if inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters:
            assert f"{parameter}:" in inspect.getdoc(thing)
