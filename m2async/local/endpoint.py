"""The life of the local endpoint: what it is made of, and how its server starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from m2async.errors import ConfigurationError, InvalidRequestError
from m2async.local.definitions import ApplicationDefinition, default_definitions
from m2async.local.faults import Faults
from m2async.local.routes import MAX_BODY, Routes
from m2async.local.service import BatchService
from m2async.local.signature import SignatureVerifier
from m2async.pacing import TokenBucket
from m2async.service import check_identifier

HOST = "127.0.0.1"
_BACKLOG = 1_024

_logger = logging.getLogger("m2async.local")
_logger.addHandler(logging.NullHandler())  # what is not HTTP gets status 400, and is no trouble of the host's


class LocalEndpoint:
    """A server on loopback with the batch part of the service's API, to rehearse and to test against.

    Within `async with` it listens at `url`; afterwards nothing of it is left, whatever its clients wait for.

    Arguments:
        port: the port of 127.0.0.1 to listen at; 0 takes a free one.
        rate: the quota of StartBatchJob, in calls a second; without it there is none.
        burst: how many calls the quota allows at once; `max(1, rate)` if not given.
        faults: the shares, from 0 to 1, of StartBatchJob calls that meet a fault, by its name (see `Fault`).
        seed: the same seed gives the same execution ids, run times and faults, call by call.
        definitions: the applications and their jobs, as `load_definitions` reads them; without it one Running
            application, DEFAULT_APPLICATION_ID, with the members of CardDemo. Any script and any S3 job is accepted;
            of files, only the defined ones.
        extra_applications: ids of further Running applications, which accept any file too.
        credentials: secret access keys by access key id, accepted besides any access key id with the same text as
            its secret; those of the environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY if not given.
        clock: tells the time in seconds of the epoch, for executions, quota and signatures.

    `GET /_local/executions`, which needs no signature, answers `{"executions": [...]}` with all that was really
    started, `jobParams` included, in the order of the starts. `POST /_local/quota` with `{"rate": R, "burst": B}` lets
    another quota hold from then on; what a larger burst adds has to flow in first. It needs no signature either.

    Raises ConfigurationError for arguments that do not make an endpoint, and on entering for a port that is taken.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        rate: float | None = None,
        burst: float | None = None,
        faults: Mapping[str, float] | None = None,
        seed: int | str | None = None,
        definitions: Sequence[ApplicationDefinition] | None = None,
        extra_applications: Iterable[str] = (),
        credentials: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if seed is None:
            seed = random.SystemRandom().getrandbits(64)
        defined = default_definitions() if definitions is None else definitions
        extra = _checked_ids(extra_applications)
        self._application_ids = tuple(dict.fromkeys((*(application.application_id for application in defined), *extra)))
        service = BatchService(defined, extra, clock, seed)
        verifier = SignatureVerifier(_environment_credentials() if credentials is None else credentials)
        self._routes = Routes(service, verifier, Faults(faults or {}, seed), _bucket(rate, burst), clock)
        self._port = port
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where the endpoint is, as `http://127.0.0.1:PORT`.

        Raises RuntimeError while it does not listen.
        """
        if self._listener is None:
            raise RuntimeError("the local endpoint listens within `async with` only")
        return f"http://{HOST}:{self._listener.sockets[0].getsockname()[1]}"

    @property
    def application_ids(self) -> Sequence[str]:
        """The applications that it holds."""
        return self._application_ids

    def client_settings(self) -> dict[str, Any]:
        """The arguments with which `M2Client(**settings)` uses the endpoint, whatever the environment says."""
        nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
        session = AioSession(session_vars={"profile": (None, None, None, None), **nowhere})
        session.set_credentials("local", "local")
        session.set_default_client_config(AioConfig(proxies={}))
        return {"session": session, "region_name": "us-east-1", "endpoint_url": self.url}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        # A handler whose client has gone is cancelled: that is what ends a hanging answer.
        server = web.Server(
            self._routes.handle,
            request_factory=_make_request,
            handler_cancellation=True,
            access_log=None,
            logger=_logger,
        )
        try:
            self._listener = await loop.create_server(server, HOST, self._port, backlog=_BACKLOG)
        except (OSError, OverflowError) as exc:
            reason = os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc)
            raise ConfigurationError(f"cannot listen at {HOST}:{self._port}: {reason}") from exc
        self._server = server
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        listener, server = self._listener, self._server
        self._listener = self._server = None
        if listener is None or server is None:
            return
        listener.close()
        with anyio.CancelScope(shield=True):
            for _ in range(3):  # connections that were just accepted come to be known
                await asyncio.sleep(0)
            while connections := server.connections:  # until their handlers have ended, too
                for connection in connections:
                    if connection.transport is not None:
                        connection.transport.abort()
                await asyncio.sleep(0)
            await listener.wait_closed()


def _make_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    return web.BaseRequest(
        message, payload, protocol, writer, task, asyncio.get_running_loop(), client_max_size=MAX_BODY
    )


def _bucket(rate: float | None, burst: float | None) -> TokenBucket | None:
    if rate is None:
        if burst is not None:
            raise ConfigurationError("burst needs a rate")
        return None
    try:
        return TokenBucket(rate, max(1, rate) if burst is None else burst)
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from exc


def _checked_ids(application_ids: Iterable[str]) -> Sequence[str]:
    checked = tuple(application_ids)
    try:
        for application_id in checked:
            check_identifier("extra_applications", application_id)
    except InvalidRequestError as exc:
        raise ConfigurationError(str(exc)) from exc
    return checked


def _environment_credentials() -> Mapping[str, str]:
    key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return {key_id: secret} if key_id and secret else {}
