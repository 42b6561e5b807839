"""`m2async local`: serve the local endpoint until a signal."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from m2async.cli.output import emit, say
from m2async.cli.running import Signals, run
from m2async.local import LocalEndpoint, load_definitions, parse_fault


def serve(
    *,
    port: int,
    rate: float | None,
    burst: float | None,
    faults: Sequence[str],
    seed: int | None,
    definitions: str | None,
) -> None:
    """Serve it, and print its URL on the first line."""

    async def serving(_: Signals) -> None:
        async with LocalEndpoint(
            port=port,
            rate=rate,
            burst=burst,
            faults=dict(map(parse_fault, faults)),
            seed=seed,
            definitions=load_definitions(definitions) if definitions else None,
        ) as endpoint:
            emit(endpoint.url)
            say(
                f"Serving {', '.join(endpoint.application_ids)}. To use it:\n"
                f"  export AWS_ENDPOINT_URL_M2={endpoint.url} AWS_DEFAULT_REGION=us-east-1\n"
                "  export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local\n"
                "Ctrl-C ends it."
            )
            await anyio.sleep_forever()

    run(serving)
