"""How the pictures look: two themes, the colours of `optax-ext plot`, and text as large as that of the page.

A page is about 760 pixels wide. A figure 7.6 inches wide fills it, at 200 pixels an inch for screens of twice the
density, and 10 points are 14 pixels of the page.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from optax_ext.cli import main
from optax_ext.cli._picture import DARK, LIGHT, Theme

ALARM = {False: "#bc4c00", True: "#ff9e64"}  # what went wrong, by whether the picture is dark
WIDTH = 7.6  # inches
_COLORS, _NEARLY = 64, 10  # so a file has a third of the size that it has with all colours
ONE_FOR_BOTH = ("nan_batch",)  # that has one file, for pages that cannot choose


def colors(dark: bool) -> Theme:
    """Return ink, paper, lines behind curves, and the colours of curves."""
    return DARK if dark else LIGHT


def file_names(name: str) -> tuple[str, ...]:
    """Return the names of the files of a picture, the light one first."""
    return (f"{name}.png",) if name in ONE_FOR_BOTH else (f"{name}.png", f"{name}_dark.png")


@contextlib.contextmanager
def theme(dark: bool) -> Iterator[None]:
    """Give the figures that are made inside the colours and sizes of the site."""
    with rc_context(colors(dark).settings()):
        yield


def save(drawn: Figure | Image.Image, path: Path, *, alpha: bool = False) -> None:
    """Save a picture as a small PNG."""
    if isinstance(drawn, Figure):
        buffer = io.BytesIO()
        drawn.savefig(buffer, facecolor=drawn.get_facecolor())
        drawn = Image.open(buffer)
    drawn = drawn.convert("RGBA" if alpha else "RGB")
    small = (
        drawn.quantize(255, Image.Quantize.FASTOCTREE) if alpha else drawn.quantize(palette=_palette(drawn), dither=0)
    )
    small.save(path, optimize=True)


def _palette(image: Image.Image) -> Image.Image:
    """Return the most frequent colours that are not nearly the same; the others are shades between them at edges."""
    counted = sorted(image.getcolors(image.width * image.height), reverse=True)
    chosen: list[tuple[int, ...]] = []
    for _, color in counted:
        if all(max(abs(a - b) for a, b in zip(color, other, strict=True)) > _NEARLY for other in chosen):
            chosen.append(color)
            if len(chosen) == _COLORS:
                break
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for color in chosen for channel in color])
    return palette


def optax_ext(*arguments: str, dark: bool) -> Image.Image:
    """Return the picture that a command of optax-ext draws."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        output = f"{folder}/picture.png"
        if main([*map(str, arguments), "-o", output, *(["--dark"] if dark else [])]) != 0:
            raise RuntimeError(f"optax-ext {' '.join(arguments)}")
        with Image.open(output) as picture:
            return picture.copy()
