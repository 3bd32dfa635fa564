"""Files: what is written reads back equal, and what cannot be read is one clear error, at once."""

import os
import pathlib
import pickle

import pytest
import yaml

import optax_ext
from optax_ext import config

RECIPE = config.OptimizationConfig(
    optimizer=config.LARS(
        learning_rate=optax_ext.LinearWarmup(optax_ext.ExponentialDecay(1e-3, 2.4, 0.97), 5),
        weight_decay_rate=1e-10,
        exclude_from_weight_decay=(
            "bias",
            "1e-3",
            "off",
            "no",
            "1.0",
            "0x10",
            "1:30",
            "null",
            "~",
            "yes",
            "é",
            "a: b",
            "# c",
        ),
        allow_unmatched=True,
    ),
    loss_scale=config.FixedLossScale(2.0**100),
)


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml", ".YAML"])
@pytest.mark.parametrize("exclude_defaults", [False, True])
def test_files_read_back_equal(tmp_path, suffix, exclude_defaults):
    path = tmp_path / f"recipe{suffix}"
    path.write_text("what was there before")
    config.save(RECIPE, path, exclude_defaults=exclude_defaults)
    assert config.load(path) == RECIPE
    assert config.load(str(path)) == RECIPE
    assert os.listdir(tmp_path) == [path.name]


def test_yaml_text_is_the_same_to_a_reader_of_yaml_1_1(tmp_path):
    config.save(RECIPE, tmp_path / "recipe.yaml")
    text = (tmp_path / "recipe.yaml").read_text()
    assert yaml.safe_load(text) == config.to_dict(RECIPE)
    assert "!!" not in text
    assert "'1e-3'" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("1E-3", 1e-3),
        (".5", 0.5),
        ("1.", 1.0),
        ("+2", 2.0),
        ("007", 7.0),
        ("1e4", 1e4),
        ("&x 0.5", 0.5),
        ("!!float 3", 3.0),
    ],
)
def test_numbers_are_numbers(tmp_path, text, expected):
    (tmp_path / "c.yaml").write_text(f"{{type: constant, learning_rate: {text}}}")
    assert config.load(tmp_path / "c.yaml") == optax_ext.Constant(expected)


@pytest.mark.parametrize(
    "text", ["off", "yes", "1:30", "1_000", "0x10", "'0.5'", "2020-01-01", "null", "true", "[1]", "="]
)
def test_what_is_no_number_stays_what_it_is(tmp_path, text):
    (tmp_path / "c.yaml").write_text(f"{{type: constant, learning_rate: {text}}}")
    with pytest.raises(config.ConfigError, match=r"learning_rate: must be a (finite )?number, got"):
        config.load(tmp_path / "c.yaml")


def test_words_stay_text(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "{type: lars, learning_rate: 1, exclude_from_weight_decay: [off, on, no, y, 1:30]}"
    )
    assert config.load(tmp_path / "c.yaml").exclude_from_weight_decay == ("off", "on", "no", "y", "1:30")


