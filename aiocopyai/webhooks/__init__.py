"""Receive webhook deliveries, in aiohttp.web, in any ASGI framework, or by hand."""

from __future__ import annotations

from aiocopyai.webhooks._receiver import WebhookReceiver


__all__ = ["WebhookReceiver"]
