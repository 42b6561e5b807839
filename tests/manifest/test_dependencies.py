from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from m2async.errors import ManifestError
from m2async.manifest import check_manifest, read_manifest
from tests.manifest.samples import APP, FORMATS, generated, problems, rows, stream
from tests.work import assert_in_proportion

CHAIN = {
    "csv": "key,script,after\nA,A,\nB,B,A\nC,C,A; B ;\n",
    "jsonl": '{"key":"A","script":"A","after":null}\n{"key":"B","script":"B","after":"A"}\n'
    '{"key":"C","script":"C","after":["A","B"]}\n',
    "yaml": "jobs:\n- {key: A, script: A}\n- {key: B, script: B, after: A}\n- {key: C, script: C, after: [A, B]}\n",
}


def after_of(content: str) -> dict[str, Sequence[str]]:
    after: dict[str, Sequence[str]] = {}
    rows(content, after=after)
    return after


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_what_a_row_comes_after(form: str) -> None:
    assert after_of(CHAIN[form]) == {"B": ("A",), "C": ("A", "B")}
    assert check_manifest(stream(CHAIN[form]), application_id=APP).rows == 3


@pytest.mark.parametrize("form", FORMATS)
def test_a_reader_that_would_not_heed_the_order_gets_an_error(form: str) -> None:
    with pytest.raises(ManifestError, match="is not heeded here"):
        rows(CHAIN[form])
    assert len(rows('{"script": "A", "after": []}\n{"script": "B", "after": " ; "}\n')) == 2


def test_rows_without_a_key_are_named_by_their_numbers() -> None:
    assert after_of("script,after\nA,\nB,1\nC,2;1\n") == {"2": ("1",), "3": ("2", "1")}


def test_the_services_own_shape_has_its_place_in_the_order_too() -> None:
    own = {"applicationId": APP, "batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "B"}}}
    content = f'{{"key":"A","script":"A"}}\n{json.dumps({"key": "B", "after": "A", **own})}\n'
    assert after_of(content) == {"B": ("A",)}


def test_a_key_that_holds_a_semicolon_is_named_in_a_list() -> None:
    content = '{"key":"a; b","script":"A"}\n{"key":"c","script":"C","after":["a; b"]}\n'
    assert after_of(content) == {"c": ("a; b",)}


def test_a_sweep_comes_after_the_rows_with_its_own_values() -> None:
    content = """
defaults: {script: X}
matrix: {BRANCH: ['1', '2']}
jobs:
- {key: 'load/{BRANCH}', after: open}
- {key: 'post/{BRANCH}', after: 'load/{BRANCH}; open'}
- {key: open, after: [], matrix: {BRANCH: ['0']}}
- {key: close, after: ['post/1', 'post/2'], matrix: {BRANCH: ['0']}}
"""
    assert after_of(content) == {
        "load/1": ("open",),
        "load/2": ("open",),
        "post/1": ("load/1", "open"),
        "post/2": ("load/2", "open"),
        "close": ("post/1", "post/2"),
    }


def test_a_jobs_own_after_takes_the_place_of_the_default() -> None:
    content = """
defaults: {script: X, after: first}
jobs: [{key: first, after: []}, {key: a}, {key: b, after: a}, {key: c, after: ~}]
"""
    assert after_of(content) == {"a": ("first",), "b": ("a",), "c": ("first",)}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("key,script,after\nA,A,B\n", "m:2: after: 'B': no row has this key"),
        ("key,script,after\nA,A,A\n", "m:2: after: 'A': the row waits for itself"),
        (
            "key,script,after\nZ,Z,C\nC,C,B\nA,A,C\nB,B,A\n",
            "m:3: after: C (line 3) -> A (line 4) -> B (line 5) -> C: these rows wait for each other",
        ),
        ('{"key":"A","script":"A","after":7}\n', "m:1: after: 7: must be a text of keys with ; between them, or a lis"),
        ('{"key":"A","script":"A","after":[7]}\n', "m:1: after: 7: must be the key of a row, a text; put it in quotes"),
        ('{"key":"A","script":"A","after":{}}\n', "m:1: after: {}: must be a text of keys"),
        ("jobs:\n- script: A\n  after: {a: b}\n", "m:3: after: must be a text of keys with ; between them, or a list"),
        ("jobs:\n- script: A\n  after: [[a]]\n", "m:3: after: must be a text of keys with ; between them, or a list"),
        (
            "jobs:\n- script: A\n  after: 'x{CC}'\n  matrix: {BB: [a]}\n",
            "m:3: after: '{CC}': is not swept; known are {BB}",
        ),
        (
            "jobs:\n- script: A\n  matrix: {after: [a]}\n",
            "m:3: matrix.after: cannot be swept: give after as",
        ),
        ("defaults:\n  after: B\njobs: [{script: A}]\n", "m:2: after: 'B': no row has this key"),
    ],
)
def test_what_is_wrong_with_an_order_is_told_with_its_line(content: str, problem: str) -> None:
    [found] = problems(content)
    assert found.startswith(problem)


