"""``aiocopyai mcp``: serve runs to agents."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Annotated, Final

import typer

from aiocopyai.cli import _demo
from aiocopyai.cli._errors import listen_error, require_packages, usage_errors
from aiocopyai.cli._options import Settings, shared_options
from aiocopyai.cli._output import echo_err
from aiocopyai.cli._runner import run_in_session


if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

    from aiocopyai import CopyAISession


_MAX_RUNS: Final = 10
_MAX_CREDITS: Final = 100
_HOST: Final = "127.0.0.1"
_PORT: Final = 8042


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
    max_runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=f"With --allow-start, start at most this many runs, by default {_MAX_RUNS}.",
            show_default=False,
        ),
    ] = None,
    max_credits: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --allow-start, start no more runs when the started ones have cost this many credits, by default "
            f"{_MAX_CREDITS}.",
            show_default=False,
        ),
    ] = None,
    http: Annotated[
        bool, typer.Option("--http", help="Serve streamable HTTP, instead of standard input and output.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help=f"With --http, listen on this address, by default {_HOST}.", show_default=False
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help=f"With --http, listen on this port, by default {_PORT}; 0 selects a free one.",
            show_default=False,
        ),
    ] = None,
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
    for option, value in (("--host", host), ("--port", port)):
        if value is not None and not http:
            raise typer.BadParameter(f"{option} requires --http")
    for option, value in (("--max-runs", max_runs), ("--max-credits", max_credits)):
        if value is not None and not allow_start:
            raise typer.BadParameter(f"{option} requires --allow-start")
    if host == "":
        raise typer.BadParameter("--host must be an address of this machine, such as 127.0.0.1 or 0.0.0.0")
    if settings.demo and workflow_ids:
        raise typer.BadParameter("pass either a WORKFLOW_ID or --demo")
    workflow_ids = [_demo.WORKFLOW_ID] if settings.demo else workflow_ids or []

    async def serve(session: CopyAISession) -> None:
        from aiocopyai.integrations.mcp import make_server  # noqa: PLC0415 (loads a server)

        with usage_errors():
            server = make_server(
                session,
                workflow_ids,
                allow_start=allow_start,
                max_runs=max_runs or _MAX_RUNS,
                max_credits=max_credits or _MAX_CREDITS,
            )
        if http:
            await _serve_http(server, host or _HOST, _PORT if port is None else port)
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
