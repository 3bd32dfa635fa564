"""What the builder of the site does to pages, so that they read as well in the repository as on the site.

Pages and the documents at the root link to files of the repository as these lie. On the site, links to pages stay, and
links to all other files lead to GitHub. The README has whole addresses, which hold on PyPI too: those of the site
become links to its pages, so that a strict build checks them.

The page on which recipes are edited runs the package in the browser, and gets its files with the site.
"""

import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EDITOR = "assets/editor"
DOCUMENTS = {"index": "README", "contributing": "CONTRIBUTING", "changelog": "CHANGELOG", "security": "SECURITY"}
TARGET = re.compile(r'(?<=\]\()[^)\s#]+|(?<=src=")[^"#]+|(?<=srcset=")[^"#]+')


def on_files(files: Files, config: Any) -> Files:
    """Make pages of the documents at the root."""
    for page, document in DOCUMENTS.items():
        text = (ROOT / f"{document}.md").read_text(encoding="utf-8")
        head = "---\nhide: [navigation]\n---\n\n" if page == "index" else ""
        files.append(File.generated(config, f"{page}.md", content=head + relink(text, ROOT, config)))
    files.append(File.generated(config, f"{EDITOR}/optax_ext.zip", content=package()))
    recipes = {path.stem: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("examples/configs/*.yaml"))}
    files.append(File.generated(config, f"{EDITOR}/recipes.json", content=json.dumps(recipes)))
    return files


def package() -> bytes:
    """Return what the editor imports, as a zip file: the package, and the modules beside its page."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for folder, found in ((ROOT, "optax_ext/**/*.py"), (DOCS / EDITOR, "*.py")):
            for path in sorted(folder.glob(found)):
                archive.writestr(path.relative_to(folder).as_posix(), path.read_bytes())
    return packed.getvalue()


def on_page_content(html: str, *, page: Any, **_: Any) -> str:
    """Add the editor to its page."""
    if page.file.src_uri != "editor.md":
        return html
    style = f'<link rel="stylesheet" href="../{EDITOR}/editor.css">'
    return f'{style}\n{html}\n<script type="module" src="../{EDITOR}/editor.js"></script>'


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn the links of a page."""
    return relink(markdown, (DOCS / page.file.src_path).parent, config)


def relink(text: str, folder: Path, config: Any) -> str:
    """Return the text of a page, whose links start in a folder of the repository, with links for the site."""
    return TARGET.sub(lambda found: address(found[0], folder, config), text)


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
    if path.is_relative_to(DOCS) and not path.is_dir():
        return os.path.relpath(path, DOCS if folder == ROOT else folder)
    if folder == ROOT and (names := [page for page, document in DOCUMENTS.items() if target == f"{document}.md"]):
        return f"{names[0]}.md"
    if not path.exists() and folder != ROOT:
        return target  # a page that is made of a document
    kind = "tree" if path.is_dir() else "blob"
    return f"{config['repo_url']}/{kind}/main/{path.relative_to(ROOT)}"
