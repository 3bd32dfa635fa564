"""What contributors are told, what the scripts do, what CI runs and what the sdist holds are the same."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import optax_ext

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
CONTRIBUTING = PAGES[0].read_text()
SCRIPTS = sorted((ROOT / "scripts").iterdir())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
URL = "https://github.com/optax-ext/optax_ext"


def run_script(name, *arguments, python, **environment):
    command = [str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment | {"PYTHON": str(python)}, capture_output=True, text=True
    )


def stand_in(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)
    return path


def called_in(text):
    """Return the names of the scripts in a text, but for its comments."""
    return set(re.findall(r"\bscripts/(\w+)", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)))


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_scripts_are_executable_and_stop_at_errors(path):
    assert path.stat().st_mode & stat.S_IXUSR
    lines = path.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    subprocess.run(["bash", "-n", path], check=True)


def test_the_workflow_calls_every_script_and_no_other():
    commands = {step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step}
    assert ".ci/run" in commands  # which runs the blocks of the README
    readme = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    called = set().union(*map(called_in, [*commands, *readme]))
    called |= set().union(*(called_in((ROOT / "scripts" / name).read_text()) for name in called))
    assert called == {path.name for path in SCRIPTS}


def test_the_workflow_runs_each_python_that_the_package_names():
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in PYPROJECT["project"]["classifiers"] if line.startswith(prefix)]
    assert WORKFLOW["jobs"]["check"]["strategy"]["matrix"]["python"] == named
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"
    assert WORKFLOW["jobs"]["lowest"]["steps"][1]["with"]["python-version"] == named[0]
    assert f"python=${{PYTHON:-python{named[0]}}}" in (ROOT / "scripts" / "lowest").read_text()


def test_contributors_are_told_of_every_script():
    assert set(re.findall(r"^\| `(\S+)` \|", CONTRIBUTING, re.MULTILINE)) >= {
        ".ci/run",
        *(f"scripts/{path.name}" for path in SCRIPTS),
    }
    assert called_in(CONTRIBUTING) == {path.name for path in SCRIPTS}
    extras = re.search(r'pip install -e "\.\[([\w,]+)\]"', CONTRIBUTING)[1].split(",")
    assert set(extras) <= set(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_the_pages_name_is_there(page):
    text = page.read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    paths = [path for path in re.findall(r"`([\w./]+)`", text) if path.startswith("tests/")]
    assert [target for target in targets + paths if not (ROOT / target).exists()] == []


def test_tests_run_with_a_cache_that_keeps_all(tmp_path):
    python = stand_in(tmp_path / "python", 'printf "%s\\n" "$@" "$JAX_COMPILATION_CACHE_DIR"; env | grep MIN_COMPILE')
    environment = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": ""}
    lines = run_script("test", "tests/a b.py", "-x", python=python, **environment).stdout.splitlines()
    assert lines[:3] == ["-m", "pytest", "-W"]
    assert lines[4:] == [
        "tests/a b.py",
        "-x",
        str(ROOT / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0",
    ]
    assert ".cache/" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_cache_that_was_damaged_does_no_harm(tmp_path):
    (tmp_path / "test_one.py").write_text(
        """import os, pathlib, jax

def test_one():
    for _ in range(2):
        assert jax.jit(lambda x: x + 1)(1) == 2
        kept = list(pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("*-cache"))
        assert kept
        for file in kept:
            file.write_bytes(file.read_bytes()[:50])
        jax.clear_caches()
"""
    )
    options = ["-c", ROOT / "pyproject.toml", "-p", "no:cacheprovider"]
    cache = str(tmp_path / "cache")
    run = run_script("test", *options, tmp_path, python=sys.executable, JAX_COMPILATION_CACHE_DIR=cache)
    assert run.returncode == 0, run.stdout


def test_every_check_runs_even_if_the_first_fails(tmp_path):
    python = stand_in(tmp_path / "python", '[ "$2" != ruff ]')
    run = run_script("check", python=python)
    assert run.returncode == 1
    assert [line.split()[3] for line in run.stdout.splitlines()][:3] == ["ruff", "ruff", "pyright"]
    assert run_script("check", python=stand_in(tmp_path / "fine", "true")).returncode == 0


@pytest.mark.parametrize("name", ["test", "check"])
def test_a_script_without_an_environment_says_how_to_make_one(name, tmp_path):
    run = run_script(name, python=tmp_path / "nowhere")
    assert run.returncode == 2
    assert run.stderr.endswith(f"{tmp_path}/nowhere not found: set up as CONTRIBUTING.md says, or set PYTHON\n")


def test_the_lowest_versions_are_those_of_the_package():
    (program,) = re.findall(r"<<'END'\n(.*?)^END$", (ROOT / "scripts" / "lowest").read_text(), re.MULTILINE | re.DOTALL)
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    lowest = dict(line.split("==") for line in run.stdout.splitlines())
    assert lowest.keys() >= {"jax", "jaxlib", "numpy", "optax", "pydantic", "pyyaml", "pytest"}
    assert f"jax>={lowest['jax']}" in PYPROJECT["project"]["dependencies"]


def test_the_sdist_takes_all_that_is_tracked():
    if not (ROOT / ".git").exists():
        pytest.skip("nothing is tracked outside of a checkout; scripts/sdist compares what it builds")
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {line.split("/")[0] for line in run.stdout.splitlines()}
    always = {".gitignore", "pyproject.toml"}
    assert {f"/{name}" for name in tracked - always} == set(
        PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    )


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == optax_ext.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["keywords"] == PYPROJECT["project"]["keywords"]
    assert citation["repository-code"] == URL


def test_every_address_of_the_project_is_at_one_place():
    urls = PYPROJECT["project"]["urls"]
    assert urls.keys() == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    for url in urls.values():
        assert url.startswith(URL)
        if parts := re.findall(r"/(?:blob|tree)/main/(.+)", url):
            assert (ROOT / parts[0]).exists()
    texts = [path.read_text() for path in (*PAGES, ROOT / "README.md", *(ROOT / ".github").rglob("*.*ml"))]
    named = re.findall(r"https://github\.com/optax[\w-]*/\w+", "".join(texts))
    assert named
    assert set(named) == {URL}


def test_a_commit_is_checked_by_the_script():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"  # nothing to download
    assert [hook["entry"] for hook in repository["hooks"]] == ["scripts/check"]
