from __future__ import annotations

import itertools
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from m2async.manifest import ManifestRow, check_manifest, read_manifest
from m2async.service.requests import FileJob, RestartJob, ScriptJob, StartBatchJob
from tests.manifest.samples import APP, fields_of, manifests, problems, rows, stream
from tests.work import calls_at_most

SWEEP = """
defaults:
  application_id: app1
  params: {HLQ: AWS.M2.CARDDEMO, RUNTYPE: PART}
jobs:
  - file: POSTTRAN.jcl
    params: {RUNTYPE: FULL}
    matrix:
      RUNDATE: {from: 2026-11-29, to: 2026-11-30, format: "%Y%m%d"}
      BRANCH: {from: 7, to: 8, width: 4}
"""


def test_a_job_is_swept_over_its_matrix_the_last_axis_fastest() -> None:
    assert [row.key for row in rows(SWEEP)] == [
        "POSTTRAN.jcl/20261129/0007",
        "POSTTRAN.jcl/20261129/0008",
        "POSTTRAN.jcl/20261130/0007",
        "POSTTRAN.jcl/20261130/0008",
    ]
    params = {"HLQ": "AWS.M2.CARDDEMO", "RUNTYPE": "FULL", "RUNDATE": "20261130", "BRANCH": "0008"}
    assert rows(SWEEP)[-1].request == StartBatchJob("app1", FileJob("POSTTRAN.jcl"), params)


def test_jobs_without_a_matrix_are_called_by_their_number() -> None:
    content = "jobs:\n- {script: A, params: {AA: 007}, param.BB: ''}\n- {key: x, script: B}\n- {script: C, folder: ~}\n"
    assert rows(content) == [
        ManifestRow("1", StartBatchJob(APP, ScriptJob("A"), {"AA": "007", "BB": ""})),
        ManifestRow("x", StartBatchJob(APP, ScriptJob("B"))),
        ManifestRow("3", StartBatchJob(APP, ScriptJob("C"))),
    ]


def test_a_restart_has_its_booleans_and_integers_as_they_are_written() -> None:
    content = "jobs:\n- {restart_execution_id: e, from_step: S, skip: false, step_checkpoint: 7}\n"
    assert rows(content)[0].request.job == RestartJob("e", "S", skip=False, step_checkpoint=7)


def test_without_jobs_the_defaults_are_one_job() -> None:
    assert [row.key for row in rows("defaults: {file: A}\n")] == ["1"]
    assert [row.key for row in rows("defaults: {file: A}\nmatrix: {AA: [x, y]}\n")] == ["A/x", "A/y"]
    assert [row.request.job for row in rows("matrix: {file: [A, B]}\n")] == [FileJob("A"), FileJob("B")]


def test_a_jobs_axes_come_after_the_shared_ones_and_replace_those_of_the_same_name() -> None:
    content = """
matrix: {AA: [a, b], BB: [x]}
jobs:
  - {file: A, matrix: {CC: [1, 2], param.AA: [z]}}
  - {file: B}
"""
    assert [row.key for row in rows(content)] == ["A/z/x/1", "A/z/x/2", "B/a/x", "B/b/x"]


def test_an_axis_is_a_column_or_else_a_parameter() -> None:
    content = "matrix: {script: [A, B], param.script: [x], application_id: [app1]}\n"
    assert rows(content) == [
        ManifestRow(f"{name}/x/app1", StartBatchJob("app1", ScriptJob(name), {"script": "x"})) for name in "AB"
    ]


def test_a_key_is_a_template_over_the_swept_values() -> None:
    content = "jobs: [{file: A, key: '{BB}-{{x}}-{param.AA}{', matrix: {AA: [1, 2], BB: [y], x: [q]}}]\n"
    with_names = content.replace("x: [q]", "xx: [q]").replace("{{x}}", "{{xx}}")
    assert [row.key for row in rows(with_names)] == ["y-{q}-1{", "y-{q}-2{"]
    assert [row.key for row in rows("jobs: [{file: A, key: '{AA}'}]\n")] == ["{AA}"]


