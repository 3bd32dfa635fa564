"""Run the `py` blocks of the pages, which are code of other software, and record what they print.

Each of these blocks is a whole program. It runs by itself in the environment that has what it imports, in an empty
folder with the page's files of YAML:

    python -m tests.docs.foreign keras=/tmp/tensorflow/bin/python torch=/tmp/torch/bin/python [PAGE ...]

`recorded/PAGE.json` then has the hash of each block, the versions of what it imports and what it printed, and the
folder `recorded/PAGE` the files that it wrote. A package stands for an environment; a block runs in the first one
whose package it imports.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
RECORDED = Path(__file__).parent / "recorded"
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BESIDES = {"official": ["tf_keras"]}  # packages that have a part in what a package prints
VERSIONS = """
import importlib.metadata, json, sys
names = importlib.metadata.packages_distributions()
print(json.dumps({name: importlib.metadata.version(names[name][0]) for name in sys.argv[1:] if name in names}))
"""


def blocks_of(page: Path) -> list[str]:
    return [content for language, content in BLOCK.findall(page.read_text()) if language == "py"]


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page's blocks of YAML are, by name."""
    yaml = [content for language, content in BLOCK.findall(page.read_text()) if language == "yaml"]
    return {name[1]: content for content in yaml if (name := re.match(r"# (\S+\.yaml)$", content, re.MULTILINE))}


def hash_of(block: str, files: dict[str, str]) -> str:
    """Return the hash of a block and of those files that it names."""
    read = [content for name, content in files.items() if name in block]
    return hashlib.sha256("\0".join([block, *read]).encode()).hexdigest()


def imports_of(block: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE)))


def record(page: Path, environments: dict[str, str]) -> None:
    outputs, files = [], files_of(page)
    keep = RECORDED / page.stem
    shutil.rmtree(keep, ignore_errors=True)
    for block in blocks_of(page):
        names = imports_of(block)
        python = next(environments[name] for name in names if name in environments)
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                Path(folder, name).write_text(content)
            names += [other for name in names for other in BESIDES.get(name, [])]
            run = [python, "-c", block], [python, "-c", VERSIONS, *names]
            printed, versions = (
                subprocess.run(command, cwd=folder, env=quiet, stdout=subprocess.PIPE, check=True, text=True).stdout
                for command in run
            )
            for written in set(Path(folder).iterdir()) - {Path(folder, name) for name in files}:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(written, keep)
        outputs.append({"sha256": hash_of(block, files), "packages": json.loads(versions), "printed": printed})
        print(printed, end="")
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{page.stem}.json").write_text(json.dumps(outputs, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="PACKAGE=PYTHON, and names of pages; all pages by default")
    what = parser.parse_args().what
    environments = dict(item.split("=", 1) for item in what if "=" in item)
    names = [item for item in what if "=" not in item]
    for page in sorted(DOCS.rglob("*.md")):
        if blocks_of(page) and (not names or page.stem in names):
            record(page, environments)


if __name__ == "__main__":
    main()
