"""OpenTelemetry: a span for each request, inside your own span.

Settings come from the environment: COPYAI_API_KEY and COPYAI_WORKFLOW_ID.

    python -m pip install opentelemetry-sdk opentelemetry-instrumentation-aiohttp-client
    python docs/examples/traced.py
"""

from __future__ import annotations

import asyncio
import os

from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from aiocopyai import CopyAISession


provider = TracerProvider()
# In a service, use BatchSpanProcessor(OTLPSpanExporter()) instead.
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
AioHttpClientInstrumentor().instrument()


async def main() -> None:
    """Count the finished runs of a workflow."""
    tracer = trace.get_tracer("nightly")
    with tracer.start_as_current_span("count finished runs") as span:
        async with CopyAISession() as session:
            runs = session.runs(os.environ["COPYAI_WORKFLOW_ID"], page_size=10)
            done = [
                run.id
                async for run in runs
                if run.status is not None and run.status.is_final
            ]
        span.set_attribute("copyai.finished", len(done))


if __name__ == "__main__":
    asyncio.run(main())
