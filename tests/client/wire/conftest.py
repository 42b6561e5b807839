from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.patient_loop import PatientLoop

_OF_BOTH_LOOPS = frozenset({"test_pool", "test_chaos"})


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What a transport does at its edges is the event loop's affair: those tests run under both."""
    if item.path.stem in _OF_BOTH_LOOPS:
        return {"asyncio": PatientLoop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": PatientLoop}
