"""The page of examples lists every file of `examples` once, and none is named as a package."""

import importlib.machinery
import re
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {path.name for path in (ROOT / "examples").iterdir() if not path.name.startswith((".", "__"))}
PAGE = (ROOT / "docs" / "examples.md").read_text()


def test_the_page_lists_every_example_once():
    listed = re.findall(r"^\| \[(\S+)\]\(\.\./examples/(\S+)\) \|", PAGE, re.MULTILINE)
    assert [name for name, target in listed if name != target] == []
    assert sorted(target for _, target in listed) == sorted(FILES)


def test_no_example_is_named_as_a_package():
    """Python finds the folder of a script first: a script equinox.py would import itself in place of Equinox."""
    path = [sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")]
    names = {Path(file).stem for file in FILES}
    assert {name for name in names if importlib.machinery.PathFinder.find_spec(name, path)} == set()
