from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2async.errors import InvalidRequestError, ManifestError
from m2async.manifest import ManifestRow, ManifestSummary, check_manifest, read_manifest
from m2async.service.requests import FileJob, StartBatchJob
from tests.manifest.samples import APP, ARN, FORMATS, problems, rows, stream

CONTENT = {
    "csv": "key,file\na,A.jcl\n",
    "jsonl": '{"key": "a", "file": "A.jcl"}\n',
    "yaml": "jobs:\n  - {key: a, file: A.jcl}\n",
}
ROW = ManifestRow("a", StartBatchJob(APP, FileJob("A.jcl")))


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".csv", "csv"), (".CSV", "csv"), (".jsonl", "jsonl"), (".ndjson", "jsonl"), (".yaml", "yaml"), (".yml", "yaml")],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_a_paths_suffix_says_its_format(tmp_path: Path, suffix: str, form: str, as_text: bool) -> None:
    path = tmp_path / f"manifest{suffix}"
    path.write_text(CONTENT[form])
    assert list(read_manifest(str(path) if as_text else path, application_id=APP)) == [ROW]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("before", ["", "\n \r\n", "\ufeff"])
def test_without_a_suffix_the_first_line_says_the_format(tmp_path: Path, form: str, before: str) -> None:
    content = before + CONTENT[form]
    path = tmp_path / "manifest.txt"
    path.write_bytes(content.encode())
    assert list(read_manifest(path, application_id=APP)) == [ROW]
    assert rows(content) == [ROW]


def test_the_format_can_be_given_against_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(CONTENT["jsonl"])
    assert list(read_manifest(path, format="jsonl", application_id=APP)) == [ROW]


@pytest.mark.parametrize("line", ["[1]", "fil;key", "hello", "\0\0", "\ufffd"])
def test_a_format_that_cannot_be_told_is_an_error(line: str) -> None:
    [found] = problems(f"{line}\nA\n")
    assert found.startswith("m: the format cannot be told: name the file .csv, .jsonl or .yaml")


@pytest.mark.parametrize(
    ("form", "content"),
    [
        *((form, empty) for form in (None, *FORMATS) for empty in ("", "\n", " \n\r\n", "\ufeff", "\n" * 100_000)),
        ("csv", "file\n"),
        ("csv", "file\n\n\n"),
        ("yaml", "# nothing\n"),
        ("yaml", "jobs: []\n"),
        ("yaml", "jobs:\n"),
        ("yaml", "---\n"),
    ],
)
def test_a_manifest_without_rows_is_an_error(form: Literal["csv", "jsonl", "yaml"] | None, content: str) -> None:
    [found] = problems(content, format=form)
    assert found.startswith("m: no rows: ")


def test_a_path_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    def message(path: Path | str) -> str:
        with pytest.raises(ManifestError) as raised:
            check_manifest(path)
        [found] = raised.value.problems
        return str(found)

    missing = tmp_path / "missing.csv"
    assert message(missing) == f"{missing}: cannot be opened: No such file or directory"
    assert message(tmp_path) == f"{tmp_path}: cannot be opened: Is a directory"
    assert message("a\0b") == "a\0b: cannot be opened: embedded null byte"
    unreadable = tmp_path / "unreadable.csv"
    unreadable.touch(mode=0)
    if os.geteuid() != 0:  # root reads everything
        assert message(unreadable) == f"{unreadable}: cannot be opened: Permission denied"


def test_errors_call_a_stream_stdin_and_a_path_by_its_name_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("zzz\n")
    for source, name, shown in ((path, None, str(path)), (stream("zzz"), None, "<stdin>"), (path, "mine", "mine")):
        with pytest.raises(ManifestError) as raised:
            check_manifest(source, name=name, format="csv")
        assert raised.value.problems[0].file == shown


def test_arguments_that_the_model_refuses_are_refused_at_once() -> None:
    with pytest.raises(InvalidRequestError, match="application_id"):
        read_manifest("missing.csv", application_id="a b")
    with pytest.raises(InvalidRequestError, match=r"params\.AA"):
        read_manifest("missing.csv", params={"AA": "v" * 1025})
    with pytest.raises(InvalidRequestError, match="params"):
        check_manifest("missing.csv", params={"1": "v"})


