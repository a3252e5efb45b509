"""Several requests to a store at a time: at a URL each one waits for the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import zarr

T = TypeVar("T")


async def at_once(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Return what each call gives, in order; as many run at a time as zarr's setting `async.concurrency` says.

    All have ended when it returns. Raises the first error, in the calls' order.
    """
    free = asyncio.Semaphore(zarr.config.get("async.concurrency"))

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with free:
            return await call()

    found = await asyncio.gather(*map(one, calls), return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return [result for result in found if not isinstance(result, BaseException)]
