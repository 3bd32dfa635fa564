"""Patterns mean what they mean to `re`, and none of them takes minutes to search for."""

import json
import re
import subprocess
import sys
import warnings

import jax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import optax_ext
from optax_ext import config
from optax_ext._core import regexes


def engine(pattern):
    """Name the engine that a pattern is given to, or say that it is refused."""
    try:
        search = regexes.compile_pattern(pattern).is_in
    except ValueError as error:
        return "refused" if "it may search for too long" in str(error) else str(error)
    return "Rust" if search.__name__ == "search" else "Python"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("bias", "Rust"),
        ("^a/b$", "Rust"),
        ("kernel|bias|scale", "Rust"),
        (r"layers_\d+/.*/block_\d+/.*bias", "Rust"),
        (r"(\w+)*!", "Rust"),
        (r"[\w-]+/([a-z]+/)*bias$", "Rust"),
        ("(?i:batch_?norm(?:alization)?|(?<![a-z])bn(?![a-z]))", "Python"),
        ("beta|(?i:norm|(?<![a-z])(?:bn|ln|gn)(?![a-z]))[^/]*/bias", "Python"),
        ("^(?!.*(norm|bias)).*kernel", "Python"),
        (r"\bfoo\b.*x", "Python"),
        (r"(a)\1", "Python"),
        ("(?s)a.b", "Python"),
        ("block_[0-9]{1,2}/bias", "Python"),
        ("(?s)(a.*)*b", "refused"),
        ("(?=(a+)+$)x", "refused"),
        ("(?>(a+)+)x", "refused"),
        (r"(a+)+\b", "refused"),
        (r"(a.*)(.*b.*)\1", "refused"),
        ("(a?){1000}" * 50, "refused"),
        ("(?=a)" + "(?:a|a)" * 40, "refused"),
        ("a" * 1001, "it may have 1000 characters, got 1001"),
        ("(bias", "missing ), unterminated subpattern at position 0"),
        ("a{99999999999}", "the repetition number is too large"),
        ("(" * 500 + ")" * 500, "maximum recursion depth exceeded"),
    ],
)
def test_each_pattern_goes_to_the_engine_that_can(pattern, expected):
    assert engine(pattern).startswith(expected)


ATOMS = [
    "a", "b", "/", "_", "-", "0", "é", "K", "#", "&", "~", " ", "]", "}", ".", r"\.", r"\-", r"\\", r"\/",
    r"\*", r"\t", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "[ab]", "[^ab]", "[a-c/]", "[]a]", "[^]a]", "[a-]",
    r"[\w-]", r"[^\W\d]", r"[\s.]", "[0-9_]", "[&a]", "[~#]", r"[\]\[]", "[(*+|]", "^", "$", r"\A", r"\Z",
    "ab", "(?#x)", "(?:)", "(?s)", "(?i)", "(?x)", "(?x: a b)", " *", "#c\n*", r"[\\w]", r"\$", "$\n",
]  # fmt: skip
atoms = st.sampled_from(ATOMS)
only_pythons = st.sampled_from(
    [r"\b", r"\B", "(?=a)", "(?!b)", "(?<=a)", "(?<!b)", r"\x61", "(?>a|ab)", "a{,2}", "{", "a*+"]
)
repeats = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,}", "{1,3}", "{,2}", "{0,2}?"])


def larger(parts):
    return st.one_of(
        st.lists(parts, min_size=1, max_size=4).map("".join),
        st.tuples(parts, parts).map("|".join),
        st.tuples(st.sampled_from(["(", "(?:", "(?i:"]), parts).map(lambda pair: f"{pair[0]}{pair[1]})"),
        st.tuples(st.sampled_from(["(", "(?:"]), parts, repeats).map(lambda three: f"{three[0]}{three[1]}){three[2]}"),
    )


patterns = st.recursive(atoms | st.tuples(atoms, repeats).map("".join) | only_pythons, larger, max_leaves=8)
paths = st.text(alphabet="abcABkK01/_-.#&~ ]}\\é²中ß\t\x1c*+|([", max_size=10)