def test_reading_stops_at_the_first_bad_row_with_all_that_is_wrong_in_it() -> None:
    reading = read_manifest(
        stream(f"file,param.AA,auth_secrets_manager_arn\nA,1,{ARN}\n,{'v' * 1025},x\n"), application_id=APP
    )
    assert next(reading).key == "1"
    with pytest.raises(ManifestError) as raised:
        next(reading)
    assert [found.column for found in raised.value.problems] == [
        "script, file, s3_bucket, restart_execution_id",
        "auth_secrets_manager_arn",
        "param.AA",
    ]
    assert list(reading) == []


def is_open(path: Path) -> bool:
    return path in {link.resolve() for link in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc to see open files in")
def test_a_file_is_closed_when_its_reader_is_and_at_an_error(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("file,key\nA,x\nB\n")
    reading = read_manifest(path, application_id=APP)
    next(reading)
    assert is_open(path)
    del reading
    assert not is_open(path)
    with pytest.raises(ManifestError):
        list(read_manifest(path, application_id=APP))
    assert not is_open(path)


def test_a_stream_stays_open() -> None:
    source = stream("file\nA\n")
    assert len(list(read_manifest(source, application_id=APP))) == 1
    assert not source.closed


def test_the_summary_tells_rows_applications_and_widths() -> None:
    content = "key,application_id,file\na,x,A\nabc,,POSTTRAN.jcl\nb,x,B\n"
    assert check_manifest(stream(content), application_id="y") == ManifestSummary(
        rows=3, applications=("x", "y"), key_width=3, job_width=12
    )


def test_beyond_a_thousand_problems_the_rest_are_counted() -> None:
    found = problems("file,key\n" + "A\n" * 2_500)
    assert len(found) == 1_001
    assert found[999].startswith("m:1001: 1 fields")
    assert found[1_000] == "m: and 1,500 more problems"


_pieces = st.sampled_from(
    [
        *("file", "key", "param.AA", "params", "matrix", "jobs", "defaults", "from", "to", "step", "every", "month"),
        *(
            "1",
            "9999-12-31",
            "2026-02-30",
            "~",
            "null",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            ": ",
            "- ",
            "\n",
            "\n  ",
            "\r",
            '"',
        ),
        *(
            "'",
            "*a",
            "&a ",
            "!t ",
            "#",
            "---\n",
            "|",
            "<<",
            "\0",
            "\ufeff",
            "\\ud800",
            "\x85",
            "\u2028",
            "\t",
            "%",
            "\\",
        ),
        *(
            '{"file": "A"}\n',
            "file,key\n",
            "jobs:\n- file: A\n  matrix:\n    AA: ",
            "applicationId",
            "batchJobIdentifier",
        ),
    ]
)
_contents = st.binary(max_size=200) | st.lists(_pieces, max_size=20).map(lambda pieces: "".join(pieces).encode())


@settings(max_examples=600)
@given(_contents, st.sampled_from([None, *FORMATS]))
def test_no_bytes_raise_anything_but_a_manifest_error(
    content: bytes, form: Literal["csv", "jsonl", "yaml"] | None
) -> None:
    try:
        summary = check_manifest(stream(content), format=form, application_id=APP)
    except ManifestError as error:
        assert error.problems
        for found in error.problems:
            assert str(found).isprintable(), found
            assert len(str(found)) < 600
    else:
        assert summary.rows == len(rows(content, format=form)) > 0


def test_importing_manifests_imports_neither_yaml_nor_botocore() -> None:
    code = "import sys, m2async.manifest; print({'yaml', 'botocore', 'aiobotocore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jobs.csv", b"\xef\xbb\xbfkey,script,after\r\na,X,\r\nb,Y,a\r\n\r\n"),
        ("jobs.jsonl", b'\n{"script": "X"}\n\n{"script": "Y"}'),
        ("jobs.yaml", b"# jobs\ndefaults: {script: X}\nmatrix: {NUMBER: [1, 2]}\n"),
    ],
)
@pytest.mark.parametrize("as_stream", [False, True])
def test_every_byte_that_is_read_is_seen_once(tmp_path: Path, name: str, content: bytes, *, as_stream: bool) -> None:
    (tmp_path / name).write_bytes(content)
    source = io.BytesIO(content) if as_stream else tmp_path / name
    read: list[bytes] = []
    assert len(list(read_manifest(source, application_id="app", after={}, unique_keys=False, seen=read.append))) == 2
    assert b"".join(read) == content
