"""Send requests through a proxy, and trust the certificate authority of a company.

Settings come from the environment: COPYAI_API_KEY, COPYAI_WORKFLOW_ID, HTTPS_PROXY, and
COMPANY_CA_FILE, the authority's certificates in PEM format.

    python docs/examples/own_session.py
"""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp

from aiocopyai import CopyAISession


async def main() -> None:
    """Print the number of runs of a workflow."""
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(os.environ["COMPANY_CA_FILE"])
    connector = aiohttp.TCPConnector(ssl=trusted, limit=20)
    # `async with` closes the connections; CopyAISession does not close your session.
    async with (
        aiohttp.ClientSession(
            connector=connector, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
        ) as http,
        CopyAISession(http_session=http) as session,
    ):
        print(await session.count_runs(os.environ["COPYAI_WORKFLOW_ID"]), "runs")


if __name__ == "__main__":
    asyncio.run(main())
