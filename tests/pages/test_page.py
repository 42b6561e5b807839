"""What every page has: a policy that lets in only its own style and scripts, and colours that can be read."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import m2async.pages
from m2async.ledger import RowState
from m2async.pages import marks, policy
from m2async.pages.page import data
from m2async.service.results import Result

STYLE = (Path(m2async.pages.__file__).parent / "templates" / "style.css").read_text()
TEXT = ("text", "muted", "link", "started", "good", "throttled", "refused", "unknown", "bad")
BEHIND = ("ground", "surface", "raised")


def test_the_policy_names_the_hash_of_each_style_and_script_and_nothing_else() -> None:
    def digest(source: str) -> str:
        return b64encode(sha256(source.encode()).digest()).decode()

    given = policy(["a{}"], ["one()", "zwei('ü')"])
    assert f"style-src 'sha256-{digest('a{}')}';" in given
    assert (
        f"script-src 'sha256-{digest('one()')}' 'sha256-{digest(chr(122) + 'wei(' + chr(39) + 'ü' + chr(39) + ')')}';"
        in given
    )
    assert "default-src 'none'" in given
    assert "unsafe" not in given
    assert "connect-src" not in given
    assert "connect-src 'self'" in policy([], [], live=True)


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
def test_what_is_shown_of_a_text_is_printable_and_has_no_mark_up(text: str) -> None:
    shown = str(data(text))
    assert re.fullmatch(r"<bdi>[^<>\"']*</bdi>", shown)
    assert shown.isprintable()


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert str(data("x" * 10_000)) == f"<bdi>{'x' * 80}…</bdi>"


def luminance(colour: str) -> float:
    """Source: WCAG 2.2, relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_colour_can_be_read_on_every_ground(theme: str) -> None:
    """Source: WCAG 2.2, 1.4.3: a contrast of 4.5 at least."""
    pairs = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", STYLE)
    colours = {name: light if theme == "light" else dark for name, light, dark in pairs}
    for text, behind in product(TEXT, BEHIND):
        high, low = sorted((luminance(colours[text]), luminance(colours[behind])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {behind}"


def test_every_state_and_result_has_a_mark_in_the_order_of_the_ledger() -> None:
    assert list(marks.STATES) == [state.label for state in sorted(RowState)]
    assert marks.RESULTS.keys() == {result.value for result in Result}
