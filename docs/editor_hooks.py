"""What the builder of the site does for the page on which recipes are edited: it runs the package in the browser.

The page gets the package as a zip file, the recipes of the zoo, and its script.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EDITOR = "assets/editor"


def on_files(files: Files, config: Any) -> Files:
    """Put the package and the recipes beside the script."""
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