def test_an_order_is_judged_together_with_the_rows_and_in_their_order() -> None:
    content = "key,file,after\nA,A,B\nB,,A\nC,C,nosuch\nD,D,D\n"
    named = "script, file, s3_bucket, restart_execution_id: no job is named: give exactly one of them"
    assert problems(content) == [
        "m:2: after: A (line 2) -> B (line 3) -> A: these rows wait for each other, so none could start",
        f"m:3: {named}",
        "m:4: after: 'nosuch': no row has this key",
        "m:5: after: 'D': the row waits for itself",
    ]


def test_a_key_is_not_called_unknown_where_a_row_is_that_may_have_it() -> None:
    content = 'key,file,after\nA,A,B\nB,"x\n'
    [found] = problems(content)
    assert "a quoted field" in found


def test_reading_ends_in_what_is_wrong_with_the_order() -> None:
    reading = read_manifest(stream("key,script,after\nA,A,B\nB,B,A\n"), application_id=APP, after={})
    assert [next(reading).key, next(reading).key] == ["A", "B"]
    with pytest.raises(ManifestError, match="A \\(line 2\\) -> B \\(line 3\\) -> A"):
        next(reading)


def test_a_long_circle_is_told_in_short() -> None:
    found: dict[int, str] = {}

    def circle(count: int) -> Callable[[], None]:
        lines = [f"key-{number},A,key-{(number + 1) % count}" for number in range(count)]

        def tell() -> None:
            [found[count]] = problems("\n".join(["key,script,after", *lines]))

        return tell

    assert_in_proportion(circle, 2_500, 50_000)
    assert found[50_000].startswith("m:2: after: key-0 (line 2) -> key-49999 (line 50001) -> ")
    assert " -> … 49,994 more … -> key-1 (line 3) -> key-0: these" in found[50_000]


_graphs = st.dictionaries(
    st.sampled_from("ABCDEF"), st.lists(st.sampled_from("ABCDEFGH"), max_size=3, unique=True), max_size=6
)


def order(after: Mapping[str, Sequence[str]], keys: set[str]) -> list[str] | None:
    """An order in which the rows may start, found in the plainest way; None where there is none."""
    done: list[str] = []
    while ready := [key for key in sorted(keys - {*done}) if set(after.get(key, ())) <= {*done}]:
        done += ready
    return done if len(done) == len(keys) else None


@given(_graphs, st.sets(st.sampled_from("ABCDEFGH"), min_size=1), st.booleans())
@example({"A": ["B"]}, {"A"}, True)
def test_exactly_those_manifests_are_refused_whose_rows_cannot_all_start(
    graph: dict[str, list[str]], keys: set[str], seekable: bool
) -> None:
    after = {key: graph.get(key, []) for key in sorted(keys)}
    content = "".join(f"{json.dumps({'key': key, 'script': 'X', 'after': named})}\n" for key, named in after.items())
    source = io.BytesIO(content.encode()) if seekable else generated(iter([content.encode()]))
    read: dict[str, Sequence[str]] = {}
    try:
        list(read_manifest(source, application_id=APP, after=read))
    except ManifestError as error:
        assert order(after, keys) is None
        unknown = {named for keys_named in after.values() for named in keys_named} - keys
        told = {found.reason for found in error.problems if "no row" in found.reason}
        assert told == {f"{key!r}: no row has this key" for key in unknown}
        without_unknown = {key: [named for named in keys_named if named in keys] for key, keys_named in after.items()}
        circles = [found for found in error.problems if "wait" in found.reason]
        assert bool(circles) == (order(without_unknown, keys) is None)
    else:
        assert order(after, keys) is not None
        assert read == {key: tuple(named) for key, named in after.items() if named}
