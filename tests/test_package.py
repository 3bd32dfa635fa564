"""The shape of the package: its face, its layers, its files."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import optax_ext

PACKAGE = Path(optax_ext.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = [
    "_core",
    "schedules",
    "masks",
    "transforms",
    "loss_scaling",
    "config",
    "telemetry",
    "interop",
    "cli",
]  # from the ground up
FACE = ["schedules", "masks", "transforms", "loss_scaling", "telemetry"]  # whose names stand in `optax_ext` itself


def public_modules():
    names = [name for _, name, is_package in pkgutil.iter_modules([str(PACKAGE)]) if is_package and name != "_core"]
    return [optax_ext, *(importlib.import_module(f"optax_ext.{name}") for name in names)]


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_exported_names_are_sorted_complete_and_documented(module):
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__, f"{module.__name__}.{name} has no docstring"


def test_each_name_of_the_face_stands_in_one_room():
    rooms = [set(importlib.import_module(f"optax_ext.{name}").__all__) for name in FACE]
    for name in optax_ext.__all__:
        assert sum(name in room for room in rooms) == (name not in ("config", "interop")), name


def imported_modules(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            rooms = [alias.name for alias in node.names if node.module == "optax_ext" and alias.name in ROOMS]
            yield from (f"optax_ext.{room}" for room in rooms)
            if len(rooms) < len(node.names):
                yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down_and_stay_public(file):
    place = file.relative_to(PACKAGE).with_suffix("").parts
    for name in imported_modules(file):
        assert not name.startswith(("jax._src", "optax._src", "flax", "chex")), name
        room, *inside = name.split(".")[1:] if name.startswith("optax_ext.") else [""]
        if room and place[0] in ROOMS:
            assert ROOMS.index(room) <= ROOMS.index(place[0]), f"{place[0]} imports {name}, which is above it"
        private = next((index for index, part in enumerate(inside) if part.startswith("_")), None)
        if room not in ("", "_core") and private is not None:
            # What is private to a folder is open to that folder and to those inside it.
            folder = (room, *inside[:private])
            assert place[: len(folder)] == folder, f"{'.'.join(place)} imports {name}, which is private to another room"


def test_no_two_modules_import_each_other():
    modules = {".".join(("optax_ext", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    modules = {name.removesuffix(".__init__"): file for name, file in modules.items()}
    below = {name: {target for target in imported_modules(file) if target in modules} for name, file in modules.items()}
    done = set()
    while ready := {name for name, targets in below.items() if name not in done and targets <= done | {name}}:
        done |= ready
    assert done == set(modules), f"a cycle among {set(modules) - done}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_stay_readable(file):
    assert len(file.read_text().splitlines()) <= 450


def test_an_uninstalled_checkout_imports_without_the_extras():
    """A stand-in for a bare environment: the extras are there but cannot be imported."""
    extras = ("chex", "equinox", "flax", "h5py", "hypothesis", "matplotlib", "rich", "sklearn", "tqdm")
    block = f"import sys; sys.modules.update(dict.fromkeys({extras})); import optax_ext; print(optax_ext.__version__)"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert run.stdout.strip() == optax_ext.__version__, run.stderr
    assert (PACKAGE / "py.typed").exists()
