from __future__ import annotations

import codecs
import json
import tracemalloc
from collections.abc import Iterator
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.manifest import ManifestRow
from m2async.service.requests import MAX_PARAM_VALUE, MAX_PARAMS, FileJob, RestartJob, ScriptJob, StartBatchJob
from tests.manifest.samples import APP, fields_of, generated, manifests, problems, rows


def test_rows_have_the_columns_names_or_the_services_own_shape() -> None:
    content = (
        '{"key": "a", "application_id": "app1", "file": "A.jcl", "param.AA": "1", "params": {"BB": ""}}\n'
        "\n"
        '{"key": "b", "batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "S"}}, '
        '"jobParams": {"AA": "1"}}\n'
        '{"applicationId": "app2", "batchJobIdentifier": {"fileBatchJobIdentifier": {"fileName": "F"}}}\n'
        '{"restart_execution_id": "e", "from_step": "S", "skip": true, "step_checkpoint": 7, "to_step": null}'
    )
    assert rows(content) == [
        ManifestRow("a", StartBatchJob("app1", FileJob("A.jcl"), {"AA": "1", "BB": ""})),
        ManifestRow("b", StartBatchJob(APP, ScriptJob("S"), {"AA": "1"})),
        ManifestRow("3", StartBatchJob("app2", FileJob("F"))),
        ManifestRow("4", StartBatchJob(APP, RestartJob("e", "S", skip=True, step_checkpoint=7))),
    ]


def test_params_for_all_rows_go_over_both_shapes() -> None:
    content = (
        '{"file": "A", "params": {"AA": "1", "BB": "2"}}\n'
        '{"batchJobIdentifier": {"fileBatchJobIdentifier": {"fileName": "F"}}, "jobParams": {"AA": "1", "BB": "2"}}\n'
    )
    assert [row.request.params for row in rows(content, params={"AA": "9"})] == [{"AA": "9", "BB": "2"}] * 2


@given(manifests, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
def test_any_requests_written_as_jsonl_read_back_equal(
    manifest: list[ManifestRow], newline: str, bom: bool, escaped: bool, own_shape: bool
) -> None:
    objects = [{"key": row.key, **row.request.to_api()} if own_shape else fields_of(row) for row in manifest]
    lines = [json.dumps(members, ensure_ascii=escaped) + newline for members in objects]
    content = (codecs.BOM_UTF8 if bom else b"") + "".join(lines).encode()
    assert rows(content) == manifest


_SCRIPT = '"batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "S"}}'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"file": "A", "params": {"AA": 007}}', "not valid JSON at character 33: Expecting ',' delimiter"),
        ('{"file": "A"', "not valid JSON at character 13: Expecting ',' delimiter"),
        ('{"file": NaN}', "not valid JSON: NaN is no JSON value"),
        ('{"file": "A"} {"file": "B"}', "not valid JSON at character 15: Extra data"),
        ("{" * 9, "not valid JSON at character 2: Expecting property name enclosed in double quotes"),
        ('["A"]', "['A']: each line must be one JSON object"),
        ("7", "7: each line must be one JSON object"),
        ('{"file": ' + "[" * 100_000, "is nested too deeply"),
        ('{"file": ' + "[" * 900 + "]" * 900 + "}", ""),
        ('{"file": "A", "file": "A"}', "file: is given twice in one JSON object"),
        ('{"file": "A", "params": {"AA": "1", "AA": "2"}}', "AA: is given twice in one JSON object"),
        (
            '{"file": "A", "params": {"AA": "1"}, "param.AA": "1"}',
            "param.AA: is given both by itself and within params",
        ),
        ('{"file": "A", "params": {"AA": 7}}', "param.AA: 7: must be a text; put it in quotes"),
        ('{"file": "A", "params": {"AA": 1.10}}', "param.AA: 1.10: must be a text; put it in quotes"),
        ('{"file": "A", "params": {"AA": 1e400}}', "param.AA: 1e400: must be a text; put it in quotes"),
        ('{"file": "A", "params": {"AA": true}}', "param.AA: True: must be a text; put it in quotes"),
        ('{"file": "A", "params": {"AA": ' + "9" * 5000 + "}}", "param.AA: 999"),
        ('{"file": "A", "params": {"AA": ["x"]}}', "param.AA: ['x']: must be a text"),
        ('{"file": "A", "params": ["AA"]}', "params: ['AA']: must map names to values"),
        ('{"file": "A", "params": {"A-B": "1"}}', "param.A-B: 'A-B': a parameter's name must be a letter"),
        ('{"file": 7}', "file: 7: must be a text; put it in quotes"),
        ('{"file": ""}', "file: '': must not be empty"),
        ('{"file": "A", "application_id": 7}', "application_id: 7: must be a text; put it in quotes"),
        ('{"file": "A", "key": 7}', "key: 7: must be a text; put it in quotes"),
        ('{"file": "A", "key": ""}', "key: '': must have 1 to 512 printable characters"),
        (r'{"file": "A", "key": "\ud800"}', r"key: '\ud800': must have 1 to 512 printable characters"),
        (r'{"file": "\ud800"}', r"file: '\ud800': must be valid Unicode"),
        ('{"fiel": "A"}', "fiel: is no column; did you mean file?"),
        ('{"restart_execution_id": "e", "from_step": "S", "skip": 1}', "skip: 1: must be true or false"),
        (
            '{"restart_execution_id": "e", "from_step": "S", "step_checkpoint": true}',
            "step_checkpoint: True: must be an",
        ),
        ('{"restart_execution_id": "e", "from_step": "S", "step_checkpoint": 1.0}', "step_checkpoint: 1.0: must be an"),
        ('{"applicationId": "x"}', "batchJobIdentifier: None: is required"),
        ('{"applicationId": "x", "batchJobIdentifier": {}}', "batchJobIdentifier: []: exactly one of script"),
        (f'{{"applicationId": "a b", {_SCRIPT}}}', "applicationId: 'a b': must have 1 to 80 characters"),
        (f'{{{_SCRIPT}, "file": "A"}}', "file: 'A': unknown member; known are applicationId"),
        (f'{{{_SCRIPT}, "jobParams": {{"AA": 7}}}}', "jobParams.AA: 7: must be a text; put it in quotes"),
        (f'{{{_SCRIPT}, "jobParams": 7}}', "jobParams: 7: must map names to values"),
        (
            '{"batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": "S", "fileName": "F"}}}',
            "batchJobIdentifier.scriptBatchJobIdentifier.fileName: 'F': unknown member",
        ),
        (
            '{"batchJobIdentifier": {"scriptBatchJobIdentifier": {"scriptName": ""}}}',
            "scriptName: '': must not be empty",
        ),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(line: str, problem: str) -> None:
    [found] = problems(f'{{"file": "A"}}\n{line}\n{{"file": "B"}}\n', format="jsonl")
    assert found.startswith(f"m:2: {problem}")
    assert len(found) < 500


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"file": "A\xff"}', "m:2: byte 12 of the line, 0xff, is not UTF-8"),
        (b'{"file": "A\0"}', "m:2: byte 12 of the line is a NUL"),
    ],
)
def test_bytes_that_are_no_text_are_told_with_their_place(line: bytes, problem: str) -> None:
    [found] = problems(b'{"file": "A"}\n' + line + b'\n{"file": "B"}\n')
    assert found.startswith(problem)


