"""``aiocopyai mcp``: serve runs to agents."""

from __future__ import annotations

import asyncio
import os
import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

from aiocopyai.cli import _demo
from aiocopyai.cli._client import find_key, open_session
from aiocopyai.cli._errors import run_async, usage_errors
from aiocopyai.cli._options import Settings, shared_options
from aiocopyai.cli._output import echo_err


if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer


@shared_options
def mcp(
    settings: Settings,
    workflow_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKFLOW_ID…",
            help="The workflows that agents may use; by default all of the workspace.",
            show_default=False,
        ),
    ] = None,
    *,
    allow_start: Annotated[
        bool, typer.Option("--allow-start", help="Let agents start runs, which spend credits.")
    ] = False,
    max_runs: Annotated[int, typer.Option(min=1, metavar="N", help="Start at most this many runs.")] = 10,
    max_credits: Annotated[
        int, typer.Option(min=1, metavar="N", help="Start no more runs once those started have cost this many credits.")
    ] = 100,
    http: Annotated[bool, typer.Option("--http", help="Serve streamable HTTP instead of standard input.")] = False,
    host: Annotated[str, typer.Option(help="The address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port to listen on, with --http; 0 for any free port.")
    ] = 8042,
) -> None:
    """Serve runs to agents with the Model Context Protocol.

    Agents can list, get, find and wait for runs, and read a report of a workflow.
    Only with --allow-start can they start runs, within --max-runs and --max-credits.
    It runs until Ctrl-C. HTTP has no authentication, so anyone who reaches the port can use the key.
    This requires the extra `mcp`.

    \b
    Examples:
      aiocopyai mcp --demo
      aiocopyai mcp WCFG-6db59f06-… --allow-start --max-runs 5
      aiocopyai mcp WCFG-6db59f06-… --http
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    if find_spec("mcp") is None:
        raise typer.BadParameter('mcp requires mcp; install with: python -m pip install "aiocopyai[mcp]"')
    if settings.demo and workflow_ids:
        raise typer.BadParameter("pass either a WORKFLOW_ID or --demo")
    options = _McpOptions(
        [_demo.WORKFLOW_ID] if settings.demo else workflow_ids or [], allow_start, max_runs, max_credits
    )
    work = _serve(options, (host, port) if http else None, settings, find_key(settings))
    raise typer.Exit(run_async(work, settings))


@frozen
class _McpOptions:
    """What the server may do."""

    workflow_ids: list[str]
    allow_start: bool
    max_runs: int
    max_credits: int


async def _serve(options: _McpOptions, address: tuple[str, int] | None, settings: Settings, key: str | None) -> None:
    from aiocopyai.integrations.mcp import make_server  # noqa: PLC0415 (loads a server)

    async with open_session(settings, key) as session:
        with usage_errors():
            server = make_server(
                session,
                options.workflow_ids,
                allow_start=options.allow_start,
                max_runs=options.max_runs,
                max_credits=options.max_credits,
            )
        if address is not None:
            await _serve_http(server, *address)
            return
        serving = asyncio.create_task(server.run_stdio_async())
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            await session.close()
            echo_err("stopped")
            os._exit(130)  # a thread of the SDK reads standard input: the process would wait for it without end


async def _serve_http(server: MCPServer, host: str, port: int) -> None:
    import uvicorn  # noqa: PLC0415 (comes with mcp)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        shown = f"[{host}]" if ":" in host else host
        echo_err(f"listening at http://{shown}:{listener.getsockname()[1]}/mcp")
        if host not in {"127.0.0.1", "localhost", "::1"}:
            echo_err("anyone who can reach this address can use the key")
        app = server.streamable_http_app(host=host)
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listener])