def test_anchors_and_merges_are_followed(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "optimizer: {type: sgd, learning_rate: &lr {type: linear_warmup, warmup_steps: 5, "
        "after: {<<: {type: constant}, learning_rate: 0.1}}}\n"
    )
    assert config.load(tmp_path / "c.yaml").optimizer.learning_rate == optax_ext.LinearWarmup(
        optax_ext.Constant(0.1), 5
    )


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 10)}]}}\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BROKEN = {
    "several.yaml": (
        "a: 1\n---\nb: 2\n",
        "expected a single document in the stream, but found another document in line 2, column 1",
    ),
    "broken.yaml": (
        "a: [1, 2\n",
        "is not YAML that can be read: .* in line 2, column 1; it began in line 1: a: \\[1, 2$",
    ),
    "quote.yaml": ("a: 1\nb: 'x\nc: 2\n", "end of stream in line 4, column 1; it began in line 2: b: 'x$"),
    "tab.yaml": ("a:\n\t- b\n", r"in line 2, column 1 \(indent with spaces, since YAML takes no tabs\): - b$"),
    "indent.yaml": ("a: 1\n b: 2\n", r"in line 2, column 3 \(look at the indentation, .*\): b: 2$"),
    "dedent.yaml": ("a:\n  b: 1\n c: 2\n", r"in line 3, column 2 \(indent all fields of a mapping alike\): c: 2$"),
    "space.yaml": (
        "{type:sgd, momentum: 1}",
        "a space is missing after the ':' of 'type:sgd' in line 1, column 2: {type:sgd",
    ),
    "star.yaml": (
        "a: [*b]",
        r"alias 'b' in line 1, column 5 \(put text that begins with '\*' in quotes\): a: \[\*b\]$",
    ),
    "percent.yaml": ("a: [%b]", r"'%' .* \(put text that begins with it in quotes\): a: \[%b\]$"),
    "escape.yaml": ('a: ["\\d"]', r'in line 1, column 7 \(put regular expressions in single quotes\): a: \["\\d"\]$'),
    "long.yaml": (
        "{" + "a, " * 100 + "*b, " + "a, " * 100 + "}",
        r"column 302 .*\): …, a, a, .* a, \*b, a, .* a, a,…$",
    ),
    "bomb.yaml": (BOMB, "at most 100000 values once its aliases are followed"),
    "merge_bomb.yaml": (MERGE_BOMB, "at most 100000 values once its aliases are followed"),
    "itself.yaml": ("&a [*a]", "at most 100000 values once its aliases are followed"),
    "python.yaml": ("!!python/object/apply:os.system ['touch pwned']", "could not determine a constructor for the tag"),
    "tuple.yaml": ("{type: constant, learning_rate: !!python/tuple [1]}", "could not determine a constructor"),
    "tuple_of_theirs.yaml": ("a: !!python/tuple [1]", "`optax-ext convert` reads the tuples of Model Garden's files"),
    "twice.yaml": (
        "type: sgd\nlearning_rate: 1\n\n# a word\nlearning_rate: 2\n",
        "the key 'learning_rate' occurs twice in one mapping, in line 2 and in line 5, column 1: learning_rate: 2$",
    ),
    "twice_inside.yaml": ("a: {b: 1}\nc: {b: 1,\n  b: 2}\n", "'b' .* in line 2 and in line 3, column 3: b: 2}$"),
    "unhashable.yaml": ("{[1]: 2}", "is not YAML that can be read"),
    "deep.yaml": ("[" * 5000, "is not YAML that can be read"),
    "digits.yaml": ("a: " + "9" * 5000, "is not YAML that can be read"),
    "control.yaml": ("a: 1\nb: \x01", r"it may not have the character '\\x01' in line 2: b: \\x01$"),
    "zero.yaml": (
        "a: \0",
        "must be UTF-8 text, got a zero byte at 3: if it is UTF-16, as Windows tools write, save it as",
    ),
    "bool.yaml": ("learning_rate: !!bool maybe", "is not YAML that can be read"),
    "key.yaml": ("!!bool maybe: 1", "is not YAML that can be read"),
    "timestamp.yaml": ("learning_rate: !!timestamp foo", "is not YAML that can be read"),
    "map.yaml": ("learning_rate: !!map 3", "is not YAML that can be read"),
    "surrogate.json": (
        r'{"type": "constant", "learning_rate": "\ud800"}',
        "learning_rate: must be a number, got",
    ),
    "undefined.yaml": ("a: *b", "found undefined alias"),
    "empty.yaml": ("", "  is empty$"),
    "blank.yaml": (" \n\n", "  is empty$"),
    "comments.yaml": ("# later\n\n# tomorrow\n", "  is empty, but for comments$"),
    "mark.yaml": ("\ufeff", "  is empty$"),
    "null.yaml": ("null", "  is empty$"),
    "marker.yaml": ("---\n", "  is empty$"),
    "braces.yaml": ("{}\n", "  is empty$"),
    "null.json": ("null", "  is empty$"),
    "braces.json": ("{}", "  is empty$"),
    "text.yaml": ("lars", "must be a mapping with a 'type'.* got 'lars'"),
    "list.yaml": ("- 1", "must be a mapping with a 'type'"),
    "broken.json": ('{"b": 2,\n "a": 1,}', 'is not JSON: .* in line 2, column [0-9]+: "a": 1,}$'),
    "really.json": ("a: 1\nb: 2\n", r"in line 1, column 1 \(the name of a YAML file must end in .yaml\): a: 1$"),
    "twice.json": (
        '{"a": 1, "a": 2}',
        'the key \'a\' occurs twice in one object, in line 1 and in line 1: {"a": 1, "a": 2}$',
    ),
    "twice_inside.json": (
        '{"a": {"b": "}{", "\\"": 1},\n "c": [{"a": 0}, {"\\u0061": 1,\n "x": {"a": "a"},\n "a": 2}],\n "a": 3}',
        "the key 'a' occurs twice in one object, in line 2 and in line 4: \"a\": 2}],$",
    ),
    "nan.json": ('{"type": "constant", "learning_rate": NaN}', "learning_rate: must be a finite number, got nan"),
    "deep.json": ("[" * 90_000, "is not JSON that can be read"),
    "digits.json": ('{"a": ' + "9" * 5000 + "}", "is not JSON that can be read"),
    "empty.json": ("", "  is empty$"),
    "config.toml": ("a = 1", r"must end in \.json, \.yaml or \.yml, got '\.toml'"),
    "large.yaml": ("a" * 100_001, "must have at most 100000 bytes, got 100001"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text, message = BROKEN[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(config.ConfigError, match=message) as raised:
        config.load(name)
    assert str(raised.value).startswith(f"{name}: 1 problem")
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    assert os.listdir(tmp_path) == [name], "nothing was executed"


def test_a_sparse_giant_a_directory_a_device_and_bytes_are_refused_unread(tmp_path):
    with open(tmp_path / "giant.yaml", "wb") as file:
        file.truncate(100_000_000)
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    (tmp_path / "utf16.json").write_bytes('{"a": 1}'.encode("utf-16"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "recipes.d").mkdir()
    for name, message in {
        "giant.yaml": "must have at most 100000 bytes, got 100000000",
        "folder.yaml": "must be a file, got a directory",
        "pipe.json": "must be a file, got a device",
        "latin.json": "must be UTF-8 text, got byte 0xe9 at 7",
        "lattin.json": r"there is no such file \(did you mean 'latin.json'\?\)",
        "nowhere/latin.json": "there is no such file: there is no folder '.*/nowhere'$",
        "utf16.json": "must be UTF-8 text, got byte 0xf. at 0: if it is UTF-16, as Windows tools write, save it as",
        "folder": "must be a file, got a directory",
        "recipes.d": "must be a file, got a directory",
        "latin": r"must end in \.json, \.yaml or \.yml, got '' \(did you mean 'latin.json'\?\)",
        "a\\latin.json": "there is no such file: separate the folders with '/'$",
        "\new.json": r"there is no such file: its name has control characters, so write it as r'\.\.\.' in Python, or",
        "nul\0.json": "cannot be read",
    }.items():
        with pytest.raises(config.ConfigError, match=message):
            config.load(tmp_path / name)


@pytest.mark.parametrize("path", [None, 3, b"recipe.yaml", RECIPE, {"type": "sgd"}])
def test_a_path_is_text(path):
    with pytest.raises(config.ConfigError, match=f"the path of the file must be text, got {type(path).__name__}"):
        config.load(path)


def test_a_path_that_nobody_expanded_is_told(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(config.ConfigError, match="only a shell replaces '~', so write the whole path, or use"):
        config.load("~/recipe.yaml")
    with pytest.raises(config.ConfigError, match=r"must end in \.json, \.yaml or \.yml, got ''"):
        config.load("")
    with pytest.raises(config.ConfigError, match=r"^'C:\\new\.yaml': 1 problem") as raised:
        config.load("C:\new.yaml")
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    "write", [lambda text: text.encode("utf-8-sig"), lambda text: text.replace("\n", "\r\n").encode()]
)
def test_what_windows_tools_write_is_read(tmp_path, write):
    (tmp_path / "recipe.yaml").write_bytes(write("type: constant\nlearning_rate: 0.1\n"))
    assert config.load(tmp_path / "recipe.yaml") == optax_ext.Constant(0.1)


@pytest.mark.parametrize("path", ["recipe.yaml", pathlib.Path("recipe.yaml")])
def test_swapped_arguments_of_save_are_told(monkeypatch, tmp_path, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        config.ConfigError, match=r"takes the config first and then the path, got .*recipe\.yaml.* and then LARS"
    ):
        config.save(path, config.LARS(0.1))
    assert not os.listdir(tmp_path)


# ---------------------------------------------------------------------------------------------------------
# What a file must hold


@pytest.mark.parametrize(
    "kind",
    [
        None,
        config.LARS,
        config.Optimizer,
        config.LARS | config.LAMB,
        config.LAMB | optax_ext.Schedule | config.Optimizer,
    ],
)
def test_a_file_that_holds_what_was_asked_for(tmp_path, kind):
    config.save(RECIPE.optimizer, tmp_path / "recipe.yaml")
    assert config.load(tmp_path / "recipe.yaml", kind) == RECIPE.optimizer
    assert config.from_dict(config.to_dict(RECIPE.optimizer), kind) == RECIPE.optimizer
    assert config.from_dict(RECIPE.optimizer, kind) is RECIPE.optimizer


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        (config.LAMB, "LAMB"),
        (optax_ext.Schedule, "Schedule"),
        (config.OptimizationConfig, "OptimizationConfig"),
        (config.LAMB | config.SGD, "LAMB or SGD"),
        (config.ParamsEma, "ParamsEma"),
    ],
)
def test_a_file_that_holds_something_else(tmp_path, kind, asked):
    path = tmp_path / "recipe.yaml"
    config.save(RECIPE.optimizer, path)
    with pytest.raises(config.ConfigError) as raised:
        config.load(path, kind)
    assert str(raised.value) == f"{path}: 1 problem\n  holds LARS where {asked} was asked for"
    with pytest.raises(config.ConfigError, match=f"holds LARS where {asked} was asked for"):
        config.from_dict(RECIPE.optimizer, kind)


def test_an_average_has_no_tag_and_is_read_where_it_is_asked_for(tmp_path):
    ema = config.ParamsEma(0.9, start_step=5)
    config.save(ema, tmp_path / "ema.yaml")
    assert config.load(tmp_path / "ema.yaml", config.ParamsEma) == ema
    assert config.from_dict(config.to_dict(ema), config.ParamsEma) == ema
    with pytest.raises(config.ConfigError, match="must have an 'optimizer', or a 'type'"):
        config.load(tmp_path / "ema.yaml")
    with pytest.raises(config.ConfigError, match=r"average_decay: must be less than or equal to 1, got 2"):
        config.from_dict({"average_decay": 2}, config.ParamsEma)


@pytest.mark.parametrize(
    "kind", ["lars", int, config.LARS(0.1), (config.LARS, config.SGD), config.LARS | int, list[int]]
)
def test_a_kind_is_a_schema(kind):
    with pytest.raises(
        config.ConfigError, match=r"kind: must be a schema such as config\.LARS, or a union of them, got"
    ):
        config.from_dict({"type": "sgd", "learning_rate": 0.1}, kind)


def test_a_saved_file_keeps_its_mode_and_the_link_to_it(tmp_path):
    path, link = tmp_path / "recipe.yaml", tmp_path / "link.yaml"
    path.write_text("")
    path.chmod(0o640)
    link.symlink_to(path)
    config.save(RECIPE, link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert config.load(path) == RECIPE
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(config.ConfigError, match="cannot be written: Is a directory"):
        config.save(RECIPE, tmp_path / "folder.yaml")
    assert sorted(os.listdir(tmp_path)) == ["folder.yaml", "link.yaml", "recipe.yaml"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    config.save(RECIPE, path)
    with pytest.raises(config.ConfigError, match="must be a config"):
        config.save("recipe", path)
    assert config.load(path) == RECIPE
    with pytest.raises(config.ConfigError, match="cannot be written: No such file or directory"):
        config.save(RECIPE, tmp_path / "nowhere" / "recipe.yaml")
