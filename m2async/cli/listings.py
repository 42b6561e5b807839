"""`m2async apps` and `m2async jobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from m2async.cli.output import Form, emit_list
from m2async.cli.progress import Waiting
from m2async.cli.running import Signals, run
from m2async.cli.service import Service
from m2async.client import M2Client
from m2async.errors import InvalidRequestError

Fields = dict[str, Any]


def apps(service: Service, form: Form) -> None:
    """List the applications."""

    async def read(client: M2Client) -> AsyncIterator[Fields]:
        async for app in client.list_applications():
            yield {"application_id": app.application_id, "name": app.name, "status": app.status}

    emit_list(_ask("applications", service, read), ("application_id", "name", "status"), form)


def jobs(service: Service, application: str | None, prefix: str | None, form: Form) -> None:
    """List the batch job definitions of one application, or of all."""

    async def read(client: M2Client) -> AsyncIterator[Fields]:
        applications = (
            [application] if application else [app.application_id async for app in client.list_applications()]
        )
        for application_id in applications:
            async for job in client.list_batch_job_definitions(application_id, prefix=prefix):
                yield {"application_id": application_id, "type": job.type, "job": job.name, "folder": job.folder_path}

    emit_list(_ask("jobs", service, read), ("application_id", "type", "job", "folder"), form)


def _ask(what: str, service: Service, read: Callable[[M2Client], AsyncIterator[Fields]]) -> list[Fields]:
    async def ask(_: Signals) -> list[Fields]:
        rows: list[Fields] = []
        async with service.client() as client:
            with Waiting(what) as waiting:
                async for row in read(client):
                    rows.append(row)
                    waiting.advance()
        return rows

    return run(ask, bad_input=(InvalidRequestError,))
