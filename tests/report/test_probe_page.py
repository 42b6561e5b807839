"""The page of a probe, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from m2async.figures.percentiles import Times
from m2async.probing.findings import Findings, NotCancelled, Quota, RateStep, Span
from m2async.report import probe_page
from tests.browser import chromium, tab
from tests.report.nights import BEGAN

HOSTILE = "<script>window.hit=1</script>\u202e\"'>" + "z" * 10_000


def findings(**given: Any) -> Findings:
    latencies = Times((millis / 1e3, 1) for millis in range(1, 301))
    spans = [
        Span(begin=place * 0.5, end=place * 0.5 + 0.5, due=20, sent=20, accepted=15, throttled=5, unknown=0)
        for place in range(20)
    ]
    step = RateStep(
        rate=40, seconds=10, calls=400, accepted=300, throttled=100, unknown=0, latency=latencies.percentiles()
    )
    fields: dict[str, Any] = {
        "profile": "ramp", "endpoint_url": "https://m2.eu-central-1.amazonaws.com", "application_id": "a" * 26,
        "job": "NONE", "real_jobs": False, "began": BEGAN, "seconds": 10.0, "rate": 30.2, "rate_least": 29.5,
        "rate_most": 31.0, "burst": 12, "burst_least": 11, "burst_most": 13, "use_rate": 29.6, "use_burst": 11,
        "sustained": 30.5, "calls": 400, "accepted": 300, "throttled": 100, "unknown": 0,
        "refused": {"ResourceNotFoundException": 300}, "unknown_codes": {},
        "quotas": (Quota(quota_code="L-12345678", service_code="m2", calls=100),), "timeline": tuple(spans),
        "latency": latencies.percentiles(), "latency_curve": tuple(latencies.curve()), "steps": (step,), "late": 0.004,
        "run": None, "started": (), "cancelled": (), "had_ended": (), "not_cancelled": (), "interrupted": False,
        "notes": ("Calls count before they are validated.",), **given,
    }  # fmt: skip
    return Findings(**fields)


async def test_what_a_probe_found_is_summed_up_and_drawn(tmp_path: Path) -> None:
    path = tmp_path / "probe.html"
    path.write_text(probe_page(findings()))
    async with chromium() as browser, tab(browser) as page:
        await page.goto(path.as_uri())
        verdict = await page.inner_text(".verdict")
        assert "The quota is about 30.2 calls a second, bursts of 12 calls" in verdict
        assert "m2async submit MANIFEST --rate 29.6 --burst 11" in verdict
        assert "Calls count before they are validated." in verdict
        assert await page.locator(".drawing .wide svg path[stroke]").count() >= 3
        assert "100 were throttled, 25 % of them" in await page.locator(".drawing").nth(0).get_attribute("aria-label")
        assert "L-12345678 m2" in await page.inner_text("section[aria-labelledby=answers]")
        page.was_quiet()


async def test_a_probe_that_found_nothing_and_hostile_texts_are_shown_as_well(tmp_path: Path) -> None:
    nothing = dict.fromkeys(["rate", "rate_least", "rate_most", "burst", "burst_least", "burst_most", "use_rate"])
    path = tmp_path / "probe.html"
    page_ = probe_page(
        findings(
            **nothing, use_burst=None, interrupted=True, timeline=(), latency=None, latency_curve=(), steps=(), calls=0,
            throttled=0, accepted=0, endpoint_url=HOSTILE, job=HOSTILE, refused={HOSTILE: 1},
            unknown_codes={HOSTILE: 2},
            quotas=(Quota(quota_code=HOSTILE, service_code=None, calls=3),), notes=(HOSTILE,), started=(HOSTILE,),
            not_cancelled=(NotCancelled(execution_id=HOSTILE, reason=HOSTILE),), run=HOSTILE,
        )
    )  # fmt: skip
    path.write_text(page_)
    async with chromium() as browser, tab(browser, width=360) as page:
        await page.goto(path.as_uri())
        assert await page.inner_text(".verdict h2") == "The probe was stopped before its end"
        assert "\\u202e" in await page.inner_text("h1")
        assert await page.evaluate("[window.hit, document.documentElement.scrollWidth]") == [None, 360]
        page.was_quiet()
