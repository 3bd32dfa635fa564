"""The notebook runs from top to bottom, and prints what is stored in it.

`python -m tests.examples.test_notebook` runs it and stores what it prints and draws. It needs no Jupyter.
"""

import base64
import contextlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"
MOST_BYTES = 150_000


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(notebook: Any, names: dict[str, Any]) -> list[list[Any]]:
    """Run the code cells in order in a namespace; return the outputs of each, in the notebook's format."""
    outputs: list[list[Any]] = []
    for index, cell in enumerate(code_cells(notebook)):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile("".join(cell["source"]), f"cell {index}", "exec"), names)
        outputs.append([])
        for number in plt.get_fignums():
            picture = io.BytesIO()
            plt.figure(number).savefig(picture, dpi=110)
            data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<Figure>"]}
            outputs[-1].append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")
        if text := printed.getvalue():
            outputs[-1].append({"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)})
    return outputs


def text_of(outputs: list[Any]) -> str:
    return "".join(line for output in outputs if output["output_type"] == "stream" for line in output["text"])


def numbers_apart(text: str) -> tuple[list[str], list[float]]:
    """Part a text into what is the same everywhere and decimals, whose last digits depend on the machine."""
    decimal = r"\b\d+\.\d+\b"
    return re.split(decimal, text), [float(number) for number in re.findall(decimal, text)]


@pytest.fixture(scope="module")
def notebook() -> Any:
    return json.loads(NOTEBOOK.read_text())


def test_it_prints_and_draws_what_is_stored(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with mpl.rc_context():
        mpl.use("agg")
        outputs = run(notebook, names)
    for cell, ours in zip(code_cells(notebook), outputs, strict=True):
        said, decimals = numbers_apart(text_of(ours))
        expected, expected_decimals = numbers_apart(text_of(cell["outputs"]))
        assert said == expected
        assert decimals == pytest.approx(expected_decimals, rel=0.02)
        kinds = [[output["output_type"] for output in of] for of in (ours, cell["outputs"])]
        assert kinds[0] == kinds[1]
    assert set(names["skipped"]) > {names["NAN_STEP"]}  # the figure shows that step, and those that overflowed


def test_it_is_small_and_says_nothing_of_where_it_was_run(notebook: Any) -> None:
    text = NOTEBOOK.read_text()
    assert len(text) < MOST_BYTES
    assert not re.search(r"/(home|root|work|tmp|Users|opt)/", text)
    assert [cell["execution_count"] for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_its_links_lead_somewhere(notebook: Any) -> None:
    text = "".join(line for cell in notebook["cells"] if cell["cell_type"] == "markdown" for line in cell["source"])
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (NOTEBOOK.parent / target).exists()] == []


def store() -> None:
    """Run the notebook in an empty folder, and store its outputs in it."""
    notebook = json.loads(NOTEBOOK.read_text())
    mpl.use("agg")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outputs = run(notebook, {"__name__": "__main__"})
    for count, (cell, its) in enumerate(zip(code_cells(notebook), outputs, strict=True), start=1):
        cell["execution_count"], cell["outputs"] = count, its
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    store()
