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

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
CONTRIBUTING = PAGES[0].read_text()
SCRIPTS = sorted((ROOT / "scripts").iterdir())
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").iterdir()}
JOBS = {(name, job): body for name, workflow in WORKFLOWS.items() for job, body in workflow["jobs"].items()}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
URL = "https://github.com/optax-ext/optax_ext"
SITE = "https://optax-ext.github.io/optax_ext/"
PICTURES = "https://raw.githubusercontent.com/optax-ext/optax_ext/main/"


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


def commands_of(body):
    return [step["run"] for step in body["steps"] if "run" in step]


def test_the_workflows_call_every_script_and_no_other():
    commands = {command for body in JOBS.values() for command in commands_of(body)}
    assert ".ci/run" in commands  # which runs the blocks of the README
    readme = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    called = set().union(*map(called_in, [*commands, *readme]))
    called |= set().union(*(called_in((ROOT / "scripts" / name).read_text()) for name in called))
    assert called == {path.name for path in SCRIPTS}


def test_the_workflows_run_each_python_that_the_package_names():
    prefix = "Programming Language :: Python :: 3."
    named = [
        f"3.{line.removeprefix(prefix)}" for line in PYPROJECT["project"]["classifiers"] if line.startswith(prefix)
    ]
    assert JOBS["ci", "check"]["strategy"]["matrix"]["python"] == named
    assert JOBS["release", "test"]["strategy"]["matrix"]["python"] == named
    assert PYPROJECT["project"]["requires-python"] == f">={named[0]}"
    assert JOBS["ci", "lowest"]["steps"][1]["with"]["python-version"] == named[0]
    assert f"python=${{PYTHON:-python{named[0]}}}" in (ROOT / "scripts" / "lowest").read_text()
    table = re.findall(r"^\| Python \| ([\d., ]+) \|", (ROOT / "docs" / "versions.md").read_text(), re.MULTILINE)
    assert table == [", ".join(named)]


def test_jobs_may_write_only_what_they_are_for():
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
    assert {job: body["permissions"] for job, body in JOBS.items() if "permissions" in body} == {
        ("ci", "deploy"): {"pages": "write", "id-token": "write"},
        ("release", "publish"): {"id-token": "write"},
        ("release", "announce"): {"contents": "write"},
    }
    for job, body in JOBS.items():
        assert body["timeout-minutes"] <= 360, job
        for action in [step["uses"] for step in body["steps"] if "uses" in step]:
            assert re.fullmatch(r"actions/[\w-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", action), (job, action)


def test_only_a_tag_is_published_and_only_what_was_tested():
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    needs = {name: body.get("needs") for (workflow, name), body in JOBS.items() if workflow == "release"}
    assert needs == {"build": None, "test": "build", "publish": "test", "announce": "publish"}
    assert JOBS["release", "publish"]["environment"]["name"] == "pypi"
    assert (
        JOBS["release", "build"]["steps"][0]["with"]["fetch-depth"] == 0
    )  # or there is no tag to take the version from
    assert "scripts/build dist" in commands_of(JOBS["release", "build"])


def test_the_site_is_deployed_from_main_alone():
    main = "github.event_name == 'push' && github.ref == 'refs/heads/main'"
    assert JOBS["ci", "deploy"]["if"] == main
    assert set(JOBS["ci", "deploy"]["needs"]) == {"check", "site"}
    build = commands_of(JOBS["ci", "site"])
    assert build[-1] == "mkdocs build --strict"
    assert [step["if"] for step in JOBS["ci", "site"]["steps"] if "upload" in step.get("uses", "")] == [main]


def test_what_may_fail_is_not_asked_of_a_change():
    assert [job for job, body in JOBS.items() if body.get("continue-on-error")] == [("scheduled", "newest")]
    crons = [entry["cron"] for entry in WORKFLOWS["scheduled"][True]["schedule"]]
    conditions = [JOBS["scheduled", job]["if"] for job in ("slow", "newest")]
    assert conditions == [f"github.event.schedule != '{cron}'" for cron in crons]


