"""replan: where two rates jump and meet, which fields differ, and whether a state fits."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import optax_ext
from optax_ext import config
from optax_ext.cli import main
from optax_ext.cli._meetings import jump_in_words, meetings_in_words

COSINE = {"type": "cosine_decay", "initial_learning_rate": 0.1, "decay_steps": 2000}
COOLED = {"type": "polynomial_decay", "initial_learning_rate": 0.05, "decay_steps": 500, "offset": 1000}
COOLED["end_learning_rate"] = 0


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def write(name, learning_rate, **fields):
    optimizer = {"type": "sgd", "momentum": 0.9, "learning_rate": learning_rate, **fields.pop("optimizer", {})}
    Path(name).write_text(yaml.safe_dump({"optimizer": optimizer, **fields}))


def replan(capsys, *arguments, status=0):
    """Return what the command prints, each section as a list of its lines, and the plot under ``""``."""
    assert main(["replan", *arguments]) == status
    sections, lines = {}, capsys.readouterr().out.splitlines()
    for line in lines:
        if line in ("Learning rate", "Fields that differ", "State"):
            sections[line] = []
        elif sections and line:
            sections[list(sections)[-1]].append(line.strip())
    return {"": lines[: lines.index("Learning rate")], **sections}


# ---------------------------------------------------------------------------------------------------------
# The command


def test_a_cool_down(capsys):
    write("old.yaml", COSINE)
    write("new.yaml", COOLED)
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1e3")
    assert said["Learning rate"] == [
        "old: no run that tells its length; its last milestone is step 2,000, end of decay_steps",
        "new: no run that tells its length; its last milestone is step 1,500, end of decay_steps",
        "old is 0.0500785 at step 999 and 0.05 at step 1,000",
        "new is 0.05 at step 1,000",
        "the rate goes on without a jump at step 1,000",
        "both are equal at step 1,000",
        "both are 0 from step 2,000 on",
        "old is 0 from step 2,000 on",
        "new is 0 from step 1,500 on",
    ]
    assert said["Fields that differ"] == [
        "optimizer.learning_rate.type: cosine_decay -> polynomial_decay",
        "optimizer.learning_rate.initial_learning_rate: 0.1 -> 0.05",
        "optimizer.learning_rate.decay_steps: 2000 -> 500",
        "optimizer.learning_rate.end_learning_rate: not given -> 0",
        "optimizer.learning_rate.offset: not given -> 1000",
    ]
    assert said["State"] == ["a state of old is one of new as it is: restore it, and go on"]
    legend, (*rows, _, _) = said[""][-4:-1], said[""][:-4]
    assert [line.split() for line in legend] == [["*", "old"], ["o", "new"], [":", "step", "1,000"]]
    mark = rows[1].index(":")
    first = rows[0].index("|") + 1
    assert mark - first == round(1000 / 2100 * (80 - first - 1))
    assert all(row[mark] in ":*o" for row in rows[:17])
    assert all("o" not in row[:mark] for row in rows)  # the new rate begins at the step


def test_the_number_and_the_steps_of_a_run(capsys):
    write("old.yaml", 0.1, run={"steps": 1000})
    write("new.yaml", COOLED, run={"steps": 1500})
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")
    assert said["Learning rate"][:2] == [
        "old: a run of 1,000 steps, all of them before the change",
        "new: a run of 1,500 steps",
    ]
    assert "the rate jumps from 0.1 to 0.05, x 0.5, at step 1,000" in said["Learning rate"]
    assert "they do not meet from step 1,000 to step 1,499" in said["Learning rate"]
    assert said[""][18].split() == ["0", "1,499"]
    assert "optimizer.learning_rate: 0.1 -> polynomial_decay" in said["Fields that differ"]
    assert not any(".type" in line for line in said["Fields that differ"])
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1600")
    assert "new: a run of 1,500 steps: none are left from step 1,600 on" in said["Learning rate"]
    assert "new is 0 from step 1,600 on: no parameter moves by it" in said["Learning rate"]


def test_what_to_do_where_no_steps_were_counted(capsys):
    write("old.yaml", 0.05)
    write("new.yaml", COOLED)
    assert replan(capsys, "old.yaml", "new.yaml", "--at", "1000")["State"] == [
        "a state of old is not one of new:",
        "only new has [0].count, int32",
        "config.carry_over(state, old, new, params, step=1000) makes one of new of it",
    ]
    assert replan(capsys, "new.yaml", "old.yaml", "--at", "1200")["State"] == [
        "a state of new is not one of old:",
        "only new has [0].count, int32",
        "config.carry_over(state, old, new, params) makes one of old of it",
        "or write the rate of old as a schedule, {type: constant, learning_rate: ...}: a number counts no steps",
    ]


def test_rates_that_are_numbers_on_both_sides_need_no_schedule(capsys):
    write("old.yaml", 0.1)
    write("new.yaml", 0.1, ema={})
    assert replan(capsys, "old.yaml", "new.yaml", "--at", "1000")["State"] == [
        "a state of old is not one of new:",
        "only old has [1].trace['kernel'], bfloat16[2, 2]",
        "only new has [0][1].trace['kernel'], bfloat16[2, 2]",
        "only new has [1].count, int32",
        "only new has [1].ema['kernel'], float32[2, 2]",
        "only new has [1].total_weight, float32",
        "config.carry_over(state, old, new, params) makes one of new of it",
    ]


def test_what_would_be_lost(capsys):
    write("old.yaml", COSINE)
    write("new.yaml", COSINE, optimizer={"type": "lars", "classic_momentum": False})
    state = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")["State"]
    assert state[1:3] == ["only old has [0].count, int32", "only new has [3].count, int32"]
    assert state[3].startswith("config.carry_over(state, old, new, params) says: state has what has no place in")
    assert state[3].endswith("before the learning rate here). If it may go, give discard=['trace']")


def test_a_state_of_the_same_structure_may_mean_something_else(capsys):
    Path("old.yaml").write_text(yaml.safe_dump({"optimizer": {"type": "adam", "learning_rate": COSINE}}))
    Path("new.yaml").write_text(yaml.safe_dump({"optimizer": {"type": "adamax", "learning_rate": COSINE}}))
    (state,) = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")["State"]
    assert state.startswith(
        "a state of old has the structure of one of new, but not its meaning: state has what has no"
    )


def test_patterns_need_not_match_the_small_kernel_but_given_shapes(capsys):
    write("old.yaml", COSINE, optimizer={"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["norm"]})
    write("new.yaml", COSINE, optimizer={"weight_decay_rate": 0.2, "exclude_from_weight_decay": ["norm"]})
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")
    assert said["Fields that differ"] == ["optimizer.weight_decay_rate: 0.1 -> 0.2"]
    assert said["State"] == ["a state of old is one of new as it is: restore it, and go on"]
    Path("shapes.json").write_text(json.dumps({"conv": {"kernel": [2, 3]}}))
    state = replan(capsys, "old.yaml", "new.yaml", "--at", "1000", "--params", "shapes.json")["State"]
    assert state[0].startswith("not known for these parameters: ")
    Path("shapes.json").write_text(json.dumps({"conv": {"kernel": [2, 3]}, "norm": [3]}))
    state = replan(capsys, "old.yaml", "new.yaml", "--at", "1000", "--params", "shapes.json")["State"]
    assert state == ["a state of old is one of new as it is: restore it, and go on"]


def test_overrides_change_the_new_recipe_alone(capsys):
    write("old.yaml", COSINE)
    arguments = ["old.yaml", "old.yaml", "--at", "1000", "--set", "optimizer.learning_rate.decay_steps=4000"]
    said = replan(capsys, *arguments)
    assert said["Fields that differ"] == ["optimizer.learning_rate.decay_steps: 2000 -> 4000"]
    assert "new is 0.0853553 at step 1,000" in said["Learning rate"]


def test_durations_in_the_run_of_each_or_of_the_argument(capsys):
    run = {"examples": 1000, "batch_size": 10, "epochs": 20}
    write("old.yaml", COSINE | {"decay_steps": "100%"}, run=run)
    write("new.yaml", COSINE | {"decay_steps": "100%"}, run=run | {"epochs": 30})
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")
    assert said["Fields that differ"] == ["run.epochs: 20 -> 30"]
    assert said["Learning rate"][:2] == ["old: a run of 2,000 steps", "new: a run of 3,000 steps"]
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000", "--run", "steps=1500")
    assert "both are equal from step 1,000 on" in said["Learning rate"]


def test_the_problems_of_both_files(capsys):
    write("old.yaml", {"type": "cosine_decay", "decay_steps": -1})
    Path("new.yaml").write_text("{type: dynamic}")
    assert main(["replan", "old.yaml", "new.yaml", "--at", "10"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("old.yaml: 2 problems\n")
    assert err.endswith("new.yaml: a loss scale alone has no learning rate\n")


def test_schedules_alone(capsys):
    Path("old.yaml").write_text(yaml.safe_dump(COSINE))
    Path("new.yaml").write_text(yaml.safe_dump(COSINE))
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "10")
    assert said["Fields that differ"] == ["none"]
    assert "State" not in said
    write("new.yaml", COSINE)
    assert main(["replan", "old.yaml", "new.yaml", "--at", "10"]) == 2
    assert "one is a schedule alone, the other a recipe" in capsys.readouterr().err


def test_a_picture(monkeypatch, capsys):
    from matplotlib.figure import Figure

    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, output: saved.append((figure, output)))
    write("old.yaml", COSINE)
    write("new.yaml", COOLED)
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000", "-o", "rates.png")
    assert said[""] == ["rates.png: the rates of old.yaml and new.yaml", ""]
    ((figure, output),) = saved
    assert output == "rates.png"
    *curves, mark = figure.axes[0].lines
    assert [(line.get_xdata()[0], line.get_xdata()[-1]) for line in curves] == [(0, 2100), (1000, 2100)]
    assert list(mark.get_xdata()) == [1000, 1000]
    assert [text.get_text() for text in figure.axes[0].texts] == ["step 1,000"]


@pytest.mark.parametrize("at", ["0", "-1", "1.5", "soon"])
def test_the_step_must_be_one(at, capsys):
    with pytest.raises(SystemExit):
        main(["replan", "old.yaml", "new.yaml", f"--at={at}"])
    assert "argument --at: must be an integer from 1" in capsys.readouterr().err


def test_groups_have_a_line_each(monkeypatch, capsys):
    """A group that the other recipe has not is compared with the one rate there."""
    write("old.yaml", COSINE)
    write("new.yaml", COOLED)
    rates = {"head": optax_ext.Constant(0.1), "body": optax_ext.Constant(0.05)}
    own = config.SGD.learning_rates
    monkeypatch.setattr(
        config.SGD, "learning_rates", lambda self: rates if self.learning_rate.type != "cosine_decay" else own(self)
    )
    said = replan(capsys, "old.yaml", "new.yaml", "--at", "1000")
    assert [line.split() for line in said[""][-5:-1]] == [
        ["*", "old"],
        ["o", "new,", "head"],
        ["+", "new,", "body"],
        [":", "step", "1,000"],
    ]
    assert "head: the rate jumps from 0.05 to 0.1, x 2, at step 1,000" in said["Learning rate"]
    assert "body: the rate goes on without a jump at step 1,000" in said["Learning rate"]
    assert sum(line.startswith("old is") for line in said["Learning rate"]) == 0


# ---------------------------------------------------------------------------------------------------------
# Words


def table(*values):
    return lambda step: jnp.float32(values)[jnp.clip(step, 0, len(values) - 1)]


CROSSING, THE_OLD = "they cross between steps", "the old one from there on"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([3, 2, 1], [1, 2, 3], ["both are equal at step 1"]),
        ([3, 3, 1, 1], [1, 1, 3, 3], [f"{CROSSING} 1 and 2, the new one above {THE_OLD}"]),
        ([1, 1, 2, 2], [1, 1, 1, 1], ["both are equal from step 0 to 1"]),
        ([2, 2, 1, 1], [1, 1, 1, 1], ["both are equal from step 2 on"]),
        ([2, 1, 0, 0], [1, 1, 0, 0], ["both are equal from step 1 on"]),
        ([2, 1, 0, 0], [1, 0, 0, 0], ["both are 0 from step 2 on"]),
        ([1, 0, 0], [1, 1e-9, 0], ["both are equal at step 0", "both are 0 at step 2"]),
        ([1, 1, 1, 1], [2, 2, 2, 2], ["they do not meet from step 0 to step 3"]),
        ([1, np.inf, 2], [2, 2, 2], [f"{CROSSING} 0 and 1, the new one below {THE_OLD}", "both are equal at step 2"]),
        ([1, 1 + 1e-7, 2], [1, 1, 2], ["both are equal from step 0 on"]),
        (
            [1, 2] * 6,
            [1] * 12,
            [*(f"both are equal at step {step}" for step in (0, 2, 4, 6)), "they meet 2 more times up to step 11"],
        ),
    ],
)
def test_where_rates_meet(old, new, said):
    found, *_ = meetings_in_words(table(*old), table(*new), 0, len(old) - 1, 2.0)
    assert found == said


@pytest.mark.parametrize(("rates", "zero"), [([1, 0, 0], 6), ([0, 0, 0], 5), ([0, 1, 1], None), ([1, 0, 1], None)])
def test_from_where_a_rate_is_zero(rates, zero):
    late = [0] * 5 + rates
    assert meetings_in_words(table(*late), table(*[1] * 8), 5, 7, 1.0)[1:] == (zero, None)


def test_steps_that_are_not_looked_at(monkeypatch):
    monkeypatch.setattr("optax_ext.cli._meetings._MOST_STEPS", 3)
    found, *_ = meetings_in_words(table(1), table(1), 10, 20, 1.0)
    assert found == ["both are equal from step 10 on", "steps after 12 were not looked at"]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.1, 0.05, "the rate jumps from 0.1 to 0.05, x 0.5, at step 7"),
        (0.0, 0.05, "the rate jumps from 0 to 0.05, at step 7"),
        (np.inf, 0.05, "the rate jumps from inf to 0.05, at step 7"),
        (0.1, 0.10000001, "the rate goes on without a jump at step 7"),
    ],
)
def test_jumps(before, after, said):
    assert jump_in_words(before, after, 7, 0.1) == said
