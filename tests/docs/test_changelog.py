"""The changelog names everything that there is, in the form of Keep a Changelog."""

import re
import subprocess
import sys
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.version import Version

import optax_ext
from optax_ext import cli, config, interop, loss_scaling, masks, schedules, telemetry, transforms

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`]+)`", CHANGELOG))))
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
URL = "https://github.com/optax-ext/optax_ext"


@pytest.mark.parametrize("room", [optax_ext, schedules, masks, transforms, loss_scaling, config, telemetry, interop])
def test_every_public_name_is_named(room):
    assert {name for name in room.__all__ if name not in NAMED} == set()


def test_every_command_is_named(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(commands) == 6
    assert set(commands) <= NAMED


def problems_of_form(text):
    """Yield what is not as Keep a Changelog 1.1 has it: versions with dates, kinds of changes in order, links."""
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+\S*)\] - (\d{4}-\d\d-\d\d)", heading) for heading in headings[1:]]
    if not headings or headings[0] != "[Unreleased]" or None in released:
        yield f"headings: {headings}"
        return
    versions = [found[1] for found in released]
    if [Version(version) for version in versions] != sorted(map(Version, versions), reverse=True):
        yield f"versions are not from the newest to the oldest: {versions}"
    days = [date.fromisoformat(found[2]) for found in released]
    if days != sorted(days, reverse=True):
        yield f"dates are not from the newest to the oldest: {days}"

    links = [f"{URL}/compare/v{older}...v{newer}" for newer, older in pairwise(versions)]
    if versions:
        links = [f"{URL}/compare/v{versions[0]}...HEAD", *links, f"{URL}/releases/tag/v{versions[-1]}"]
    else:
        links = [f"{URL}/commits/main"]
    expected = dict(zip(["Unreleased", *versions], links, strict=True))
    if dict(re.findall(r"^\[(.+)\]: (\S+)$", text, re.MULTILINE)) != expected:
        yield f"links at the end are not {expected}"

    for name, section in zip(headings, re.split(r"^## .*\n", text, flags=re.MULTILINE)[1:], strict=True):
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        if kinds != [kind for kind in KINDS if kind in kinds]:
            yield f"{name} has {kinds}, accepted in this order: {KINDS}"
        if name != "[Unreleased]" and not kinds:
            yield f"{name} is empty"
        for kind, entries in re.findall(r"^### (.*)\n((?:(?!#|\[.+\]: ).*\n?)*)", section, re.MULTILINE):
            if not entries.startswith("- "):
                yield f"{kind} of {name} has no list"
            if other := re.findall(r"^(?!- |  \S|$).+|\n\n(?=- )", entries.rstrip("\n"), re.MULTILINE):
                yield f"{kind} of {name} has something else than entries: {other}"


def test_it_has_the_form_of_keep_a_changelog():
    assert list(problems_of_form(CHANGELOG)) == []


RELEASED = f"""# Changelog

## [Unreleased]

### Added
- A new name, which
  takes two lines.

## [0.2.0] - 2027-02-01

### Changed
- One thing, [documented](docs/versions.md) and
  [elsewhere](https://example.org/).
- Another.

### Fixed
- A third.

## [0.1.0] - 2027-01-01

### Added
- All.

[Unreleased]: {URL}/compare/v0.2.0...HEAD
[0.2.0]: {URL}/compare/v0.1.0...v0.2.0
[0.1.0]: {URL}/releases/tag/v0.1.0
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("2027-02-01", "1 February 2027"),
        ("2027-02-01", "2026-02-01"),
        ("## [0.2.0]", "## 0.2.0"),
        ("## [Unreleased]\n", ""),
        ("v0.2.0...HEAD", "v0.1.0...HEAD"),
        ("[0.1.0]: ", "[0.0.1]: "),
        ("### Fixed", "### Mended"),
        ("### Fixed", "### Added"),
        ("- A third.", "A third."),
        ("- Another.", "\n- Another."),
        ("### Added\n- All.\n", ""),
    ],
)
def test_what_has_another_form_is_found(old, new):
    problems = list(problems_of_form(RELEASED.replace(old, new, 1) if old else RELEASED))
    assert bool(problems) == bool(old), problems


def print_section(folder, version):
    script = ["bash", folder / "scripts" / "changelog", version]
    return subprocess.run(
        script, capture_output=True, text=True, env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    )


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/changelog", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "CHANGELOG.md").write_text(RELEASED, encoding="utf-8")
    return tmp_path


def test_a_release_has_the_text_of_its_section(checkout):
    assert (
        print_section(checkout, "0.2.0").stdout
        == f"""### Changed
- One thing, [documented]({URL}/blob/v0.2.0/docs/versions.md) and [elsewhere](https://example.org/).
- Another.

### Fixed
- A third.
"""
    )
    assert print_section(checkout, "Unreleased").stdout == "### Added\n- A new name, which takes two lines.\n"
    assert print_section(checkout, "0.1.0").stdout == "### Added\n- All.\n"


def test_a_release_without_a_section_is_refused(checkout):
    run = print_section(checkout, "0.3.0")
    assert run.returncode == 1
    assert run.stderr == "changelog: no section of 0.3.0 in CHANGELOG.md, there are: Unreleased, 0.2.0, 0.1.0\n"
