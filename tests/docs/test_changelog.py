"""The changelog names everything that there is."""

import re
from pathlib import Path

import pytest

import optax_ext
from optax_ext import cli, config, interop, loss_scaling, masks, schedules, telemetry, transforms

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
NAMED = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`]+)`", CHANGELOG))))


@pytest.mark.parametrize("room", [optax_ext, schedules, masks, transforms, loss_scaling, config, telemetry, interop])
def test_every_public_name_is_named(room):
    assert {name for name in room.__all__ if name not in NAMED} == set()


def test_every_command_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 6
    assert set(commands) <= NAMED
