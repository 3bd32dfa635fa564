"""What the pages show of other software is what it printed, from the code as it stands there."""

import json

import pytest

from tests.docs.foreign import BLOCK, DOCS, RECORDED, blocks_of, files_of, hash_of

PAGES = sorted(page for page in DOCS.rglob("*.md") if blocks_of(page))
RECORD_AGAIN = "record it again: tests/docs/foreign.py says how"


def recording_of(page):
    return json.loads((RECORDED / f"{page.stem}.json").read_text())


def shown_after(page):
    """Return each block of code with the text right after it, in order."""
    blocks = list(BLOCK.finditer(page.read_text()))
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] in {"py", "python"}:
            is_next = (
                after is not None and after[1] == "text" and not page.read_text()[block.end() : after.start()].strip()
            )
            yield block[1], after[2] if is_next else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_recording_is_of_the_code_as_it_stands(page):
    hashes = [hash_of(block, files_of(page)) for block in blocks_of(page)]
    assert [block["sha256"] for block in recording_of(page)] == hashes, f"{page.name} has changed: {RECORD_AGAIN}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_exactly_what_was_printed(page):
    shown = [text for language, text in shown_after(page) if language == "py"]
    assert shown == [block["printed"] for block in recording_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_names_the_versions(page):
    packages = {f"{name} {version}" for block in recording_of(page) for name, version in block["packages"].items()}
    text = " ".join(page.read_text().split()).replace("`", "")
    names = {"keras": "Keras", "official": "Model Garden", "torch": "torch", "tf_keras": "tf_keras"}
    versions = {names[name] + " " + version for name, version in map(str.split, packages) if name in names}
    assert {version for version in versions if version not in text} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem.startswith("from_")], ids=lambda page: page.stem)
def test_ours_prints_the_same(page):
    theirs, ours = ([text for is_of, text in shown_after(page) if is_of == language] for language in ("py", "python"))
    ours = [line for text in ours if text for line in text.splitlines()]
    assert [line for text in theirs for line in text.splitlines() if line not in ours] == []
