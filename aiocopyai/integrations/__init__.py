"""Connections to other libraries. Each module needs an extra of its own; ``import aiocopyai`` loads none of them."""
