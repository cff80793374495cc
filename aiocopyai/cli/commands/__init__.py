"""The commands of `aiocopyai`, one per file: their options, and what they print."""
