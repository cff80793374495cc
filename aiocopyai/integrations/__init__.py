"""Bridges to other libraries: each file needs an extra of its own, and none is loaded by ``import aiocopyai``."""
