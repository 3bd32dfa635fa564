"""The version of the package, which stands in the metadata that the installer wrote and nowhere in the source."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import Distribution

__all__ = ["UNKNOWN", "find_version"]

UNKNOWN = "0.0+unknown"


def find_version(root: Path) -> str:
    """Return the version under which the package in a folder is installed, `UNKNOWN` for a checkout that is not.

    While Python imports a checkout, the version of another, installed copy says nothing about what runs.
    """
    import importlib.metadata  # which nobody waits for who does not ask

    for distribution in importlib.metadata.distributions(name="optax_ext"):
        folders = [Path(str(distribution.locate_file(""))), *_editable_folder(distribution)]
        if root.resolve() in [folder.resolve() for folder in folders]:
            return distribution.version
    return UNKNOWN


def _editable_folder(distribution: "Distribution") -> list[Path]:
    """Return the checkout that a distribution is an editable installation of; none of any other."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return []
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    return [Path(url2pathname(urlsplit(origin["url"]).path))]
