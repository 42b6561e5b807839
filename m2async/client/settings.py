"""What AWS users know how to set, resolved by aiobotocore once and on refresh.

Profile, region, SSO, assumed roles, web identity, `AWS_ENDPOINT_URL_M2`, FIPS and dual-stack endpoints,
CA bundle, client certificate, proxies: the same as for every AWS tool. Exceptions of aiobotocore that have
to do with credentials and settings are translated here.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as botocore_exceptions
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, get_cert_path
from botocore.utils import get_environ_proxies

from m2async.client.http_session import HttpSession
from m2async.client.wire.proxy import Proxy
from m2async.client.wire.sigv4 import Credentials
from m2async.errors import ConfigurationError, CredentialsError

CREDENTIALS_ERRORS: tuple[type[Exception], ...] = (
    botocore_exceptions.NoCredentialsError,
    botocore_exceptions.PartialCredentialsError,
    botocore_exceptions.CredentialRetrievalError,
    botocore_exceptions.MetadataRetrievalError,
    botocore_exceptions.NoAuthTokenError,
    botocore_exceptions.TokenRetrievalError,
    botocore_exceptions.RefreshWithMFAUnsupportedError,
    botocore_exceptions.SSOError,
    botocore_exceptions.LoginError,
    botocore_exceptions.ClientError,  # of a call that was to bring them, such as AssumeRole
)
"""What botocore raises where no credentials can be had."""

_HOOKS = (
    "provide-client-params", "before-parameter-build", "before-call", "request-created", "choose-signer", "before-sign",
    "before-send", "response-received", "before-parse", "needs-retry", "after-call", "after-call-error",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """What a caller may choose; times in seconds. None leaves it to the environment."""

    session: AioSession | None
    profile_name: str | None
    region_name: str | None
    endpoint_url: str | None
    verify: bool | str | None
    connect_timeout: float
    read_timeout: float
    max_connections: int


class Aws:
    """An aiobotocore client of the service, and all that it resolved."""

    def __init__(self, client: Any, session: AioSession, settings: Settings, stack: AsyncExitStack) -> None:
        self.client = client
        self.settings = settings
        self._session = session
        self._stack = stack

    @classmethod
    async def open(cls, settings: Settings) -> Aws:
        """Resolve the settings and the credentials.

        Raises ConfigurationError or CredentialsError where that cannot be done.
        """
        config = AioConfig(
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            max_pool_connections=settings.max_connections,
            # One attempt a call: a repeated StartBatchJob can be a second payment run.
            retries={"total_max_attempts": 1, "mode": "standard"},
            user_agent_extra="m2async",
            http_session_cls=HttpSession,
        )
        # The oldest versions forget it where they merge this with the session's own configuration.
        config._user_provided_options["http_session_cls"] = HttpSession  # noqa: SLF001
        stack = AsyncExitStack()
        try:
            session = settings.session or AioSession(profile=settings.profile_name)
            # The other SDKs and the AWS CLI read AWS_REGION; botocore by itself reads only AWS_DEFAULT_REGION.
            region_name = settings.region_name or os.environ.get("AWS_REGION")
            creation = session.create_client(
                "m2", region_name=region_name, endpoint_url=settings.endpoint_url, verify=settings.verify, config=config
            )
            client = await stack.enter_async_context(creation)
        except CREDENTIALS_ERRORS as exc:
            raise CredentialsError(sentence(exc)) from exc
        except botocore_exceptions.NoRegionError as exc:
            raise ConfigurationError("no AWS region is set: give --region (region_name=) or set AWS_REGION") from exc
        except (botocore_exceptions.BotoCoreError, ValueError, OSError) as exc:
            raise ConfigurationError(sentence(exc)) from exc
        return cls(client, session, settings, stack)

    async def aclose(self) -> None:
        """Close the client."""
        await self._stack.aclose()

    @property
    def endpoint_url(self) -> str:
        """The endpoint that was resolved."""
        return str(self.client.meta.endpoint_url)

    @property
    def region_name(self) -> str:
        """The region that was resolved."""
        return str(self.client.meta.region_name)

    def proxy_url(self) -> str | None:
        """The proxy that calls are to go through, if there is one."""
        proxies: dict[str, str] | None = self.client.meta.config.proxies
        if proxies is None:
            proxies = get_environ_proxies(self.endpoint_url)
        url: str | None = ProxyConfiguration(proxies).proxy_url_for(self.endpoint_url)
        return url

    def proxy(self) -> Proxy | None:
        """The same, and how it is spoken to.

        Raises ConfigurationError if it cannot be one, or its certificates cannot be read.
        """
        url = self.proxy_url()
        if url is None:
            return None
        parts, own = urlsplit(url), self.client.meta.config.proxies_config or {}
        shown = f"the proxy {parts.scheme}://{parts.hostname}"  # without a password
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            authorization = ProxyConfiguration().proxy_headers_for(url).get("Proxy-Authorization")
        except ValueError as exc:  # UnicodeEncodeError among them
            raise ConfigurationError(f"{shown}: {exc}") from exc
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/"):
            raise ConfigurationError(f"{shown} is not reached by http or https")
        tls = None
        if parts.scheme == "https":
            tls = self._tls_context(own.get("proxy_ca_bundle"), own.get("proxy_client_cert"))
        return Proxy(parts.hostname, port, tls, authorization)

    def has_event_hooks(self) -> bool:
        """Whether the caller's session does something with the calls that a session by itself does not."""
        if self.settings.session is None:
            return False
        own, usual = _hooks(self._session), _hooks(AioSession())
        return own is None or usual is None or not own <= usual  # of which nothing is known is not left out

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS settings for the endpoint, or None where it is plain HTTP.

        Raises ConfigurationError if the CA bundle or the client certificate cannot be read.
        """
        if urlsplit(self.endpoint_url).scheme != "https":
            return None
        return self._tls_context(None, self.client.meta.config.client_cert)

    def _tls_context(self, ca_bundle: str | None, certificate: str | tuple[str, str] | None) -> ssl.SSLContext:
        verify = self.settings.verify
        if verify is None:
            verify = self._session.get_config_variable("ca_bundle") or True
        if ca_bundle is not None:
            verify = ca_bundle
        context: ssl.SSLContext = create_urllib3_context()
        context.check_hostname = bool(verify)
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        if verify:
            bundle = verify if isinstance(verify, str) else get_cert_path(True)
            try:
                context.load_verify_locations(bundle)
            except OSError as exc:
                raise ConfigurationError(f"the CA bundle {bundle} cannot be read: {exc.strerror or exc}") from exc
        if certificate:
            files = (certificate,) if isinstance(certificate, str) else tuple(certificate)
            try:
                context.load_cert_chain(*files)
            except OSError as exc:
                reason = exc.strerror or exc
                raise ConfigurationError(f"the client certificate {files[0]} cannot be read: {reason}") from exc
        return context

    async def credentials(self) -> SessionCredentials:
        """The session's credentials.

        Raises CredentialsError if there are none.
        """
        found = await self._session.get_credentials()
        if found is None:
            raise CredentialsError("Unable to locate credentials")
        return SessionCredentials(self._session, found)


class SessionCredentials:
    """The credentials of a session; aiobotocore refreshes temporary ones before they expire."""

    def __init__(self, session: AioSession, found: Any) -> None:
        self._session = session
        self._found = found
        self._renewing = asyncio.Lock()
        self._renewals = 0
        self.account_id: str | None = None
        """The account that they are of, where whatever gave them said so."""

    @property
    def may_change(self) -> bool:
        """Whether they have to be asked for again as time goes by."""
        return hasattr(self._found, "refresh_needed")

    async def current(self) -> Credentials:
        """Give those that are valid now, refreshed if they expire soon: once, however many ask.

        Raises CredentialsError if they cannot be refreshed.
        """
        try:
            frozen = await self._found.get_frozen_credentials()
        except CREDENTIALS_ERRORS as exc:
            raise CredentialsError(sentence(exc)) from exc
        except botocore_exceptions.ConnectionError as exc:
            raise CredentialsError(sentence(exc)) from exc
        self.account_id = frozen.account_id or self.account_id
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def renewed(self, expired: Credentials) -> Credentials:
        """Give others than those that the service said have expired, resolved anew: once, however many ask.

        Gives the same again if there are no others. Raises CredentialsError as `current` does.
        """
        seen = self._renewals
        async with self._renewing:
            current = await self.current()
            tried_meanwhile = self._renewals != seen
            if current != expired or tried_meanwhile or self._found.method == "explicit":
                return current
            provider = self._session.get_component("credential_provider")
            try:
                found = await provider.load_credentials()
            except CREDENTIALS_ERRORS as exc:
                raise CredentialsError(sentence(exc)) from exc
            finally:
                self._renewals += 1
            if found is not None:
                self._found = found
            return await self.current()


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine itself."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def sentence(exc: BaseException) -> str:
    """An exception's message on one line."""
    return " ".join(str(exc).split()) or type(exc).__name__


def _hooks(session: AioSession) -> set[str] | None:
    """What a session does at the events of a call, by name; None if that cannot be known."""
    emitter = session.get_component("event_emitter")
    handlers = getattr(getattr(emitter, "_emitter", emitter), "_handlers", None)
    if handlers is None:
        return None
    names = set()
    for event in _HOOKS:
        for handler in handlers.prefix_search(f"{event}.m2.StartBatchJob"):
            names.add(f"{event}: {getattr(handler, '__module__', '')}.{getattr(handler, '__qualname__', handler)}")
    return names
