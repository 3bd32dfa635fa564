"""docs/schedules.md: every schedule is there, and its code, its file and its picture are the same."""

import inspect
import re

import pytest
import yaml

import optax_ext
from docs.draw import schedules as drawn
from optax_ext import config
from optax_ext.schedules import evaluate

TEXT = drawn.PAGE.read_text()
PARTS = {part.partition("\n")[0]: part for part in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]}
CODE = re.compile(r"^```python\n(.*?)^```$(?:\n\n^```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
PUBLIC = [getattr(optax_ext, name) for name in optax_ext.__all__]
SCHEDULES = [
    it for it in PUBLIC if inspect.isclass(it) and issubclass(it, optax_ext.Schedule) and not inspect.isabstract(it)
]


def test_every_schedule_is_there_once():
    names = re.findall(r"^### (.*)$", TEXT, re.MULTILINE)
    assert sorted(names) == sorted(it.__name__ for it in SCHEDULES)
    assert len(names) == 15


@pytest.mark.parametrize("name", PARTS)
def test_code_and_file_are_the_same_schedule(name):
    (code, _), *_ = CODE.findall(PARTS[name])
    names = {"optax_ext": optax_ext}
    exec(compile(code, drawn.PAGE.name, "exec"), names)
    (file,) = re.findall(r"^# (\w+)\.yaml$", PARTS[name], re.MULTILINE)
    assert type(names["schedule"]).__name__ == name
    assert config.from_dict(yaml.safe_load(drawn.FILES[file])) == names["schedule"]
    assert file == names["schedule"].type
    assert f"images/schedule_{file}.png" in PARTS[name]


def test_the_blocks_with_output_print_it(capsys):
    blocks = [(code, shown) for code, shown in CODE.findall(TEXT) if shown]
    assert len(blocks) == 2
    names = {}
    for code, shown in blocks:
        exec(compile(code, drawn.PAGE.name, "exec"), names)
        assert capsys.readouterr().out == shown


def test_a_picture_is_of_the_schedule_over_a_thousand_steps():
    (axes,) = drawn.PICTURES["schedule_linear_warmup"](False).axes
    (line,) = axes.lines
    schedule = config.from_dict(yaml.safe_load(drawn.FILES["linear_warmup"]))
    assert axes.get_xlim() == (0, 1000)
    assert line.get_xdata().tolist() == list(range(1000))
    assert line.get_ydata()[[0, 100, 500]] == pytest.approx([float(evaluate(schedule, step)) for step in (0, 100, 500)])