def test_aliases_share_what_they_stand_for() -> None:
    content = "jobs:\n- file: A\n  matrix: &m {AA: &l [x, y]}\n- file: B\n  matrix: *m\n- file: C\n  matrix: {BB: *l}\n"
    assert [row.key for row in rows(content)] == ["A/x", "A/y", "B/x", "B/y", "C/x", "C/y"]


_values = st.lists(st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True), min_size=1, max_size=4, unique=True)
_axes = st.dictionaries(st.sampled_from(["AA", "BB", "CC", "folder"]), _values, max_size=3)


@given(_axes, _axes)
def test_a_sweep_is_what_a_product_over_its_axes_gives(shared: dict[str, list[str]], own: dict[str, list[str]]) -> None:
    axes = {**shared, **own}
    expected = [
        ("/".join(("A", *values)) if values else "1", dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
    found = []
    for key, request in rows(json.dumps({"matrix": shared, "jobs": [{"file": "A", "matrix": own}]}), format="yaml"):
        assert isinstance(request.job, FileJob)
        folder = {} if request.job.folder_path is None else {"folder": request.job.folder_path}
        found.append((key, {**request.params, **folder}))
    assert found == expected


@given(manifests)
def test_any_requests_written_as_yaml_read_back_equal(manifest: list[ManifestRow]) -> None:
    assert rows(yaml.safe_dump({"jobs": [fields_of(row) for row in manifest]}), format="yaml") == manifest


def test_a_sweep_of_any_size_begins_at_once() -> None:
    axes = "{AA: {from: 1, to: 999999999999999999}, BB: {from: 1, to: 999999999999999999}}"
    reading = read_manifest(stream(f"defaults: {{file: A}}\nmatrix: {axes}\n"), application_id=APP)
    assert [next(reading).key, next(reading).key] == ["A/1/1", "A/1/2"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("- file: A\n", "m:1: a manifest is a mapping of defaults, jobs, matrix"),
        ("jobs:\n- file: A\njbos: x\n", "m:3: jbos: is no top-level field; did you mean jobs?"),
        ("file: A\n", "m:1: file: is no top-level field; put it under defaults"),
        ("params: {AA: x}\n", "m:1: params: is no top-level field; put it under defaults"),
        ("jobs: A\n", "m:1: jobs: must be a list of jobs"),
        ("jobs:\n- A\n", "m:2: a job must be a mapping of columns to values"),
        ("jobs:\n- ~\n", "m:2: a job must be a mapping of columns to values"),
        ("defaults: [A]\n", "m:1: defaults must be a mapping of columns to values"),
        ("jobs:\n- file: A\n  fodler: x\n", "m:3: fodler: is no column; did you mean folder?"),
        ("defaults: {file: A, matrix: {AA: [x]}}\n", "m:1: matrix: is no column"),
        ("jobs:\n- file: [A]\n", "m:2: file: a list: must be a text"),
        ("jobs:\n- file: A\n  params: [AA]\n", "m:3: params: a list: must map names to values"),
        ("jobs:\n- file: A\n  params:\n    AA: {x: y}\n", "m:4: param.AA: a mapping: must be a text"),
        (
            "jobs:\n- file: A\n  params:\n    AA: x\n  param.AA: x\n",
            "m:5: param.AA: is given both by itself and within",
        ),
        ("jobs:\n- file: A\n  params:\n    A-B: x\n", "m:4: param.A-B: 'A-B': a parameter's name must be a letter"),
        ("defaults:\n  params:\n    A-B: x\njobs:\n- file: A\n", "m:3: param.A-B: 'A-B': a parameter's name must be"),
        ("jobs:\n- file: A\n\n- key: x\n", "m:4: script, file, s3_bucket, restart_execution_id: no job is named"),
        ("jobs:\n- file: A\n  script: B\n", "m:2: file: a second job: script is given as well"),
        ("defaults:\n  script: A\njobs:\n- file: B\n", "m:4: file: a second job: script is given as well"),
        ("jobs:\n- folder: x\n", "m:2: file: is missing, but folder is given"),
        ("jobs:\n- file: A\n  key: x\n- file: B\n  key: x\n", "m:5: key: 'x': is the key of line 2 already"),
        ("jobs:\n- file: A\n  key: x\n  matrix: {AA: [1, 2]}\n", "m:3: key: 'x': this job makes it twice: put every"),
        ("jobs:\n- file: A\n  matrix: {AA: [1, 1]}\n", "m:2: key: 'A/1': this job makes it twice"),
        ("jobs:\n- file: A\n  key: '{BB}'\n  matrix: {AA: [1, 2]}\n", "m:3: key: '{BB}': is not swept; known are {AA}"),
        ("jobs:\n- file: A\n  key: '{__class__}'\n  matrix: {AA: [1]}\n", "m:3: key: '{__class__}': is not swept"),
        ("jobs:\n- file: A\n  key: '{AA.x}{AA[0]}'\n  matrix: {AA: [1]}\n", "m:3: key: '{AA.x}': is not swept"),
        ("jobs:\n- file: A\n  matrix: [AA]\n", "m:3: matrix: must be a mapping of names to lists or ranges"),
        ("jobs:\n- file: A\n  matrix:\n    AA: x\n", "m:4: matrix.AA: 'x': must be a list or a range"),
        ("jobs:\n- file: A\n  matrix:\n    AA: []\n", "m:4: matrix.AA: the list is empty"),
        ("jobs:\n- file: A\n  matrix:\n    AA:\n      from: 1\n      to: 0\n", "m:5: matrix.AA.from: 1: must not be"),
        ("jobs:\n- file: A\n  matrix:\n    AA: [x,\n      ~]\n", "m:5: matrix.AA: value 2 of the list must be a text"),
        ("jobs:\n- file: A\n  matrix:\n    A-B: [x]\n", "m:4: matrix.A-B: 'A-B': a parameter's name must be a letter"),
        ("jobs:\n- file: A\n  matrix:\n    key: [x]\n", "m:4: matrix.key: cannot be swept: give key as a template"),
        ("matrix:\n  AA: [x]\n  param.AA: [y]\n", "m:3: matrix.param.AA: is given twice, by itself and as param.NAME"),
        ("jobs:\n- file: A\n  matrix:\n    AA:\n    - x\n    - " + "v" * 1025, "m:6: param.AA: 'vvvvv"),
        ("jobs:\n- matrix:\n    file:\n    - A\n    - ''\n", "m:5: file: '': must not be empty"),
        (
            "jobs:\n- file: A\n  matrix: {application_id: [x,\n    a b]}\n",
            "m:4: application_id: 'a b': must have 1 to 80",
        ),
        (
            "jobs:\n- file: A\n  matrix:\n    " + "\n    ".join(f"P{n}: [x]" for n in range(600)),
            "m:4: matrix: 600 axes",
        ),
        ("defaults:\n  params: {" + ", ".join(f"P{n}: x" for n in range(501)) + "}\n", "m:2: params: 501 parameters"),
    ],
)
def test_what_is_wrong_is_told_with_line_and_path(content: str, problem: str) -> None:
    [found] = problems(content, format="yaml")
    assert found.startswith(problem)


def test_a_job_takes_500_parameters_swept_ones_among_them() -> None:
    names = ", ".join(f"P{number}: x" for number in range(499))
    content = f"jobs:\n- file: A\n  params: {{{names}}}\n  matrix: {{AA: [x], BB: [y]}}\n"
    assert problems(content) == ["m:2: params: 501 parameters: a job takes at most 500"]
    assert len(rows(content.replace(", BB: [y]", ""))[0].request.params) == 500


def test_every_job_that_is_wrong_is_told() -> None:
    content = "jobs:\n- fiel: A\n- file: B\n- file: C\n  matrix: {AA: []}\n- folder: x\n"
    assert [found.split(": ")[:2] for found in problems(content)] == [
        ["m:2", "fiel"],
        ["m:5", "matrix.AA"],
        ["m:6", "file"],
    ]
    shared = "defaults: {fiel: A}\nmatrix: {AA: []}\njobs:\n- {file: A}\n- {fodler: x}\n"
    assert [found.split(": ")[:2] for found in problems(shared)] == [
        ["m:1", "fiel"],
        ["m:2", "matrix.AA"],
        ["m:5", "fodler"],
    ]


def test_a_fault_outside_the_axes_is_told_once_and_one_in_a_value_once_a_value() -> None:
    begin = "jobs:\n- file: A\n  matrix: {NN: {from: 1, to: 100000000000}}\n"
    assert len(problems(begin, application_id=None)) == 1
    values = "jobs:\n- matrix: {NN: {from: 1, to: 1000}, application_id: [a b, c, d e], file: [F]}\n"
    assert [found.split(": ")[1:3] for found in problems(values)] == [
        ["application_id", "'a b'"],
        ["application_id", "'d e'"],
    ]


def test_an_axis_that_is_set_for_all_rows_is_refused_as_its_jobs_would_be_one() -> None:
    [found] = problems("jobs:\n- file: A\n  matrix:\n    AA: [x, y]\n", params={"AA": "z"})
    assert found == "m:4: param.AA: is swept here but also set for all rows: every value would start the same job"


def test_an_alias_bomb_does_no_harm() -> None:
    lines = ["defaults:", "  file: A", "  params:", "    a0: &a0 [x, x]"]
    lines += [f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 100)]
    with calls_at_most(30_000):
        assert len(problems("\n".join(lines))) == 100


