"""Integrations with other libraries. Each module needs an extra; ``import aiocopyai`` loads none of them."""
