"""The site has a page for everything, and its links lead where they do in the repository."""

import re
import typing
from pathlib import Path

import pytest
import yaml

import optax_ext
from optax_ext import config, interop, loss_scaling, masks, schedules, telemetry, transforms

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Loader(yaml.SafeLoader):
    """Reads the tags of Python in mkdocs.yml as nothing."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def leaves(nav):
    if isinstance(nav, str):
        return [nav]
    return [page for item in (nav.values() if isinstance(nav, dict) else nav) for page in leaves(item)]


def test_every_page_is_in_the_navigation_once():
    made = {"index.md", "contributing.md", "changelog.md", "security.md"}  # of documents at the root, by docs/hooks.py
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(leaves(SITE["nav"])) == sorted(made | written)


def shown():
    """Return the names that the pages of the API show, each as its object."""
    names = re.findall(r"^::: (\S+)$", "\n".join(path.read_text() for path in DOCS.glob("api/*.md")), re.MULTILINE)
    found = {}
    for name in names:
        thing = optax_ext
        for part in name.split(".")[1:]:
            thing = getattr(thing, part)
        found.setdefault(id(thing), []).append(name)
    return found


@pytest.mark.parametrize(
    "room",
    [optax_ext, schedules, masks, transforms, loss_scaling, config, telemetry, interop],
    ids=lambda r: r.__name__,
)
def test_every_public_name_is_on_a_page_of_the_api_once(room):
    on_pages = shown()
    for name in room.__all__:
        thing = getattr(room, name)
        is_a_type_of_fields = typing.get_origin(thing) is not None
        if not is_a_type_of_fields and not isinstance(thing, type(optax_ext)):
            assert len(on_pages.get(id(thing), [])) == 1, f"{room.__name__}.{name}"


def test_the_shortest_name_is_shown():
    for names in shown().values():
        for name in names:
            assert name.count(".") == 1 or name.rpartition(".")[2] not in optax_ext.__all__


@pytest.fixture(scope="module")
def address():
    hooks = pytest.importorskip("docs.hooks", reason="MkDocs, of the extra `docs`, is not installed")
    return lambda target, folder: hooks.address(target, ROOT / folder, SITE)


@pytest.mark.parametrize(
    ("target", "folder", "expected"),
    [
        ("units.md", "docs", "units.md"),
        ("../units.md", "docs/api", "../units.md"),
        ("images/zoo_vit.png", "docs", "images/zoo_vit.png"),
        ("draw/zoo.py", "docs", "https://github.com/optax-ext/optax_ext/blob/main/docs/draw/zoo.py"),
        ("../examples/ema.py", "docs", "https://github.com/optax-ext/optax_ext/blob/main/examples/ema.py"),
        ("../examples", "docs", "https://github.com/optax-ext/optax_ext/tree/main/examples"),
        ("docs/zoo.md", "", "zoo.md"),
        ("docs/draw", "", "https://github.com/optax-ext/optax_ext/tree/main/docs/draw"),
        ("SECURITY.md", "", "security.md"),
        ("LICENSE", "", "https://github.com/optax-ext/optax_ext/blob/main/LICENSE"),
        ("https://optax-ext.github.io/optax_ext/units/", "", "units.md"),
        ("https://optax-ext.github.io/optax_ext/", "", "index.md"),
        ("https://optax-ext.github.io/optax_ext/api/", "", "api/index.md"),
        (
            "https://raw.githubusercontent.com/optax-ext/optax_ext/main/docs/images/zoo_vit.png",
            "",
            "images/zoo_vit.png",
        ),
        ("https://arxiv.org/abs/1708.03888", "docs", "https://arxiv.org/abs/1708.03888"),
    ],
)
def test_links_are_turned_for_the_site(address, target, folder, expected):
    assert address(target, folder) == expected


@pytest.mark.parametrize("code", ["`[it](docs/zoo.md)`", "```python\nvalue_and_grad(loss_fn, state)[0](params)\n```"])
def test_code_is_not_taken_for_a_link(code):
    hooks = pytest.importorskip("docs.hooks", reason="MkDocs, of the extra `docs`, is not installed")
    text = "{} and [`zoo`]({})"
    turned = hooks.relink(text.format(code, "docs/zoo.md"), ROOT, SITE)
    assert turned == text.format(code, "zoo.md")


def test_names_in_tables_break_between_their_parts_and_elsewhere_not():
    hooks = pytest.importorskip("docs.hooks", reason="MkDocs, of the extra `docs`, is not installed")
    cell = '<td>a_b <code>a_b(c)</code> <a href="a_b.md">a_b</a></td>'
    outside = "<p><code>a_b</code></p>"
    broken = '<td>a_b <code>a_<wbr>b(<wbr>c)</code> <a href="a_b.md">a_<wbr>b</a></td>'
    assert hooks.on_page_content(outside + cell) == outside + broken


@pytest.mark.parametrize("document", ["CONTRIBUTING", "CHANGELOG", "SECURITY"])
def test_addresses_in_documents_lead_somewhere(document):
    text = (ROOT / f"{document}.md").read_text()
    owner = re.escape(SITE["repo_name"])
    for path in re.findall(rf"githubusercontent\.com/{owner}/main/([^)\s#\"]+)", text):
        assert (ROOT / path).exists(), path
    for path in re.findall(rf"github\.com/{owner}/(?:blob|tree)/main/([^)\s#\"]+)", text):
        assert (ROOT / path).exists(), path
