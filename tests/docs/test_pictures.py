"""The pictures of the pages: each is drawn by a name of docs/draw, is there in light and dark, small, and shown."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.draw.__main__ import main, pictures
from docs.draw.style import ALARM, ONE_FOR_BOTH, colors, file_names

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"!\[([^\]]*)\]\((?:\S*/)?images/(\S+?)(#\S+)?\)")
FILES = sorted(path.name for path in IMAGES.iterdir())


def test_every_file_is_drawn_and_every_picture_has_its_files():
    assert sorted(file for name in pictures() for file in file_names(name)) == FILES


@pytest.mark.parametrize("page", [page for page in PAGES if SHOWN.search(page.read_text())], ids=lambda page: page.stem)
def test_a_page_shows_each_picture_in_light_and_in_dark(page):
    shown = SHOWN.findall(page.read_text())
    for alt, file, mode in shown:
        name = file.removesuffix(".png").removesuffix("_dark")
        assert name in pictures(), f"{file}: no module of docs/draw draws it"
        assert len(alt) > 20, f"{file}: say what is seen"
        if name in ONE_FOR_BOTH:
            assert (file, mode) == (f"{name}.png", "")
        else:
            light, dark = file_names(name)
            assert (alt, light, "#gh-light-mode-only") in shown
            assert (alt, dark, "#gh-dark-mode-only") in shown
            assert file in (light, dark)


def test_no_file_is_unused():
    shown = {file for page in PAGES for _, file, _ in SHOWN.findall(page.read_text())}
    assert shown == set(FILES)


def test_files_are_small():
    sizes = {file: (IMAGES / file).stat().st_size for file in FILES}
    assert {file: size for file, size in sizes.items() if size > 150_000} == {}
    assert sum(sizes.values()) < 2_500_000


def test_one_is_drawn(tmp_path, capsys):
    main(["zoo_vit"], folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["zoo_vit.png", "zoo_vit_dark.png"]
    assert capsys.readouterr().out.startswith("zoo_vit.png ")
    for dark, file in zip((False, True), file_names("zoo_vit"), strict=True):
        with Image.open(tmp_path / file) as drawn, Image.open(IMAGES / file) as kept:
            assert drawn.size == kept.size
            corner = "#{:02x}{:02x}{:02x}".format(*drawn.convert("RGB").getpixel((0, 0)))
        assert corner == colors(dark).paper


def test_a_name_that_is_none_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["zoo_vit", "no_such_picture"], folder=tmp_path)
    assert "no such picture: no_such_picture; there are " in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def luminance(color):
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (
        0.2126,
        0.7152,
        0.0722,
    )


@pytest.mark.parametrize("dark", [False, True])
def test_curves_and_text_stand_out(dark):
    """By the contrast of WCAG: 4.5 for text, and for curves, which are thicker, 2 at least."""
    theme = colors(dark)
    paper = luminance(theme.paper)
    for color, needed in [(theme.ink, 4.5), (ALARM[dark], 3.0), *((color, 2.0) for color in theme.colors)]:
        lower, higher = sorted((luminance(color), paper))
        assert (higher + 0.05) / (lower + 0.05) >= needed, color
