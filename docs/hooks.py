"""What the builder of the site does to pages, so that they read as well in the repository as on the site.

Pages and the documents at the root link to files of the repository as these lie. On the site, links to pages stay, and
links to all other files lead to GitHub. The README has whole addresses, which hold on PyPI too: those of the site
become links to its pages, so that a strict build checks them.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = {"index": "README", "contributing": "CONTRIBUTING", "changelog": "CHANGELOG", "security": "SECURITY"}
CODE_OR_TARGET = re.compile(
    r'(?P<ticks>`+).+?(?P=ticks)|(?P<target>(?<=\]\()[^)\s#]+|(?<=src=")[^"#]+|(?<=srcset=")[^"#]+)', re.DOTALL
)
CELL = re.compile(r"<t[hd]\b.*?</t[hd]>", re.DOTALL)
NAME = re.compile(r"([_.,/=(])(?=[^<>]+</(?:code|a)>)")
PRIVATE_BASES = re.compile(r'<p class="doc doc-class-bases">\s*Bases: <code><span title="optax_ext\..*?</p>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Make pages of the documents at the root."""
    for page, document in DOCUMENTS.items():
        text = (ROOT / f"{document}.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"{page}.md", content=relink(text, ROOT, config)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn the links of a page, and let pages that explain come before those of the API in a search."""
    if page.file.src_path.startswith("api/"):
        page.meta["search"] = {"boost": 0.6}
    return relink(markdown, (DOCS / page.file.src_path).parent, config)


def on_page_content(html: str, **_: Any) -> str:
    """Let names in tables break between their parts."""
    return CELL.sub(lambda cell: NAME.sub(r"\1<wbr>", cell[0]), html)


def on_post_page(output: str, **_: Any) -> str:
    """Leave out base classes that have no place to link to."""
    return PRIVATE_BASES.sub("", output)


def relink(text: str, folder: Path, config: Any) -> str:
    """Return the text of a page, whose links start in a folder of the repository, with links for the site."""

    def turn(found: re.Match[str]) -> str:
        return address(target, folder, config) if (target := found["target"]) else found[0]

    return CODE_OR_TARGET.sub(turn, text)


def address(target: str, folder: Path, config: Any) -> str:
    """Return what a target is on the site."""
    repository, site = f"{config['repo_url']}/blob/main/", config["site_url"]
    raw = repository.replace("github.com", "raw.githubusercontent.com").replace("/blob/", "/")
    if target.startswith(site):
        page = target.removeprefix(site).rstrip("/")
        return f"{page}/index.md".lstrip("/") if (DOCS / page).is_dir() else f"{page}.md"
    if target.startswith(f"{raw}docs/"):
        return target.removeprefix(f"{raw}docs/")
    if "://" in target or target.startswith("mailto:"):
        return target
    path = Path(os.path.normpath(folder / target))
    if path.is_relative_to(DOCS) and not path.is_dir() and path.suffix != ".py":
        return os.path.relpath(path, DOCS if folder == ROOT else folder)
    if folder == ROOT and (names := [page for page, document in DOCUMENTS.items() if target == f"{document}.md"]):
        return f"{names[0]}.md"
    if not path.exists() and folder != ROOT:
        return target  # a page that is made of a document
    kind = "tree" if path.is_dir() else "blob"
    return f"{config['repo_url']}/{kind}/main/{path.relative_to(ROOT)}"
