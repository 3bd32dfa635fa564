"""Draw pictures of the documentation: `python -m docs.draw [NAME ...]`, all of them without a name."""

import argparse
import importlib
import pkgutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import docs.draw
from docs.draw.style import ONE_FOR_BOTH, file_names, save, theme

IMAGES = Path(__file__).parents[1] / "images"
MODULES = sorted(module.name for module in pkgutil.iter_modules(docs.draw.__path__))


def pictures() -> dict[str, Callable[[bool], Any]]:
    """Return what draws each picture, by its name."""
    found: dict[str, Callable[[bool], Any]] = {}
    for name in MODULES:
        if name in ("__main__", "style"):
            continue
        module = importlib.import_module(f"docs.draw.{name}")
        found |= module.PICTURES if hasattr(module, "PICTURES") else {name: module.draw}
    return found


def main(argv: Sequence[str] | None = None, folder: Path = IMAGES) -> None:
    """Run the command line."""
    known = pictures()
    parser = argparse.ArgumentParser(prog="python -m docs.draw", description="Draw the pictures of the documentation.")
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"what to draw, else all: {', '.join(known)}")
    names = parser.parse_args(argv).names or list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such picture: {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names:
        begin = time.perf_counter()
        for dark, file in zip((False, True), file_names(name), strict=False):
            with theme(dark):
                drawn = known[name](dark)
            save(drawn, folder / file, alpha=name in ONE_FOR_BOTH)
        sizes = ", ".join(f"{file} {(folder / file).stat().st_size / 1000:.0f} kB" for file in file_names(name))
        print(f"{sizes}, {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