def test_all_bad_parameters_of_a_row_are_told_together() -> None:
    content = '{"file": "A", "params": {"A-B": "1", "OK": "1", "BB": 2}}\n'
    assert [found.split(": ")[1] for found in problems(content)] == ["param.A-B", "param.BB"]
    own_shape = f'{{{_SCRIPT}, "jobParams": {{"A-B": "1", "OK": "1", "BB": 2}}}}\n'
    assert [found.split(": ")[1] for found in problems(own_shape)] == ["jobParams.A-B", "jobParams.BB"]


def test_the_problems_of_one_row_are_bounded() -> None:
    members = {f"x{number}": "1" for number in range(100_000)}
    assert len(problems(json.dumps(members))) == 100
    assert len(problems(json.dumps({"file": "A", "params": {f"x-{number}": "1" for number in range(100_000)}}))) == 100


def test_a_missing_application_is_told_for_either_shape() -> None:
    found = problems(f'{{"file": "A"}}\n{{{_SCRIPT}}}\n', application_id=None)
    assert [text[:50] for text in found] == [
        "m:1: application_id: is missing: give it in the ma",
        "m:2: applicationId: is missing: give it in the man",
    ]


def test_keys_that_come_twice_are_told_with_the_first_ones_line() -> None:
    content = '{"file": "A", "key": "x"}\n\n{"file": "B"}\n{"file": "C", "key": "x"}\n{"file": "D", "key": "2"}\n'
    assert problems(content) == [
        "m:4: key: 'x': is the key of line 1 already; keys must differ",
        "m:5: key: '2': is the key of line 3 already; keys must differ",
    ]


def test_the_largest_request_fits_a_line() -> None:
    value = "\U0001f4be" * MAX_PARAM_VALUE
    params = {f"P{number:031d}": value for number in range(MAX_PARAMS)}
    [row] = rows(json.dumps({"file": "A", "params": params}))
    assert row.request.params == params


def test_a_line_of_100_mb_is_refused_in_bounded_memory_and_the_next_is_read() -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"file": "A", "params": {"AA": "'
        yield from repeat(b"v" * 50_000, 2_000)
        yield b'"}}\n{"fiel": "A"}\n'

    tracemalloc.start()
    found = problems(generated(pieces()), format="jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0] == "m:1: the line has more than 8,388,608 bytes, more than any request needs"
    assert found[1].startswith("m:2: fiel: is no column")
    assert peak < 20 * 1024 * 1024