def test_other_systems_run_the_tests_of_the_package():
    body = JOBS["ci", "systems"]
    arguments = " ".join(
        [*commands_of(body), *(row.get("left_out", "") for row in body["strategy"]["matrix"]["include"])]
    )
    paths = re.findall(r"\btests/\S+", arguments)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    rooms = {path.name for path in (ROOT / "optax_ext").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert {path.removeprefix("tests/") for path in paths} >= rooms


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


def test_the_citation_says_what_the_package_says():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert "version" not in citation  # it stands in the tag alone
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert citation["abstract"] == PYPROJECT["project"]["description"]
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert citation["keywords"] == PYPROJECT["project"]["keywords"]
    assert citation["repository-code"] == URL
    assert citation["url"] == SITE


def test_every_address_of_the_project_is_at_one_place():
    urls = PYPROJECT["project"]["urls"]
    assert urls.keys() == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    assert urls.pop("Documentation") == SITE
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


def links_of(markdown):
    """Return the targets of links and pictures of a text, in Markdown and in HTML."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", markdown, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE)
    return found + re.findall(r"\b(?:href|src|srcset)=[\"']([^\"']+)", text)


def file_behind(link):
    """Return the file of this repository that a link leads to, None if it leads elsewhere, "" if it is relative."""
    address = link.partition("#")[0].partition("?")[0]
    if not link.startswith("https://"):
        return ""
    if address.startswith(SITE):
        page = address.removeprefix(SITE).rstrip("/")
        return next(
            (name for name in (f"docs/{page}.md", f"docs/{page}/index.md") if (ROOT / name).exists()),
            "docs/index.md" if not page else f"docs/{page}.md",
        )
    if address.startswith(PICTURES):
        return address.removeprefix(PICTURES)
    if found := re.match(rf"{URL}/actions/(workflows/[\w.]+)", address):
        return f".github/{found[1]}"
    if found := re.match(rf"{URL}/(?:blob|tree|raw)/main/(.+)", address):
        return found[1].rstrip("/")
    return None


@pytest.mark.parametrize("link", sorted(set(links_of((ROOT / "README.md").read_text()))))
def test_links_of_the_readme_lead_somewhere_on_pypi_too(link):
    file = file_behind(link)
    assert file != "", "PyPI shows the README without the repository around it, so links must be absolute"
    assert file is None or (ROOT / file).exists()


def test_links_are_found_and_understood():
    text = f"""[a](docs/a.md) ![b](<{PICTURES}docs/images/b.png#gh-dark-mode-only> "title") [`c`][c] `[d](d.md)`
<picture><source srcset="{PICTURES}e.png"><img src='f.png'></picture> [![g](g.svg)]({URL}/blob/main/README.md#top)
```bash
[h](h.md)
```
[c]: {URL}/issues
"""
    files = {
        "docs/a.md": "",
        f"{PICTURES}docs/images/b.png#gh-dark-mode-only": "docs/images/b.png",
        f"{PICTURES}e.png": "e.png",
        "f.png": "",
        "g.svg": "",
        f"{URL}/blob/main/README.md#top": "README.md",
        f"{URL}/issues": None,
    }
    assert set(links_of(text)) == files.keys()
    more = {
        "#heading": "",
        f"{URL}/actions/workflows/ci.yml/badge.svg": ".github/workflows/ci.yml",
        f"{SITE}units/#rates": "docs/units.md",
        f"{SITE}nowhere/": "docs/nowhere.md",
        "https://arxiv.org/abs/1708.03888": None,
    }
    assert {link: file_behind(link) for link in files | more} == files | more


def test_the_build_and_the_wheel_stop_at_what_is_wrong(tmp_path):
    (tmp_path / "old.whl").write_text("")
    run = run_script("build", tmp_path, python="false")
    assert run.returncode == 2
    assert run.stderr.endswith("is not empty: what lies there might be published too\n")
    assert run_script("wheel", tmp_path / "none.whl", python="false").returncode == 1
