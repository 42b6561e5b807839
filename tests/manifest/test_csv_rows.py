from __future__ import annotations

import codecs
import csv
import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.manifest import ManifestRow, check_manifest, read_manifest
from m2async.service.requests import FileJob, RestartJob, S3Job, ScriptJob, StartBatchJob
from tests.manifest.samples import APP, ARN, cell, fields_of, generated, manifests, problems, rows


def test_each_record_becomes_a_request_under_its_key() -> None:
    content = (
        f"key,application_id,file,folder,param.RUNDATE,auth_secrets_manager_arn\nk1,app1,A.jcl,jcl,20261123,{ARN}\n"
    )
    expected = StartBatchJob("app1", FileJob("A.jcl", "jcl"), {"RUNDATE": "20261123"}, ARN)
    assert rows(content) == [ManifestRow("k1", expected)]


def test_every_kind_of_job_can_stand_in_one_manifest() -> None:
    content = (
        "script,file,s3_bucket,s3_prefix,s3_file,s3_script,restart_execution_id,from_step,skip,step_checkpoint\n"
        "POSTTRAN,,,,,,,,,\n"
        ",A.jcl,,,,,,,,\n"
        ",,bucket,jcl/,B.jcl,,,,,\n"
        ",,bucket,,,C,,,,\n"
        ",,,,,,exec1,STEP10,true,007\n"
    )
    assert [row.request.job for row in rows(content)] == [
        ScriptJob("POSTTRAN"),
        FileJob("A.jcl"),
        S3Job("bucket", "B.jcl", key_prefix="jcl/"),
        S3Job("bucket", script_name="C"),
        RestartJob("exec1", "STEP10", skip=True, step_checkpoint=7),
    ]


def test_rows_without_keys_are_called_by_their_number() -> None:
    assert [row.key for row in rows("file\nA\n\nB\n")] == ["1", "2"]
    assert [row.key for row in rows("key,file\n,A\nx,B\n,C\n")] == ["1", "x", "3"]


def test_an_empty_cell_is_not_given_and_no_other_value_is_altered() -> None:
    content = 'file,param.AA,param.BB,param.CC\nA,," 007 ","line\r\nand\rline, ""quoted"""\n'
    assert rows(content)[0].request.params == {"BB": " 007 ", "CC": 'line\r\nand\rline, "quoted"'}


def test_params_for_all_rows_go_over_the_manifest_and_the_application_only_fills_in() -> None:
    content = "file,application_id,param.AA,param.BB\nA,own,1,2\nB,,1,2\n"
    first, second = rows(content, params={"AA": "9", "CC": "3"})
    assert (first.request.application_id, second.request.application_id) == ("own", APP)
    assert first.request.params == second.request.params == {"AA": "9", "BB": "2", "CC": "3"}