def agree(pattern, path, *, force):
    """Compare what our choice of engine finds with `re`; with `force` Rust's engine, wherever it has a spelling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of sets that other engines nest
        try:
            expected = re.compile(pattern).search(path) is not None
        except re.error:
            assume(False)
        search = regexes._linear_search(pattern) if force else None
        if force:
            assume(search is not None)
        else:
            try:
                search = regexes.compile_pattern(pattern).is_in
            except ValueError as error:
                assert "it may search for too long" in str(error)
                return
    assert search(path) == expected, (pattern, path)


@settings(max_examples=700)
@given(pattern=patterns, path=paths, force=st.booleans())
def test_a_pattern_means_what_it_means_to_re(pattern, path, force):
    agree(pattern, path, force=force)


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=False)
@given(pattern=patterns, path=paths, force=st.booleans())
def test_many_patterns_mean_what_they_mean_to_re(pattern, path, force):
    """`pytest -m slow tests/core/test_regexes.py`; last run: 20,000 pairs of pattern and path in 68 s: passed."""
    agree(pattern, path, force=force)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (".*+a", "a"),  # a possessive repeat is not left out, as a `.*` in front is
        (".*.*?a", "a"),
        (r"b\.*", "b"),  # nor is what looks like `.*` and is not
        (r"b\\.*", "b\\"),
        ("b.*\n", "b"),
        ("b.*\n", "b\n"),
        ("(?:a|b)*c++c", "acc"),
        ("(?:a|b)*[a-c]-[a&&b~~]+", "c-&"),
        (r"(?i)(?:a|b)*Δ", "δ"),
        (r"(?:a|b)*\w$", "²"),
        (r"(?:a|b)*\s$", "\x1c"),
    ],
)
def test_what_differs_between_engines_does_not_here(pattern, path):
    agree(pattern, path, force=False)


def test_classes_are_pythons_on_every_character_of_its_unicode():
    known = [chr(code) for code in range(0x3000) if not re.match(r"\A\Z", chr(code))]
    for text in (r"\d", r"\D", r"\s", r"\S", r"\w", r"\W", ".", "[^a]", r"[^\s]", r"[^\W]"):
        search, compiled = regexes._linear_search(text), re.compile(text)
        different = [char for char in known if search(char) != (compiled.search(char) is not None)]
        assert not [char for char in different if char.isprintable() or char.isascii()], text


def test_a_dollar_finds_the_end_before_a_line_break_too():
    for pattern in ("(a+)+$", "(a+)+$|(b+)+$"):
        search = regexes._linear_search(pattern)
        for path in ("a", "a\n", "a\n\n", "b\n", "ab"):
            assert search(path) == bool(re.search(pattern, path)), (pattern, path)


CATASTROPHES = [
    r"(?x)(\w+) *!", "(?x)(\\w+)#c\n*!", r"(?x: (\w+) *!)",
    r"(a+)+$", r"(\w+)*!", "(.*)*z", "(a|a)*!", "(a|aa)+!", "(.*,){20}x", ".*.*.*.*.*!", r"(\w*_?)*!",
    r"([\w-]+/?)+!", "a?" * 30 + "a" * 30 + "!", r"^(\w+\s?)*\Z!", "(?:a*)*" * 10 + "!", r"(a*)*\b!",
    "(?=.*.*.*.*.*!)", "(?!.*.*.*.*.*!)!", r"(.*)(.*)(.*)\1\2\3!", "(?=(a+)+!)", "(?<!b)(a+)+!",
    "(?=(?=(a+)+!)+a)*a", "((?=a*)a*)*!", r"(a+)+\1!", "(?>(a+)+)!", "(a+)++!", "(?s:(.+)+!)",
    "(?(1)a|(a+)+)!", "((a?){30}){30}!", r"(\w{1,100}){1,100}!", "(?i)(a+)+!",
]  # fmt: skip


def test_no_pattern_hangs_init():
    """On a thousand parameters with names of two hundred letters; the time is a hang's, not a measurement."""
    script = (
        "import optax_ext, json, sys\n"
        "tree = {'a' * 195 + f'{index:05d}': 1.0 for index in range(1000)}\n"
        "for pattern in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        optax_ext.path_mask(exclude=[pattern])(tree)\n"
        "    except ValueError as error:\n"
        "        assert 'may search for too long' in str(error) or 'matches none' in str(error), error\n"
        "print('done')\n"
    )
    command = [sys.executable, "-c", script, json.dumps(CATASTROPHES)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout == "done\n"


def test_what_is_refused_says_where_and_what_to_write_instead():
    slow = r"(?=(\w+)*!)x"
    with pytest.raises(
        ValueError, match=r"exclude must hold regular expressions, got '\(\?=.*: it may .* fewer repeats"
    ):
        optax_ext.path_mask(exclude=["bias", slow])
    given = {"type": "lars", "learning_rate": 1, "exclude_from_weight_decay": ["bias", slow]}
    with pytest.raises(config.ConfigError) as raised:
        config.from_dict({"optimizer": given})
    (problem,) = raised.value.problems
    assert problem.path == "optimizer.exclude_from_weight_decay.1"
    assert "must be a regular expression" in problem.message
    assert "without what only Python's engine has: lookaround, backreferences" in problem.message


@pytest.mark.parametrize("fields", [("lars", "exclude_from_layer_adaptation"), ("adamw", "include_in_weight_decay")])
def test_patterns_that_are_slow_together_are_refused_together(fields):
    kind, field = fields
    many = [f"(?=a).*.*{index}" for index in range(20)]
    with pytest.raises(config.ConfigError, match=f"{field}: is too long a list: 20 patterns may search for too long"):
        config.from_dict({"type": kind, "learning_rate": 1, field: many})
    with pytest.raises(ValueError, match="include is too long a list: 20 patterns"):
        optax_ext.path_mask(include=many)
    with pytest.raises(ValueError, match="2000 characters together, besides plain names; got 2670"):
        optax_ext.path_mask(include=[f"({index:03d}" + r"\w*)*" + "x" * 80 for index in range(30)])
    names = [f"layer_{index}/kernel" for index in range(5000)]  # but a list of names may be long
    assert config.from_dict({"type": kind, "learning_rate": 1, field: names})


def test_each_pattern_is_compiled_once_a_mask(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        "optax_ext.masks._path_mask.compile_pattern", lambda text: compiled.append(text) or original(text)
    )
    mask = optax_ext.path_mask(include=["a"], exclude=["(b+)+c"], allow_unmatched=True)
    for _ in range(3):
        mask({"a": {"bbc": 1.0}})
    assert compiled == ["a", "(b+)+c"]


original = regexes.compile_pattern


def test_many_patterns_that_match_nothing_are_told_briefly():
    mask = optax_ext.path_mask(exclude=["ab" * 490 + str(index) for index in range(50)])
    with pytest.raises(ValueError, match="40 more match none: correct it") as raised:
        mask({"ba" * 100 + str(index): 1.0 for index in range(2000)})
    assert len(str(raised.value)) < 30_000
    assert jax.tree.leaves(mask({})) == []
