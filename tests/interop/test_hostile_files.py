"""A file that is damaged, or made to do harm, is read or is a ConfigError, in little time and memory."""

import io
import json
import os
import random
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from optax_ext import config, interop
from optax_ext.interop.containers import MAX_BYTES, _saved_model

FILES = Path(__file__).parent / "data" / "files"
SEEDS = sorted(path for path in FILES.rglob("*") if path.is_file())
ADAM = {"class_name": "Adam", "config": {"learning_rate": 0.25}}
MODEL = json.dumps({"compile_config": {"optimizer": ADAM}}).encode()
MB = 2**20


def read(path):
    """Return the optimizer, or None after a ConfigError that says something on lines of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", interop.TranslationWarning)
        try:
            return interop.from_file(path)
        except config.ConfigError as error:
            assert error.problems
            assert all(problem.message for problem in error.problems)
            assert len(str(error).splitlines()) == 1 + len(error.problems)
            assert all(line.isprintable() for line in str(error).splitlines())
            return None


def mutated(content, rng):
    content = bytearray(content)
    match rng.randrange(4):
        case 0:
            del content[rng.randrange(len(content)) :]
        case 1:
            start = rng.randrange(len(content))
            del content[start : start + rng.randrange(1, 100)]
        case 2:
            start = rng.randrange(len(content))
            content[start:start] = rng.randbytes(rng.randrange(1, 40))
        case _:
            head = rng.choice([100, 2000, len(content)])  # headers are at the start
            for _ in range(rng.choice([1, 2, 5, 30])):
                content[rng.randrange(min(head, len(content)))] = rng.choice([0, 127, 128, 255, rng.randrange(256)])
    return content


def mutate_and_read(folder, seed, count):
    rng = random.Random(seed)
    for _ in range(count):
        source = rng.choice(SEEDS)
        path = folder / f"mutated{source.suffix}"
        path.write_bytes(mutated(source.read_bytes(), rng))
        read(path)


def test_mutated_files(tmp_path):
    mutate_and_read(tmp_path, seed=7, count=80)


@pytest.mark.slow
def test_many_mutated_files(tmp_path):
    """`pytest -m slow tests/interop/test_hostile_files.py`; last run: 20,000 files in 52 s: passed."""
    mutate_and_read(tmp_path, seed=11, count=20_000)


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("_", "."), content)


def bounded(path, message):
    """Assert that a file is refused in little time, and why."""
    start = time.perf_counter()
    with pytest.raises(config.ConfigError) as caught:
        interop.from_file(path)
    assert time.perf_counter() - start < 5
    assert message in str(caught.value)


@pytest.fixture
def little_memory():
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * MB


@pytest.mark.usefixtures("little_memory")
def test_archives_that_unpack_to_more_than_they_say(tmp_path):
    path = tmp_path / "model.keras"
    archive(path, config_json=b" " * (MAX_BYTES + 1))
    assert path.stat().st_size < MB
    bounded(path, f"config.json must have at most {MAX_BYTES} bytes")
    content = bytearray(path.read_bytes())
    for start in (content.index(b"PK\x03\x04") + 22, content.index(b"PK\x01\x02") + 24):
        content[start : start + 4] = struct.pack("<I", 10)  # the size that its headers claim
    path.write_bytes(content)
    bounded(path, "model.keras: 1 problem")


@pytest.mark.usefixtures("little_memory")
def test_archives_of_very_many_members(tmp_path):
    path = tmp_path / "model.keras"
    record = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = record * 60_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(directory), 4, 0)
    path.write_bytes(b"PK\x03\x04" + directory + end)
    bounded(path, "is no archive of Keras that can be read: its table of contents is too large")


def test_archives_of_something_else(tmp_path):
    path = tmp_path / "model.keras"
    for members, message in (
        ({}, "must hold 'config.json', as model.keras does, got nothing"),
        ({"model.weights_h5": b""}, "got 'model.weights.h5': it holds weights alone"),
        ({"config_json": b"\xff\xfe"}, "must be UTF-8 text, got byte 0xff at 0: if it is UTF-16"),
        ({"config_json": b"{"}, "is not JSON"),
        ({"config_json": b"[" * 100_000}, "is not JSON that can be read"),
        ({"config_json": b"3"}, "holds no optimizer of Keras; accepted: a compiled model"),
        ({"config_json": b'{"optimizer": {"a": 1, "a": 2}}'}, "the key 'a' occurs twice in one object"),
    ):
        archive(path, **members)
        bounded(path, message)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("config.json", MODEL)
    bounded(path, "deflated or stored")
    path.write_bytes(b"no archive")
    bounded(path, "is no archive of Keras that can be read")


def test_encrypted_archives(tmp_path):
    path = tmp_path / "model.keras"
    archive(path, config_json=MODEL)
    content = bytearray(path.read_bytes())
    for start in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[start] |= 1
    path.write_bytes(content)
    bounded(path, "password required")


def test_paths_out_of_an_archive_are_not_followed(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("config.json")
        link.external_attr = 0o120777 << 16  # a link to a file outside, as text
        file.writestr(link, "../secret.json")
        file.writestr("../config.json", MODEL)
    (tmp_path.parent / "secret.json").write_bytes(MODEL)
    bounded(path, "is not JSON")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3), "its attribute training_config must be text"),
        (3.5, "its attribute training_config must be text"),
        (["{}", "{}"], "its attribute training_config must be text"),
        (h5py.Empty("S10"), "its attribute training_config must be text"),
        ("x" * (MAX_BYTES + 1), "its attribute must have at most 8388608 bytes"),
        (np.bytes_(b"\xff\xff"), "must be UTF-8 text, got byte 0xff"),
        ("", "is empty"),
        ("null", "is a model of Keras without an optimizer"),
        ("{", "is not JSON"),
        ("[" * 50_000, "is not JSON that can be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_attributes_of_hdf5(value, message, tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["training_config"] = value
    bounded(tmp_path / "model.h5", message)


def test_links_of_hdf5_are_not_followed(tmp_path):
    secret, path = tmp_path / "secret.h5", tmp_path / "model.h5"
    with h5py.File(secret, "w") as file:
        file.attrs["training_config"] = MODEL.decode()
        file.create_group("layers")
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink("secret.h5", "/")
        file["model_weights"] = h5py.ExternalLink("/dev/zero", "/")
    secret.unlink()  # so that following a link would fail in another way
    bounded(path, "holds weights alone")


def test_headers_of_hdf5_that_go_on_without_end(tmp_path):
    superblock = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + struct.pack("<4QL", 0, 2**64 - 1, 88, 48, 0)
    header = struct.pack("<BxHLLxxxx", 1, 1, 1, 24)
    message = struct.pack("<HHB3xQQ", 0x10, 16, 0, 64, 24)  # says that itself is what comes next
    (tmp_path / "model.h5").write_bytes(superblock + header + message)
    bounded(tmp_path / "model.h5", "the header of its root has more than 16384 messages")


@pytest.mark.parametrize(
    ("size", "inside", "message"),
    [
        (15 * 65539 + 8, 0xFFFF, "has an impossible size"),  # few messages
        (1000, 0, "has more than 16384 messages"),  # empty ones
        (1000, None, "has more than 16384 messages"),  # messages that name the block again
    ],
)
def test_headers_of_hdf5_that_name_one_block_very_often(size, inside, message, tmp_path):
    superblock = b"\x89HDF\r\n\x1a\n\x02\x08\x08\x00" + struct.pack("<4QL", 0, 2**64 - 1, 48, 48, 0)
    continuation = struct.pack("<BHBQQ", 0x10, 16, 0, 8192, size)
    header = b"OHDR\x02\x02" + struct.pack("<L", 6000) + continuation * 300
    messages = continuation * 49 if inside is None else struct.pack("<BHB", 0, inside, 0).ljust(inside + 4, b"\0") * 15
    block = b"OCHK" + messages
    (tmp_path / "model.h5").write_bytes((superblock + header).ljust(8192, b"\0") + block.ljust(MB, b"\0"))
    bounded(tmp_path / "model.h5", message)


@pytest.mark.parametrize("bytes_of_addresses", [4, 8])
def test_addresses_of_hdf5(bytes_of_addresses, tmp_path):
    path = tmp_path / "model.h5"
    settings = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    settings.set_sizes(bytes_of_addresses, bytes_of_addresses)
    with h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, settings)) as file:
        file.attrs["training_config"] = json.dumps({"optimizer_config": ADAM})
    if bytes_of_addresses == 8:
        assert read(path) == config.Adam(0.25)
        return
    bounded(path, "its addresses and lengths must have 8 bytes")
    with pytest.raises(config.ConfigError, match="with addresses of 8 bytes"):
        interop.state_from_file(path, ["kernel"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "a field is longer than the message that holds it"),
        (b"\x80" * 11, "it ends within a number, or has one that is too long"),
        (b"\x0a", "it ends within a number"),
        (b"\x0f", "a field has the unknown wire type 7"),
        (b"\x0d\x00", "it ends within a field"),
        (b"\x0a\x13\x2a\x7f" + b'"training_config"', "a field is longer than the message"),
        (b"\x0a\x14\x2a\x12" + b'"training_config":', "is not JSON"),
        (b"\x0a\x14\x2a\x12" + b'"training_config"\xff', "must be UTF-8 text"),
        (b"", "has no optimizer"),
    ],
)
def test_protocol_buffers(content, message, tmp_path):
    (tmp_path / "keras_metadata.pb").write_bytes(content)
    bounded(tmp_path / "keras_metadata.pb", message)


def test_protocol_buffers_of_very_many_fields(tmp_path, monkeypatch):
    (tmp_path / "keras_metadata.pb").write_bytes(b"\x0a\x00" * 100_000)
    bounded(tmp_path / "keras_metadata.pb", "has no optimizer")
    monkeypatch.setattr(_saved_model, "_MAX_FIELDS", 99_999)
    bounded(tmp_path / "keras_metadata.pb", "it has more than 99999 fields")


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".md", ".txt", ".pb", ".keras", ".h5"])
def test_pipes_devices_and_what_is_not_there(suffix, tmp_path):
    pipe, link, loop = (tmp_path / f"{name}{suffix}" for name in ("pipe", "link", "loop"))
    os.mkfifo(pipe)
    bounded(pipe, "must be a file, got a device")
    link.symlink_to("/dev/zero")
    bounded(link, "must be a file, got a device")
    loop.symlink_to(loop)
    bounded(loop, "cannot be read")
    bounded(tmp_path / f"nothing{suffix}", "there is no such file")
    bounded(f"zero\0byte{suffix}", "zero")


def test_a_directory_of_links(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "keras_metadata.pb").symlink_to(pipe)
    bounded(folder, "must be a file, got a device")
    (folder / "keras_metadata.pb").unlink()
    (folder / "keras_metadata.pb").symlink_to(tmp_path / "nothing")
    bounded(folder, "there is no such file")
    (folder / "keras_metadata.pb").unlink()
    # As in the cache of the Hugging Face Hub, whose files are links out of the directory.
    (folder / "keras_metadata.pb").symlink_to(FILES / "tf214_saved_model" / "keras_metadata.pb")
    assert interop.identify_writer(folder) == "keras"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.json", b"[" * 1_000_000, "is not JSON that can be read"),
        ("model.json", b" " * (MAX_BYTES + 1), f"must have at most {MAX_BYTES} bytes"),
        ("model.json", b'{"a":' * 50_000, "is not JSON that can be read"),
        (
            "model.json",
            b'{"training_config": {"optimizer_config": ' + b'{"x":' * 500 + b"1" + b"}" * 502,
            "without an optimizer",
        ),
        ("model.json", b'{"training_config": "{' + b"[" * 100_000 + b'"}', "without an optimizer"),
        ("model.yaml", b"- " * 50_000, "is not YAML that can be read"),
        ("model.yaml", b"a: \xff", "must be UTF-8 text"),
        ("card.md", b"- optimizer: {" + b"'" * 90_000, "is no dict that can be read"),
        ("card.md", b"- optimizer: {" + b"[" * 90_000, "is no dict that can be read"),
        ("card.md", b"- optimizer: {'a': " + b"1" * 90_000, "is no dict that can be read"),
        ("card.md", b"- optimizer: {'a': " + b"1" * 200_000, "it must have at most 100000 characters"),
        ("card.md", b"|" * 500_000, "names no optimizer of Keras"),
        ("card.md", b"| name | learning_rate |\n" * 20_000, "holds no optimizer of Keras"),
        ("card.md", b"x" * (MB + 1), "must have at most 1048576 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_text(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    bounded(tmp_path / name, message)


def test_a_model_of_very_many_keys_and_optimizers(tmp_path):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({f"optimizer_{index}": [] for index in range(20_000)}))
    bounded(path, "must have at most 100000 bytes")  # which a recipe of ours may have
    path.write_text(json.dumps([{"optimizer": ADAM}] * 5_000))
    bounded(path, "is one of 101 optimizers")


def test_large_models_are_read(tmp_path):
    layers = [{"class_name": "Dense", "config": {"name": f"dense_{index}", "units": 1}} for index in range(20_000)]
    model = {"class_name": "Functional", "config": {"layers": layers}, "compile_config": {"optimizer": ADAM}}
    (tmp_path / "model.json").write_text(json.dumps(model))
    assert (tmp_path / "model.json").stat().st_size > MB
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("config.json", json.dumps(model))
    (tmp_path / "model.keras").write_bytes(buffer.getvalue())
    assert read(tmp_path / "model.json") == read(tmp_path / "model.keras") == config.Adam(0.25)
