"""A server that replaces Telegram's Bot API: one user writes to a bot and reads its replies."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from aiohttp import web
from attrs import define, field


BOT = {"id": 1, "is_bot": True, "first_name": "Writer", "username": "writer_bot"}
USER = {"id": 2, "is_bot": False, "first_name": "Ada"}
CHAT = {"id": 2, "type": "private"}


@define
class Telegram:
    """A server for a bot that polls, with any token."""

    url: str = ""
    _messages: list[dict[str, object]] = field(factory=list[dict[str, object]])
    _written: asyncio.Event = field(factory=asyncio.Event)
    _replies: asyncio.Queue[tuple[str, str]] = field(factory=asyncio.Queue[tuple[str, str]])
    _runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def say(self, text: str) -> None:
        """Write to the bot."""
        number = len(self._messages) + 1
        self._messages.append(
            {"message_id": number, "date": int(time.time()), "chat": CHAT, "from": USER, "text": text}
        )
        self._written.set()

    async def reply(self) -> tuple[str, str]:
        """Wait for the next reply; return the message that it replies to, and its text."""
        async with asyncio.timeout(50):
            return await self._replies.get()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        form = await request.post()
        method = request.path.rpartition("/")[2]
        result: object = True
        if method == "getMe":
            result = BOT
        elif method == "getUpdates":
            result = await self._updates(int(str(form.get("offset", 1))))
        elif method == "sendMessage":
            result = self._send(str(form["text"]), str(form["reply_parameters"]))
        return web.json_response({"ok": True, "result": result})

    async def _updates(self, offset: int) -> list[dict[str, object]]:
        """Return the messages from an offset; wait for one, like Telegram's long polling."""
        while len(self._messages) < offset:
            self._written.clear()
            await self._written.wait()
        return [
            {"update_id": number, "message": message}
            for number, message in enumerate(self._messages, start=1)
            if number >= offset
        ]

    def _send(self, text: str, reply_parameters: str) -> dict[str, object]:
        replied = next(
            message for message in self._messages if f'"message_id": {message["message_id"]}' in reply_parameters
        )
        self._replies.put_nowait((str(replied["text"]), text))
        return {"message_id": 1_000, "date": int(time.time()), "chat": CHAT, "from": BOT, "text": text}
