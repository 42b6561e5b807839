from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from tests.patient_loop import PatientLoop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Calls time out here after a while that is short, and not because a busy machine lets nobody answer."""
    return {"asyncio": PatientLoop}
