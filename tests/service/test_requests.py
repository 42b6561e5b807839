from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async import FileJob, InvalidRequestError, Job, RestartJob, S3Job, ScriptJob, StartBatchJob
from m2async.service import check_execution_id, is_execution_id
from tests import model

identifiers = st.from_regex(r"\A\S{1,80}\Z").filter(lambda text: text not in {".", ".."})
names = st.text(min_size=1, max_size=40)
optional_names = st.none() | st.text(max_size=40)
param_names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9]{1,31}\Z")
jobs: st.SearchStrategy[Job] = st.one_of(
    st.builds(ScriptJob, names),
    st.builds(FileJob, names, optional_names),
    st.builds(S3Job, names, file_name=names, key_prefix=optional_names),
    st.builds(S3Job, names, script_name=names, key_prefix=optional_names),
    st.builds(
        RestartJob,
        identifiers,
        names,
        optional_names,
        optional_names,
        optional_names,
        st.none() | st.booleans(),
        st.none() | st.integers(-(2**31), 2**31 - 1),
    ),
)
requests = st.builds(
    StartBatchJob,
    identifiers,
    jobs,
    st.dictionaries(param_names, st.text(max_size=1_024), max_size=5),
    st.none() | st.text(min_size=20, max_size=100),
)


@given(requests)
def test_what_is_accepted_is_sent_by_botocore_to_the_same_url_with_the_same_json(request: StartBatchJob) -> None:
    theirs = model.serialized("StartBatchJob", request.to_api())
    assert request.path == theirs["url_path"]
    assert json.loads(request.body()) == json.loads(theirs["body"])
    assert theirs["query_string"] == {}


@given(requests)
def test_the_services_own_shape_gives_the_request_back(request: StartBatchJob) -> None:
    assert StartBatchJob.from_api(request.to_api()) == request


# Values around every limit of the model, and of the wrong type.
any_text = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["A", "AB", "a" * 80, "a" * 81, "a b", "a\n", "a\u00a0", "\u2028", "A" * 32, "A" * 33, "1A", "É1"]),
)
any_value = st.one_of(any_text, any_text, any_text, st.none(), st.booleans(), st.integers(), st.just({}), st.just([]))


def members(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*names, "other"]), any_value, max_size=len(names))


steps = members("fromStep", "fromProcStep", "toStep", "toProcStep", "skip", "stepCheckpoint")
any_identifier = st.dictionaries(
    st.sampled_from(["scriptBatchJobIdentifier", "fileBatchJobIdentifier", "s3BatchJobIdentifier"]),
    st.one_of(
        members("scriptName"),
        members("fileName", "folderPath"),
        st.fixed_dictionaries({"bucket": any_value, "identifier": members("fileName", "scriptName") | any_value}),
    ),
    max_size=2,
) | st.fixed_dictionaries(
    {"restartBatchJobIdentifier": st.fixed_dictionaries({"executionId": any_value, "jobStepRestartMarker": steps})}
)
valid_identifiers = jobs.map(lambda job: {job.member: job.to_members()})
any_arn = st.sampled_from([None, "a" * 19, "a" * 20, "a" * 2_048, "a" * 2_049, 7])
any_params = st.one_of(
    st.none(),
    st.dictionaries(any_text, any_value, max_size=3),
    st.dictionaries(param_names, st.sampled_from(["", "a" * 1_024, "é" * 1_024, "a" * 1_025]), max_size=3),
    st.sampled_from([{f"P{n:03}": "" for n in range(count)} for count in (500, 501)]),
    any_value,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "applicationId": any_value | identifiers,
            "batchJobIdentifier": any_identifier | valid_identifiers,
            "jobParams": any_params,
            "authSecretsManagerArn": any_arn,
            "surplus": st.just("x"),
        },
    )
)
def test_a_request_is_refused_exactly_where_it_violates_the_model(members: dict[str, Any]) -> None:
    check_against_the_model(members)


@given(
    st.fixed_dictionaries(
        {"applicationId": identifiers, "batchJobIdentifier": any_identifier | valid_identifiers},
        optional={"jobParams": any_params, "authSecretsManagerArn": any_arn},
    )
)
def test_one_violation_in_a_request_is_enough(members: dict[str, Any]) -> None:
    check_against_the_model(members)


