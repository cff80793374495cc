"""``aiocopyai mcp``: serve runs to agents."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from aiocopyai.cli import _demo
from aiocopyai.cli._errors import listen_error, require_packages, usage_errors
from aiocopyai.cli._options import Settings, shared_options
from aiocopyai.cli._output import echo_err
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from aiocopyai import CopyAISession


@shared_options
def mcp(
    settings: Settings,
    workflow_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKFLOW_ID",
            help="The ids of the workflows that agents may use; by default all of the workspace.",
            show_default=False,
        ),
    ] = None,
    *,
    allow_start: Annotated[
        bool, typer.Option("--allow-start", help="Let agents start runs, which spend credits.")
    ] = False,
    max_runs: Annotated[int, typer.Option(min=1, metavar="N", help="Start at most this many runs.")] = 10,
    max_credits: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Start no more runs when the started ones have cost this many credits."),
    ] = 100,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP, instead of standard input and output.")
    ] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="With --http, listen on this address.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="PORT", help="With --http, listen on this port; 0 selects a free one."),
    ] = 8042,
) -> None:
    """Serve runs to agents with the Model Context Protocol.

    Agents can list, get, find and wait for runs, and read a report of a workflow.
    With --allow-start, they can also start runs, within --max-runs and --max-credits.
    The command runs until Ctrl-C. HTTP has no authentication: anyone who can reach the port can use the key.
    The command requires the extra `mcp`.

    \b
    Examples:
      aiocopyai mcp --demo
      aiocopyai mcp WCFG-6db59f06-… --allow-start --max-runs 5
      aiocopyai mcp WCFG-6db59f06-… --http
    """  # noqa: D301 (the backspace makes click keep the line breaks)
    require_packages("the server", ["mcp"], extra="mcp")
    if not host:
        raise typer.BadParameter("--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0")
    if settings.demo and workflow_ids:
        raise typer.BadParameter("pass either a WORKFLOW_ID or --demo")
    chosen = [_demo.WORKFLOW_ID] if settings.demo else workflow_ids or []

    async def serve(session: CopyAISession) -> None:
        from aiocopyai.integrations.mcp import make_server  # noqa: PLC0415 (loads a server)

        with usage_errors():
            server = make_server(session, chosen, allow_start=allow_start, max_runs=max_runs, max_credits=max_credits)
        if http:
            await _serve_http(server, host, port)
        else:
            await _serve_stdio(server, session)

    raise typer.Exit(run_in_session(serve, settings))


async def _serve_stdio(server: MCPServer, session: CopyAISession) -> None:
    serving = asyncio.create_task(server.run_stdio_async())
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        await session.close()
        echo_err("stopped")
        os._exit(130)  # the process would wait forever for a thread of the SDK that reads standard input


async def _serve_http(server: MCPServer, host: str, port: int) -> None:
    import uvicorn  # noqa: PLC0415 (comes with mcp)

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise listen_error(host, port, error) from error
    with listener:
        url_host = f"[{host}]" if ":" in host else host
        echo_err(f"listening at http://{url_host}:{listener.getsockname()[1]}/mcp")
        if host not in {"127.0.0.1", "localhost", "::1"}:
            echo_err("anyone who can reach this address can use the key")
        app = server.streamable_http_app(host=host)
        await uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve([listener])
