from __future__ import annotations

import json
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2async.pacing import TokenBucket
from m2async.probing.findings import Findings, LoadProfile
from m2async.probing.plans import Limits, Plan, Ramp, Steps
from m2async.probing.record import Call, QuotaVerdict, Record, SentStretch
from m2async.probing.summary import SPANS, Setting, Starts, summarize, timeline
from tests.probing.simulated import Quota, play

SETTING = Setting("https://m2.example", "ab2cdefghijklmnopqrstuvwxy", "NOJOB", "no application", 1_795_000_000.0)


def summary(plan: Plan, quota: Quota, ended_by: str | None = None) -> Findings:
    play(plan, quota)
    return summarize(plan, SETTING, Starts(), ended_by=ended_by)


@given(
    st.lists(
        st.builds(
            lambda due, late, verdict: Call(due, due + late, due + late + 0.01, verdict),
            st.floats(0, 2_000),
            st.floats(0, 5),
            st.sampled_from(QuotaVerdict),
        ),
        max_size=100,
    )
)
def test_a_timeline_has_every_call_once_and_no_gaps(calls: list[Call]) -> None:
    spans = timeline(calls)
    assert len(spans) <= SPANS
    assert sum(span.due for span in spans) == sum(span.sent for span in spans) == len(calls)
    for verdict in QuotaVerdict:
        assert sum(getattr(span, verdict.value) for span in spans) == sum(call.verdict is verdict for call in calls)
    for before, after in pairwise(spans):
        assert before.end == after.begin


def test_what_is_to_be_used_is_a_little_less_than_what_was_found() -> None:
    findings = summary(Ramp(Limits(2_000, 60)), TokenBucket(50, 100).try_take)
    assert findings.rate is not None
    assert findings.rate == pytest.approx(50, rel=0.02)
    assert findings.burst == 100
    assert findings.use_rate is not None
    assert 0.96 * findings.rate < findings.use_rate <= 0.98 * findings.rate
    assert findings.use_burst == 95


def test_the_json_has_the_fields_of_the_findings() -> None:
    fields = json.loads(json.dumps(summary(Ramp(Limits(2_000, 60)), TokenBucket(50, 100).try_take).to_json()))
    assert {"rate", "burst", "calls", "throttled", "seconds"} <= fields.keys()
    assert fields["calls"] == fields["accepted"] + fields["throttled"] + fields["unknown"]
    assert fields["profile"] in get_args(LoadProfile)


def test_without_throttles_the_quota_is_at_least_what_was_accepted_over_a_second() -> None:
    findings = summary(Steps([80.0], 3.0), lambda at: True)
    assert (findings.rate, findings.burst, findings.sustained) == (None, None, 80.0)
    assert any("at least 80/s" in note for note in findings.notes)


def test_a_constant_rate_above_the_quota_tells_its_rate() -> None:
    findings = summary(Steps([80.0], 5.0), TokenBucket(20, 10).try_take)
    assert findings.rate == pytest.approx(20, rel=0.03)
    assert findings.burst is None
    assert [step.rate for step in findings.steps] == [80.0]
    assert findings.steps[0].throttled == findings.throttled


def test_what_ended_it_is_the_first_note() -> None:
    findings = summary(Steps([80.0], 1.0), lambda at: True, "It was interrupted")
    assert findings.interrupted
    assert findings.notes[0].startswith("It was interrupted")


def test_a_call_that_is_sent_late_has_its_latency_from_when_it_was_due_and_that_is_said() -> None:
    plan = Steps([10.0], 1.0)
    record = Record()
    for number in range(10):
        call = record.sent(number / 10, number / 10 + (0.5 if number == 4 else 0.0))
        record.answered(call, call.sent + 0.01, QuotaVerdict.ACCEPTED)
    plan.done.append(SentStretch(next(plan.stretches()), record))
    findings = summarize(plan, SETTING, Starts(), ended_by=None)
    assert findings.latency is not None
    assert (findings.latency.p50, findings.latency.max) == pytest.approx((0.01, 0.51), rel=0.01)
    assert findings.late == 0.5
    assert any("500 ms at most" in note for note in findings.notes)
