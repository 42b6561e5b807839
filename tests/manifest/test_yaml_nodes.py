from __future__ import annotations

import sys
import tracemalloc
from itertools import repeat
from unittest.mock import patch

import pytest
import yaml

from m2async.errors import ConfigurationError, ManifestError
from m2async.manifest.source import Source
from m2async.manifest.yaml_nodes import List, Map, Node, Scalar, compose
from tests.manifest.samples import generated, stream
from tests.work import calls_at_most


def composed(content: str | bytes) -> Node | None:
    return compose(Source(stream(content), "m"))


def problem(content: str | bytes) -> str:
    with pytest.raises(ManifestError) as raised:
        composed(content)
    [found] = raised.value.problems
    return str(found)


def test_every_scalar_is_the_text_that_is_written() -> None:
    content = "a: 007\nb: NO\nc: 2026-11-01\nd: 1e3\ne: '~'\nf: ''\ng: |\n  x\n  y\nh: 0x10\n"
    node = composed(content)
    assert isinstance(node, Map)
    assert [value.text for value in node.entries.values() if isinstance(value, Scalar)] == [
        "007", "NO", "2026-11-01", "1e3", "~", "", "x\ny\n", "0x10",
    ]  # fmt: skip


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_a_plain_null_is_none(null: str) -> None:
    assert composed(f"a: {null}\n") == Map({"a": Scalar(None, 1)}, 1)


def test_nodes_know_their_lines_and_an_alias_is_its_anchors_node() -> None:
    node = composed("a: &x\n  - 1\nb:\n\n  - *x\n  - {c: d}\n")
    shared = List([Scalar("1", 2)], 1)
    assert node == Map({"a": shared, "b": List([shared, Map({"c": Scalar("d", 6)}, 6)], 5)}, 1)


def test_an_empty_file_is_no_document() -> None:
    assert composed("") is None
    assert composed("# comment\n") is None


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a: 1\nb: [1\n", "m:3: not valid YAML at character 1: "),
        ("a: 1\n b: 2\n", "m:2: not valid YAML at character 3: mapping values are not allowed"),
        ("a: '1\n", "m:2: not valid YAML at character 1: found unexpected end of stream"),
        ("a: 1\n\tb: 2\n", "m:2: not valid YAML at character 1: "),
        ("é: 1\nb: \x01\n", "m:2: the character U+0001 is not allowed in YAML"),
        ("a: 1\nb: 2\na: 3\n", "m:3: a: is given twice in one mapping"),
        ("a: 1\n---\nb: 2\n", "m:2: a second document begins"),
        ("a: 1\nb: !!int 1\n", "m:2: the tag 'tag:yaml.org,2002:int' is not allowed"),
        ("a: !!python/object/apply:os.system [true]\n", "m:1: the tag 'tag:yaml.org,2002:python/object"),
        ("a: ! 1\n", "m:1: the tag '!' is not allowed"),
        ("a: !x\n  b: 1\n", "m:1: the tag '!x' is not allowed"),
        ("a: &x\n  b: *x\n", "m:2: the alias *x stands within what it stands for"),
        ("a: &x [1, *x]\n", "m:1: the alias *x stands within what it stands for"),
        ("a: *x\n", "m:1: the alias *x has no anchor before it"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "m:3: merge keys (<<) are not supported"),
        ("? [a]\n: 1\n", "m:1: a mapping's key must be a text"),
        ("~: 1\n", "m:1: a mapping's key must be a text"),
        ("a:\n" + " [\n" * 100_000, "m:17: is nested too deeply"),
        ("a:\n" + "[" * 100_000, "m:2: not valid YAML"),
        ("- " * 100_000, "m:1: is nested too deeply"),
        (b"a: 1\nb: \xff\n", "m:2: byte 4 of the line, 0xff, is not UTF-8"),
        (b"a: 1\nb: x\0\n", "m:2: byte 5 of the line is a NUL"),
    ],
)
def test_what_is_no_manifest_is_told_with_its_line(content: str | bytes, found: str, loader: str) -> None:
    with patch.object(yaml, "CSafeLoader", getattr(yaml, loader)):
        assert problem(content).startswith(found)


def test_a_file_of_more_than_8_mib_is_refused_in_bounded_memory() -> None:
    source = Source(generated(repeat(b"- a\n" * 10_000, 2_000)), "m")
    tracemalloc.start()
    with pytest.raises(ManifestError, match=r"^m: a YAML manifest has at most 8,388,608 bytes"):
        compose(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 1024 * 1024


def test_more_than_half_a_million_values_are_refused() -> None:
    assert problem("[" + "a," * 500_000 + "]") == (
        "m:1: more than 500,000 values: use ranges, or write the rows as CSV or JSONL"
    )


def test_aliases_cost_no_copies_and_are_not_shown() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 100)]
    with calls_at_most(30_000):
        node = composed("\n".join(lines))
        assert isinstance(node, Map)
        assert (repr(node), repr(node.entries["a99"])) == ("a mapping", "a list")


def test_without_pyyaml_the_error_says_what_to_install() -> None:
    with (
        patch.dict(sys.modules, {"yaml": None}),
        pytest.raises(ConfigurationError, match=r"^YAML manifests need PyYAML: pip install 'm2async\[cli\]'$"),
    ):
        composed("a: 1\n")
