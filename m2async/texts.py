"""How numbers, times and texts from elsewhere are written, on a terminal and on a page."""

from __future__ import annotations

import json
from datetime import datetime
from shlex import quote

_FIRST_WORDS = 200
"""Characters of an error's words."""

NOTHING = "—"
"""What stands where there is no value."""


def visible(text: str) -> str:
    """Write out the characters that a screen would obey or not show, as Python does."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def brief(error: BaseException) -> str:
    """Write somebody else's error in a line: its name and the first of its words, without control characters."""
    try:
        said = visible(" ".join(str(error).split()))
    except Exception:  # noqa: BLE001 - its own code says it
        said = ""
    name = type(error).__name__
    return f"{name}: {said[:_FIRST_WORDS]}" if said else name


def visible_json(text: str) -> str:
    """Write out the same characters in a line of JSON, as JSON does: whoever reads it gets them as they were."""
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet that opens a CSV file takes the text for a formula, and reckons it."""
    return text.startswith(("=", "+", "-", "@", "\t", "\r"))


def holds_controls(text: str) -> bool:
    """Whether a text holds characters, besides ends of lines and tabs, that a screen would obey or not show."""
    return not text.isprintable() and any(not (c.isprintable() or c in "\r\n\t") for c in text)


def quoted(text: str) -> str:
    """Quote a text for a shell; what a screen would obey or not show is spelled out as bash, zsh and ksh read it."""
    return quote(text) if text.isprintable() else f"$'{''.join(map(_spelled, text))}'"


def _spelled(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode(errors=errors))


def number(value: float) -> str:
    """Write a number with as many digits as a reader needs: 12,345, 48.1, 0.25."""
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Write a duration in the unit that suits it: 12 ms, 3.2 s, 4 min 05 s, 2 h 10 min, 3 d 4 h."""
    if value is None:
        return NOTHING
    if 0 < value < 0.9995:
        return f"{number(round(value * 1e3, 1))} ms"
    if value < 59.95:
        return f"{value:.2f}".rstrip("0").rstrip(".") + " s" if value < 10 else f"{value:.1f} s"
    whole = round(value)
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(value / 60)
    if minutes < 1_440:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(value / 3_600)
    return f"{hours // 24} d {hours % 24} h"


def moment(at: float | None) -> str:
    """Write a time, seconds of the epoch, as this machine's clock has it, with its distance from UTC."""
    if at is None:
        return NOTHING
    text = datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
    return f"{text[:19]} UTC{text[19:]}"


def percent(part: float, whole: float) -> str:
    """Write a share; only all of it is 100 %, and only none of it 0 %."""
    if not whole or not part:
        return "0 %"
    if part == whole:
        return "100 %"
    return f"{min(99.9, max(0.1, 100 * part / whole)):.1f} %".replace(".0 %", " %")


def plural(count: int, one: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else one + 's'}"
