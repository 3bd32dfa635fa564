"""Every block of every page of the site does what the page says.

A page's blocks run in order, in one namespace and one empty folder:

- `python` runs, and `console` runs its lines that begin with `$ optax-ext`.
- `text` right after one of these is what it prints; a line that ends in `...` may go on.
- Where a table's last column is `code`, that runs after all blocks, each row by itself.
- A `yaml` or `python` block that begins with `# name.yaml` or `# name.py` is written to that file.
- `py` is code of other software, which `foreign.py` runs; the files that it wrote are there. `bash` is for a person's
  shell.
"""

import contextlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optax_ext.cli import main

DOCS = Path(__file__).parents[2] / "docs"
LANGUAGES = {"python", "console", "text", "yaml", "json", "py", "bash"}
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = {"python", "console"}
PAGES = sorted(
    page for page in DOCS.rglob("*.md") if RUN & {language for language, _ in BLOCK.findall(page.read_text())}
)
WITH_A_TEST = {page for page in PAGES if Path(__file__).with_name(f"test_{page.stem}.py").exists()}


def run_commands(text: str) -> None:
    for line in text.splitlines():
        if line.startswith("$ "):
            program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
            assert program == "optax-ext", f"{line}: only optax-ext is run here"
            if "--import" in arguments:  # what it imports registers schedules, in a process of its own
                command = [sys.executable, "-m", "optax_ext", *arguments]
                print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")
            else:
                assert main(arguments) == 0, line


def code_in_tables(text: str) -> list[str]:
    """Return the code in the last cells of those tables whose last column is `code`."""
    tables = re.findall(r"^\|[^\n]*\| code \|\n\|[-|: ]+\|\n((?:\|[^\n]*\n)+)", text, re.MULTILINE)
    return [row.rsplit(" | ", 1)[1].strip("` |") for table in tables for row in table.splitlines()]


def is_printed(shown: str, printed: str) -> bool:
    lines = shown.rstrip().splitlines(), printed.rstrip().splitlines()
    if len(lines[0]) != len(lines[1]):
        return False
    pairs = zip(*lines, strict=True)
    return all(now.startswith(said.removesuffix("...")) if said.endswith("...") else now == said for said, now in pairs)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITH_A_TEST], ids=lambda page: page.stem)
def test_the_blocks_run_and_print_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    if (written := Path(__file__).parent / "recorded" / page.stem).exists():
        shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    names, text, end, printed = {"__name__": "__main__"}, page.read_text(), 0, None
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        assert language in LANGUAGES, f"{page.name}: a block is of {language}, which nothing runs"
        if text[end : block.start()].strip():
            printed = None  # words stand between what ran and this block
        end = block.end()
        if language in ("yaml", "python") and (name := re.match(r"# (\S+\.(?:yaml|py))\n", content)):
            Path(name[1]).write_text(content)
        elif language in RUN:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                if language == "console":
                    run_commands(content)
                else:
                    line = text[: block.start()].count("\n") + 1  # so that an error names the line of the page
                    exec(compile("\n" * line + content, str(page), "exec"), names)
            printed = out.getvalue()
        elif language == "text" and printed is not None:
            assert is_printed(content, printed), f"{page.name} shows\n{content}\nbut this is printed:\n{printed}"
            printed = None
    for code in code_in_tables(text):
        exec(compile(code, str(page), "exec"), dict(names))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_links_and_pictures_are_there(page):
    text = re.sub(BLOCK, "", page.read_text())
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) + re.findall(r'(?:src|srcset)="([^"#]+)', text)
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
