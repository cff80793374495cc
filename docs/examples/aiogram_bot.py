"""A Telegram bot with aiogram that replies to each message with a workflow's output.

Settings come from the environment:

    COPYAI_API_KEY, COPYAI_WORKFLOW_ID   your key and workflow
    TELEGRAM_TOKEN                       the bot's token, from @BotFather
    TELEGRAM_API                         a Bot API server other than Telegram's

    python -m pip install aiogram
    python docs/examples/aiogram_bot.py
"""

from __future__ import annotations

import asyncio
import os

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message

from aiocopyai import CopyAIError, CopyAISession, RunFailedError, RunTimeoutError


WORKFLOW_ID = os.environ["COPYAI_WORKFLOW_ID"]
TELEGRAM_API = os.environ.get("TELEGRAM_API", "https://api.telegram.org")
MAX_MESSAGE = 4096
"""The number of characters that Telegram accepts in a message."""


async def reply(message: Message, copyai: CopyAISession) -> None:
    """Run the workflow for a message, and reply with its output.

    aiogram calls this in a new task for each message, so waiting does not block other
    messages.
    """
    key = f"telegram-{message.chat.id}-{message.message_id}"
    try:
        run = await copyai.run_workflow(
            WORKFLOW_ID, {"Company": message.text}, idempotency_key=key, timeout=300
        )
    except RunFailedError as error:
        await message.reply(f"That did not work: {error.run.error}")
    except RunTimeoutError:
        await message.reply(
            "That takes longer than five minutes; I have stopped waiting."
        )
    except CopyAIError:
        await message.reply("Copy.ai is not available. Please try again later.")
        raise  # aiogram logs it and continues
    else:
        text = "\n".join(f"{name}: {value}" for name, value in run.output.items())
        await message.reply(text[:MAX_MESSAGE] or "The workflow had no output.")


async def main() -> None:
    """Reply to messages until Ctrl-C."""
    telegram = AiohttpSession(api=TelegramAPIServer.from_base(TELEGRAM_API))
    async with (
        CopyAISession() as copyai,
        Bot(os.environ["TELEGRAM_TOKEN"], session=telegram) as bot,
    ):
        dispatcher = Dispatcher(copyai=copyai)  # passed to handlers by this name
        dispatcher.message.register(reply, F.text)
        await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