def test_many_aliases_of_one_job_are_read_once() -> None:
    values = ", ".join(f"v{number}" for number in range(10_000))
    aliases = "- *job\n" * 10_000
    with calls_at_most(500_000):
        found = problems(f"jobs:\n- &job\n  fiel: A\n  matrix: {{AA: [{values}]}}\n{aliases}")
    assert [text.split(": ")[:2] for text in found] == [["m:3", "fiel"]]


def test_the_problems_of_the_top_level_are_bounded() -> None:
    assert len(problems("\n".join(f"x{number}: 1" for number in range(100_000)))) == 100


def test_an_axis_that_many_jobs_share_is_read_once() -> None:
    values = ", ".join(f"v{number}" for number in range(3_000))
    with calls_at_most(2_000_000):
        found = problems(f"jobs:\n- matrix: {{AA: &a [{values}]}}\n" + "- matrix: {AA: *a}\n" * 3_000)
    assert found[-1] == "m: and 2,001 more problems"


@pytest.mark.parametrize("matrix", ["{AA: []}", "{AA: [x], A-B: [x]}", "[AA]"])
def test_a_matrix_that_is_wrong_is_told_once_for_all_jobs_that_share_it(matrix: str) -> None:
    content = f"jobs:\n- {{file: A, key: '{{AA}}', matrix: &m {matrix}}}\n- {{file: B, key: '{{AA}}', matrix: *m}}\n"
    [found] = problems(content)
    assert found.startswith("m:2: matrix")


def test_an_axis_that_is_wrong_is_told_once_for_all_jobs_that_share_it() -> None:
    content = "jobs:\n- {file: A, matrix: {AA: &a []}}\n" + "- {file: B, key: '{AA}', matrix: {AA: *a}}\n" * 2
    assert problems(content) == ["m:2: matrix.AA: the list is empty: give at least one value"]


def test_a_summary_counts_the_swept_rows() -> None:
    summary = check_manifest(stream(SWEEP))
    assert (summary.rows, summary.applications, summary.key_width, summary.job_width) == (4, ("app1",), 26, 12)
