"""Where a run is sent: it belongs to one endpoint, region and account, and a command for another is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

REHEARSAL = "local:"
"""The endpoint of a rehearsal, whatever its port: it ends with its command."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
# The names of one regional service: plain, FIPS, dual-stack (botocore/data/m2/2021-04-28/endpoint-rule-set-1.json).
_AWS_HOST = re.compile(
    r"m2(?:-fips)?\.([a-z0-9-]+)\.(?:(amazonaws\.com|api\.aws)|amazonaws\.com\.cn|api\.amazonwebservices\.com\.cn)"
)


class Destination(msgspec.Struct, frozen=True):
    """Where calls go: the endpoint in its plainest form, the region, and the account where that is known."""

    endpoint_url: str
    region_name: str
    account_id: str | None = None

    @property
    def is_rehearsal(self) -> bool:
        """Whether it is the local endpoint of `m2async submit --local`."""
        return self.endpoint_url == REHEARSAL

    def differences(self, other: Destination) -> Sequence[str]:
        """Name what differs: "endpoint", "region", "account". An account that is not known differs from none."""
        known = self.account_id is not None and other.account_id is not None
        pairs = {
            "endpoint": (self.endpoint_url, other.endpoint_url),
            "region": (self.region_name, other.region_name),
            "account": (self.account_id, other.account_id) if known else ("", ""),
        }
        return [name for name, (ours, theirs) in pairs.items() if ours != theirs]

    def may_be(self, other: Destination) -> bool:
        """Whether calls to both may reach one service, which then lists what either has started.

        A service has several names in its own region, as behind a private link; two on loopback are two.
        """
        differ = self.differences(other)
        return not differ or (differ == ["endpoint"] and not (self._is_on_loopback or other._is_on_loopback))

    @property
    def _is_on_loopback(self) -> bool:
        host = urlsplit(self.endpoint_url).hostname or ""
        return self.is_rehearsal or host in {"localhost", "::1"} or host.startswith("127.")

    def __str__(self) -> str:
        if self.is_rehearsal:
            return "a rehearsal's local endpoint"
        account = f", account {self.account_id}" if self.account_id else ""
        return f"{self.endpoint_url} in {self.region_name}{account}"


def destination_of(client: object) -> Destination | None:
    """Give where an open client's calls go; None if it does not say, as clients other than M2Client may."""
    url, region = getattr(client, "endpoint_url", None), getattr(client, "region_name", None)
    if not isinstance(url, str) or not isinstance(region, str):
        return None
    if getattr(client, "is_rehearsal", False):
        return Destination(REHEARSAL, region)
    return Destination(normal_endpoint(url), region, getattr(client, "account_id", None))


def normal_endpoint(url: str) -> str:
    """Write an endpoint's URL so that two are equal if they surely lead to the same service.

    Case, the default port, a closing slash or dot, a query and a user do not count; the FIPS and dual-stack names of a
    region's service are its plain name.
    """
    parts = urlsplit(url.strip())
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    port = parts.port
    if scheme == "https" and port in {None, 443} and (named := _AWS_HOST.fullmatch(host)):
        region, is_global = named.groups()
        host = f"m2.{region}.amazonaws.com{'' if is_global else '.cn'}"
    host = f"[{host}]" if ":" in host else host
    at = host if port in {None, _DEFAULT_PORTS.get(scheme)} else f"{host}:{port}"
    return f"{scheme}://{at}{parts.path.rstrip('/')}"