@given(manifests, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_requests_written_as_csv_read_back_equal(manifest: list[ManifestRow], newline: str, bom: bool) -> None:
    written = []
    for row in manifest:
        fields = fields_of(row)
        params = fields.pop("params")
        written.append({**fields, **{f"param.{name}": value for name, value in params.items()}})
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(name for row in written for name in row))
    # A writer that ends lines with LF leaves a lone CR unquoted.
    writer = csv.DictWriter(text, columns, lineterminator=newline, quoting=csv.QUOTE_ALL if newline == "\n" else 0)
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in written)
    content = (codecs.BOM_UTF8 if bom else b"") + text.getvalue().encode()
    assert rows(content, format="csv") == manifest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file,fodler\nA,x\n", "m:1: fodler: is no column; did you mean folder?"),
        ("file,zzz\nA,x\n", "m:1: zzz: is no column; known are key, after, application_id, script, file"),
        ("file,PARAM.AA\nA,x\n", "m:1: PARAM.AA: is no column; write a parameter's column as param.NAME"),
        ("file;key\nA;x\n", "m:1: file;key: is no column: separate columns with commas"),
        ("file,file\nA,x\n", "m:1: file: is given twice"),
        ("file,\nA,x\n", "m:1: column 2 of the header has no name"),
        ("file,param.1X\nA,x\n", "m:1: param.1X: '1X': a parameter's name must be a letter followed by"),
        ("file,param.X\nA,x\n", "m:1: param.X: 'X': a parameter's name must be"),
        ('"file\n\x1b[2J",file\nA,x\n', r"m:1: 'file\n\x1b[2J': is no column"),
        ("\n\nfile,zzz\nA,x\n", "m:3: zzz: is no column"),
        ("key,param.AA\n1,2\n", "m:1: no column names the job"),
        ("file," + ",".join(f"param.P{i}" for i in range(1000)) + "\nA\n", "m:1: 1,001 columns"),
        ("file,key\nA,x\nB\n", "m:3: 1 fields, but the header has 2 columns"),
        ("file,key\nA,x,y\n", "m:2: 3 fields, but the header has 2 columns"),
        ("file,script\nA,B\n", "m:2: file: a second job: script is given as well"),
        ("script,s3_bucket,s3_file\nA,B,C\n", "m:2: s3_bucket: a second job: script is given as well"),
        ("file,key\n,x\n", "m:2: script, file, s3_bucket, restart_execution_id: no job is named"),
        ("file,folder\n,jcl\n", "m:2: file: is missing, but folder is given"),
        ("s3_bucket,s3_prefix\nb,p\n", "m:2: s3_file, s3_script: neither is given"),
        ("s3_bucket,s3_file,s3_script\nb,f,s\n", "m:2: s3_file, s3_script: both are given"),
        ("s3_bucket,s3_file\n,f\n", "m:2: s3_bucket: is missing, but s3_file is given"),
        ("restart_execution_id,from_step\ne,\n", "m:2: from_step: is missing, but restart_execution_id is given"),
        ("restart_execution_id,from_step\n,S\n", "m:2: restart_execution_id: is missing, but from_step is given"),
        ("restart_execution_id,from_step\na b,S\n", "m:2: restart_execution_id: 'a b': must have 1 to 80 characters"),
        ("restart_execution_id,from_step,skip\ne,S,yes\n", "m:2: skip: 'yes': must be true or false"),
        (
            "restart_execution_id,from_step,step_checkpoint\ne,S,1.5\n",
            "m:2: step_checkpoint: '1.5': must be an integer",
        ),
        (
            f"restart_execution_id,from_step,step_checkpoint\ne,S,{2**31}\n",
            "m:2: step_checkpoint: 2147483648: must be an integer of 32 bits",
        ),
        ("file,application_id\nA,a b\n", "m:2: application_id: 'a b': must have 1 to 80 characters and no white space"),
        ("file,auth_secrets_manager_arn\nA,arn\n", "m:2: auth_secrets_manager_arn: 'arn': must have 20 to 2,048"),
        (
            f"file,param.AA\nA,{'v' * 1025}\n",
            f"m:2: param.AA: '{'v' * 57}'… (1,025 characters): must have at most 1,024",
        ),
        ("file,key\nA,x\nB,x\n", "m:3: key: 'x': is the key of line 2 already"),
        ("file,key\nA,2\nB,\n", "m:3: key: '2': is the key of line 2 already"),
        (f"file,key\nA,{'k' * 513}\n", f"m:2: key: '{'k' * 57}'… (513 characters): must have 1 to 512 printable"),
        ('file,key\nA,"k\t"\n', r"m:2: key: 'k\t': must have 1 to 512 printable"),
        (b"file,key\nA,x\xff\n", "m:2: byte 4 of the line, 0xff, is not UTF-8"),
        (b'file,key\nA,"x\n\xc3("\n', "m:3: byte 1 of the line, 0xc3, is not UTF-8"),
        (b"fi\xffle\nA\n", "m:1: byte 3 of the line, 0xff, is not UTF-8"),
        (b"file,key\nA,x\0y\n", "m:2: byte 4 of the line is a NUL"),
        ('file,key\nA,"x\n\n', "m:2: a quoted field that begins in this row is still open at the end of the file"),
        ('file,key\nA,"x"y\n', "m:2: text follows a closing quote"),
        ("file,key\nA,x\rB,y\n", "m:2: a carriage return stands outside quotes"),
        (f"file,key\nA,{'k' * 140_000}\n", "m:2: a field has more than 131,072 characters: is a quote not closed?"),
        ("file,key\r\n\r\nA\r\n", "m:3: 1 fields, but the header has 2 columns"),
        ('file,key\n"A\n\n",x\nB\n', "m:5: 1 fields, but the header has 2 columns"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_column(content: str | bytes, problem: str) -> None:
    [found] = problems(content, format="csv")
    assert found.startswith(problem)


def test_every_bad_row_is_told_and_so_is_everything_in_a_row() -> None:
    content = (
        f"file,application_id,param.AA,param.BB\nA,,1,2\n,a b,{'v' * 1025},{'w' * 1025}\nB\nC,,1,2\nD,,{'v' * 1025},\n"
    )
    assert [found.split(": ")[:2] for found in problems(content)] == [
        ["m:3", "application_id"],
        ["m:3", "script, file, s3_bucket, restart_execution_id"],
        ["m:3", "param.AA"],
        ["m:3", "param.BB"],
        ["m:4", "1 fields, but the header has 4 columns"],
        ["m:6", "param.AA"],
    ]


def test_a_row_that_is_no_text_spoils_no_other() -> None:
    content = b'file,key\nA,"\xff\n\xff"\nB,y\nC,\0\nD,z\n'
    assert [found.split(" is ")[0] for found in problems(content)] == [
        "m:2: byte 4 of the line, 0xff,",
        "m:3: byte 1 of the line, 0xff,",
        "m:5: byte 3 of the line",
    ]
    assert len(problems(b'file,key\nA,"' + b"\xff\n" * 50_000 + b'"\n')) == 100


def test_a_missing_application_is_told_once_and_hides_no_bad_row() -> None:
    lacking, bad = problems("file,folder\nA,\n,x\nB,\n", application_id=None)
    assert lacking.startswith(
        "m:1: application_id: is missing: add this column or give one application for all rows (-a"
    )
    assert bad.startswith("m:3: file: is missing")
    [found] = problems("file,application_id\nA,x\nB,\n", application_id=None)
    assert found.startswith("m:3: application_id: is missing")


def test_a_job_takes_500_parameters_and_no_more() -> None:
    names = ",".join(f"param.P{i}" for i in range(501))
    values = ",".join(["v"] * 500)
    assert len(rows(f"file,{names}\nA,{values},\n")[0].request.params) == 500
    [found] = problems(f"file,{names}\nA,{values},\nB,{values},v\n")
    assert found == "m:3: params: 501 parameters: a job takes at most 500"


def test_a_record_of_more_than_8_mib_ends_the_reading() -> None:
    def pieces() -> object:
        yield b"file,key\nA,x\nB"
        for _ in range(100_000):
            yield b',"' + b"v" * 500 + b'\n"'

    tracemalloc.start()
    found = problems(generated(iter(pieces())), format="csv")  # type: ignore[call-overload]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["m:3: the row has more than 8,388,608 bytes, more than any request needs"]
    assert peak < 40 * 1024 * 1024


def test_memory_does_not_grow_with_the_number_of_rows() -> None:
    def peak(count: int) -> int:
        pieces = (b"A.jcl,%08d\n" % number for number in range(count))
        tracemalloc.start()
        source = generated(line for lines in ([b"file,param.NUMBER\n"], pieces) for line in lines)
        assert check_manifest(source, application_id=APP).rows == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1_000)  # what is made once
    assert peak(30_000) < peak(1_000) + 64 * 1024  # a pointer for each row would be four times that


def test_rows_come_while_the_stream_is_still_being_written() -> None:
    def pieces() -> object:
        yield b"file\n" + b"A\n" * 100
        raise AssertionError("read too far")

    reading = read_manifest(generated(iter(pieces())), application_id=APP)  # type: ignore[call-overload]
    assert next(reading).request.job == FileJob("A")
