from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from m2async.errors import ConfigurationError
from m2async.local.definitions import DEFAULT_APPLICATION_ID, default_definitions, load_definitions

JOB = '{"file": "A.jcl", "jobName": "A", "steps": [{"step": "S1", "program": "P"}, {"step": "S2", "procedure": "Q"}]}'


def written(folder: Path, text: str) -> Path:
    path = folder / "definitions.json"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_there_is_one_running_application_with_the_46_members_of_carddemo() -> None:
    [application] = default_definitions()
    assert (application.application_id, application.name, application.status) == (
        "carddemolocalapplication23",
        "CardDemo",
        "Running",
    )
    assert len(application.jobs) == 46
    assert [step.step for job in application.jobs if job.file == "POSTTRAN.jcl" for step in job.steps] == ["STEP15"]


def test_the_jobs_of_a_file_become_those_of_the_default_application(tmp_path: Path) -> None:
    [application] = load_definitions(written(tmp_path, f'{{"source": "mine", "jobs": [{JOB}]}}'))
    assert application.application_id == DEFAULT_APPLICATION_ID
    [job] = application.jobs
    assert (job.file, job.job_name, job.seconds, job.return_code) == ("A.jcl", "A", None, 0)


def test_the_example_beside_the_package_is_a_definitions_file() -> None:
    example = Path(__file__).parents[2] / "examples" / "carddemo-jobs.json"
    assert load_definitions(example) == default_definitions()


def test_a_file_may_define_several_applications(tmp_path: Path) -> None:
    text = f'{{"applications": [{{"applicationId": "one", "name": "One", "jobs": [{JOB}]}},'
    text += ' {"applicationId": "two", "name": "Two", "status": "Stopped"}]}'
    one, two = load_definitions(written(tmp_path, text))
    assert (one.application_id, one.status, len(one.jobs)) == ("one", "Running", 1)
    assert (two.application_id, two.status, two.jobs) == ("two", "Stopped", ())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", ":1: column 1: not JSON: Expecting value"),
        ('{"jobs": [\n}', ":2: column 1: not JSON: Expecting value"),
        ('{"jobs": NaN}', ": not JSON: NaN is not a JSON number"),
        ("[" * 100_000, ": not JSON: maximum recursion depth exceeded"),
        ("[]", ": Expected `object`, got `array`"),
        ("{}", ': exactly one of "jobs" and "applications" must be given'),
        (
            f'{{"jobs": [{JOB}], "applications": [{{"applicationId": "a", "name": "Ab"}}]}}',
            ': exactly one of "jobs" and "applications" must be given',
        ),
        ('{"applications": []}', ": applications: Expected `array` of length >= 1"),
        ('{"jobs": [{"file": 1}]}', ": jobs[0].file: Expected `str`, got `int`"),
        ('{"jobs": [{"file": "A"}]}', ": jobs[0]: Object missing required field `jobName`"),
        (f'{{"jobs": [{JOB}, {JOB}]}}', ": jobs[1].file: 'A.jcl' was given before"),
        (f'{{"jobs": [{JOB.replace("jobName", "jobname")}]}}', ": jobs[0]: Object contains unknown field `jobname`"),
        (
            '{"jobs": [{"file": "A", "jobName": "A", "steps": []}]}',
            ": jobs[0].steps: Expected `array` of length >= 1",
        ),
        (
            f'{{"jobs": [{JOB[:-1]}, "returnCode": -1}}]}}',
            ": jobs[0].returnCode: Expected `int` >= 0",
        ),
        (
            f'{{"jobs": [{JOB[:-1]}, "seconds": 86401}}]}}',
            ": jobs[0].seconds: Expected `float` <= 86400.0",
        ),
        (
            '{"applications": [{"applicationId": "a b", "name": "Ab"}]}',
            ": applications[0].applicationId: must have 1 to 80 characters and no white space",
        ),
        (
            '{"applications": [{"applicationId": "a", "name": "Ab"}, {"applicationId": "a", "name": "Cd"}]}',
            ": applications[1].applicationId: 'a' was given before",
        ),
        (
            '{"applications": [{"applicationId": "a", "name": "Ab", "status": "running"}]}',
            ": applications[0].status: Invalid enum value 'running'",
        ),
        (
            f'{{"applications": [{{"applicationId": "a", "name": "Ab", "jobs": [{JOB}, {JOB}]}}]}}',
            ": applications[0].jobs[1].file: 'A.jcl' was given before",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_the_place_and_the_reason(tmp_path: Path, text: str, reason: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        load_definitions(path)
    assert caught.value.message.startswith(f"{path}{reason}")


def test_a_file_that_cannot_be_read_is_refused_with_its_name_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.json: No such file or directory"):
        load_definitions(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load_definitions(str(tmp_path))
    (tmp_path / "latin.json").write_bytes(b'{"source": "\xe9"}')
    with pytest.raises(ConfigurationError, match=r"latin\.json: not UTF-8 \(byte 12\)"):
        load_definitions(tmp_path / "latin.json")


def test_definitions_and_faults_are_had_without_the_server() -> None:
    program = (
        "import sys; from m2async.local import load_definitions, parse_fault; "
        "sys.exit(any(name in sys.modules for name in ('aiohttp', 'botocore', 'asyncio')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
