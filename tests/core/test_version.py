"""The version is that of what is imported, whatever else is installed, and costs nothing until it is read."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from optax_ext._core.version import UNKNOWN, find_version

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a folder of packages in which version 12.3.4 is installed, and which Python searches first."""
    info = tmp_path / "site" / "optax_ext-12.3.4.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: optax_ext\nVersion: 12.3.4\n", encoding="utf-8")
    monkeypatch.syspath_prepend(info.parent)
    return info.parent


@pytest.mark.parametrize("editable", [True, False])
def test_an_installed_version_is_that_of_its_own_folder(site, tmp_path, editable):
    checkout = tmp_path / "my checkout"  # an address has %20 there
    checkout.mkdir()
    origin = {"url": checkout.as_uri(), "dir_info": {"editable": True} if editable else {}}
    (site / "optax_ext-12.3.4.dist-info" / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    assert find_version(site) == "12.3.4"
    assert find_version(checkout) == ("12.3.4" if editable else UNKNOWN)
    assert find_version(tmp_path) == UNKNOWN


def test_a_version_is_found_through_links(site, tmp_path):
    (tmp_path / "link").symlink_to(site)
    assert find_version(tmp_path / "link") == "12.3.4"


def test_a_build_without_a_tag_is_not_called_unknown():
    """Without a tag, the fallback with its local part would name the commit ``+unknown.g1a2b3c4``."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["tool"]["hatch"]["version"] == {"source": "vcs", "fallback-version": "0.0"}


def test_the_version_is_looked_up_when_it_is_read():
    script = """import sys, optax_ext, optax_ext.cli
assert "importlib.metadata" not in sys.modules
assert "__version__" not in vars(optax_ext)
assert "__version__" in dir(optax_ext)
assert optax_ext.__version__ is vars(optax_ext)["__version__"]
print(optax_ext.__version__)"""
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == find_version(ROOT), run.stderr
