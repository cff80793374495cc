"""A Telegram bot on aiogram: it answers each message with what a workflow makes of it, many at a time.

Settings come from the environment:

    COPYAI_API_KEY, COPYAI_WORKFLOW_ID   yours
    TELEGRAM_TOKEN                       the bot's, from @BotFather
    TELEGRAM_API                         another Bot API server than Telegram's own

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
LONGEST = 4096
"""Characters of a message; Telegram refuses more."""


async def answer(message: Message, copyai: CopyAISession) -> None:
    """Run the workflow for a message, and reply with its output.

    aiogram handles each message in a task of its own, so that one that waits holds up no other.
    """
    key = f"telegram-{message.chat.id}-{message.message_id}"
    try:
        run = await copyai.run_workflow(WORKFLOW_ID, {"Company": message.text}, idempotency_key=key, timeout=300)
    except RunFailedError as error:
        await message.reply(f"That did not work: {error.run.error}")
    except RunTimeoutError:
        await message.reply("That takes longer than five minutes, and I have stopped waiting.")
    except CopyAIError:
        await message.reply("Copy.ai can't be asked now. Please try again later.")
        raise  # aiogram logs it, and goes on
    else:
        text = "\n".join(f"{name}: {value}" for name, value in run.output.items())
        await message.reply(text[:LONGEST] or "Nothing came of it.")


async def main() -> None:
    """Answer until Ctrl-C."""
    telegram = AiohttpSession(api=TelegramAPIServer.from_base(TELEGRAM_API))
    async with CopyAISession() as copyai, Bot(os.environ["TELEGRAM_TOKEN"], session=telegram) as bot:
        dispatcher = Dispatcher(copyai=copyai)  # handlers get it by this name
        dispatcher.message.register(answer, F.text)
        await dispatcher.start_polling(bot)


if __name__ == "__main__":
    asyncio.run(main())
