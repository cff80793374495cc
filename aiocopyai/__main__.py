"""``python -m aiocopyai``: the same as the command `aiocopyai`."""

from aiocopyai.cli import main


main()