def check_against_the_model(members: dict[str, Any]) -> None:
    violated = list(model.violations(members, model.service().shape_for("StartBatchJobRequest")))
    try:
        request = StartBatchJob.from_api(members)
    except InvalidRequestError as error:
        # The model knows no rule against an empty name, but no job has one.
        assert violated or "must not be empty" in str(error) or "dot segment" in str(error), error
    else:
        assert not violated
        assert request.path == model.serialized("StartBatchJob", request.to_api())["url_path"]


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: StartBatchJob("a b", ScriptJob("X")), "application_id", ["'a b'", "1 to 80 characters"]),
        (lambda: StartBatchJob("..", ScriptJob("X")), "application_id", ["'..'", "dot segment"]),
        (lambda: StartBatchJob("app", ScriptJob("X"), {"X": ""}), "params", ["'X'", "1 to 31 letters or digits"]),
        (
            lambda: StartBatchJob("app", ScriptJob("X"), {"RUNDATE": "x" * 1_025}),
            "params.RUNDATE",
            ["(1,025 characters)", "at most 1,024 characters"],
        ),
        (
            lambda: StartBatchJob("app", ScriptJob("X"), {f"P{n}0": "" for n in range(501)}),
            "params",
            ["501", "at most 500 parameters"],
        ),
        (lambda: StartBatchJob("app", ScriptJob("X"), {"AB": 7}), "params.AB", ["7", "must be a text"]),  # type: ignore[dict-item]
        (lambda: StartBatchJob("app", "X"), "job", ["'X'", "ScriptJob"]),  # type: ignore[arg-type]
        (lambda: StartBatchJob("app", ScriptJob("X"), {}, "arn"), "auth_secrets_manager_arn", ["'arn'", "20 to 2,048"]),
        (lambda: ScriptJob(""), "script_name", ["''", "must not be empty"]),
        (lambda: ScriptJob("\ud800"), "script_name", ["valid Unicode"]),
        (lambda: S3Job("b"), "file_name, script_name", ["exactly one"]),
        (lambda: S3Job("b", "f", "s"), "file_name, script_name", ["exactly one"]),
        (lambda: RestartJob("e", "S", step_checkpoint=2**31), "step_checkpoint", ["2147483648", "32 bits"]),
        (lambda: RestartJob("e", "S", skip="yes"), "skip", ["'yes'", "true or false"]),  # type: ignore[arg-type]
    ],
)
def test_an_error_names_the_field_the_value_and_the_rule(make: Any, field: str, words: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make()
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    for word in words:
        assert word in str(caught.value)


def test_a_union_with_two_members_or_an_unknown_one_is_refused_by_name() -> None:
    script = {"scriptBatchJobIdentifier": {"scriptName": "X"}}
    two = {**script, "fileBatchJobIdentifier": {"fileName": "Y"}}
    with pytest.raises(InvalidRequestError, match="exactly one of .* must be given") as caught:
        StartBatchJob.from_api({"applicationId": "app", "batchJobIdentifier": two})
    assert "fileBatchJobIdentifier" in str(caught.value.value)
    unknown: dict[str, Any] = {"cobolBatchJobIdentifier": {}}
    with pytest.raises(InvalidRequestError, match="batchJobIdentifier.cobolBatchJobIdentifier: .*unknown member"):
        StartBatchJob.from_api({"applicationId": "app", "batchJobIdentifier": unknown})


def test_secrets_do_not_show_in_the_repr_and_later_changes_do_not_reach_the_request() -> None:
    params = {"PIN": "1234"}
    arn = "arn:aws:secretsmanager:us-east-1:1:secret:batch-user"
    request = StartBatchJob("app", ScriptJob("X"), params, arn)
    params["PIN"] = "9999"
    assert request.params == {"PIN": "1234"}
    assert "1234" not in repr(request)
    assert "batch-user" not in repr(request)
    assert "PIN" in repr(request)


@pytest.mark.parametrize("given", ["e-1", "y" * 80, "résumé", "a.b", "x=1&y"])
def test_what_can_be_an_execution_id(given: str) -> None:
    assert is_execution_id(given)
    check_execution_id("--started", given)


NO_EXECUTION_IDS = [
    *("", " ", "a b", "a\nb", "a\tb", "a\xa0b", "a\u2003b", "y" * 81, ".", "..", "../..", "a/b", "a\\b"),
    *("a\0", "\x1b[31m", "a\x9b", "a\u202eb", "a\u200bb", "a\u2028b", "a\ud800", "a\ufeffb", None, 5, True, ["e-1"]),
]


@pytest.mark.parametrize("given", NO_EXECUTION_IDS, ids=ascii)
def test_what_can_be_no_execution_id(given: object) -> None:
    assert not is_execution_id(given)
    with pytest.raises(InvalidRequestError) as caught:
        check_execution_id("--started", given)
    assert str(caught.value).isprintable()
