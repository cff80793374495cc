"""Receive webhook deliveries in aiohttp.web, in an ASGI framework, or in any other server."""

from __future__ import annotations

from aiocopyai.webhooks._receiver import WebhookReceiver


__all__ = ["WebhookReceiver"]
