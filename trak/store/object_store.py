"""Object stores: how their URLs are opened, and changes of objects that several processes write to."""

import asyncio
import json
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from zarr.abc.store import ByteRequest
from zarr.storage import ObjectStore

from trak._utils.messages import first_line
from trak._utils.optional import import_optional_dependency
from trak._utils.zarr_private import Buffer, BufferPrototype, default_buffer_prototype, sync

BUCKETS = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
"""Schemes of the URLs of object stores."""
_SECRET = re.compile(r"(?<=://)[^/@?\s]*@|[?#]\S*")
_RETRY_SECONDS = 120
"""How long obstore repeats a request that fails; nothing above it waits or counts failures of a server."""
_RETRIES: dict[str, Any] = {
    "max_retries": 100,
    "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=5), "base": 2},
}
_CUT_ANSWERS = 10
"""How often an answer may be cut off after it has begun, before the call fails. obstore does not repeat such requests,
so they are repeated here, without waiting."""
_PAUSE = 0.05
"""Seconds, at most, before an object that another process has just replaced is read again."""
_CLIENT = {"timeout": timedelta(seconds=300), "connect_timeout": timedelta(seconds=10)}

T = TypeVar("T")
M = TypeVar("M", bound=Callable[..., Any])
_Buffers = list[Buffer | None]


def without_secrets(url: str) -> str:
    """The URL without credentials, which should not be there, and without a query, where signatures would be."""
    return _SECRET.sub("", url)


def open_bucket(url: str) -> "Bucket":
    """The object store at a URL; credentials, region and endpoint are taken from where its own tools take them."""
    if without_secrets(url) != url:
        raise ValueError(
            f"save_dir {without_secrets(url)} was given with credentials or a query in the URL, where others would see "
            "them; leave them out and set the environment variables of the store (AWS_ACCESS_KEY_ID, ...), or pass a "
            "zarr.storage.ObjectStore"
        )
    stores = import_optional_dependency("obstore.store", f"save_dir {url} needs obstore", "remote")
    options: dict[str, Any] = {"retry_config": _RETRIES, "client_options": _CLIENT}
    http = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    if http or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"):
        # Client options given replace those of the environment, of which this is one.
        options["client_options"] = _CLIENT | {"allow_http": True}
    profiles = "AWS_PROFILE" in os.environ or Path("~/.aws").expanduser().is_dir()
    if url.startswith("s3") and "AWS_ACCESS_KEY_ID" not in os.environ and profiles and find_spec("boto3"):
        # Profiles and single sign-on, which obstore doesn't read by itself.
        boto3 = import_optional_dependency("obstore.auth.boto3", url, "remote")
        options["credential_provider"] = boto3.Boto3CredentialProvider()
    try:
        return Bucket(stores.from_url(url, **options))
    except Exception as error:
        raise ValueError(
            f"save_dir {url} can't be opened: {_first_line(error)}; check the URL and the environment variables of "
            "that kind of store"
        ) from error


def _repeated(method: M) -> M:
    """A method of a store whose failed calls are repeated, and whose errors say what to do."""

    @wraps(method)
    async def call(self: "Bucket", *arguments: Any, **options: Any) -> Any:
        return await self._answered(lambda: method(self, *arguments, **options))

    call.__doc__ = call.__doc__ or "As of zarr's store, repeated when an answer was cut off."
    return cast(M, call)


def _repeated_listing(method: M) -> M:
    @wraps(method)
    async def call(self: "Bucket", *arguments: Any, **options: Any) -> AsyncGenerator[str, None]:
        for name in await self._answered(lambda: _collected(method(self, *arguments, **options))):
            yield name

    call.__doc__ = call.__doc__ or "As of zarr's store, repeated when an answer was cut off."
    return cast(M, call)


class Bucket(ObjectStore[Any]):
    """An object store whose errors say what to do, and whose objects several processes may change."""

    def __str__(self) -> str:
        return without_secrets(super().__str__())

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> _Buffers:
        wanted = list(key_ranges)
        return await self._answered(lambda: super(Bucket, self).get_partial_values(prototype, wanted))

    get = _repeated(ObjectStore.get)
    exists = _repeated(ObjectStore.exists)
    set = _repeated(ObjectStore.set)
    set_if_not_exists = _repeated(ObjectStore.set_if_not_exists)
    delete = _repeated(ObjectStore.delete)
    delete_dir = _repeated(ObjectStore.delete_dir)
    getsize = _repeated(ObjectStore.getsize)
    list = _repeated_listing(ObjectStore.list)
    list_prefix = _repeated_listing(ObjectStore.list_prefix)
    list_dir = _repeated_listing(ObjectStore.list_dir)

    def create_group(self, path: str, attributes: Mapping[str, Any]) -> None:
        """A group with its attributes, unless there is one: of several processes the first makes it."""
        data = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}).encode()
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        sync(self.set_if_not_exists(f"{path}/zarr.json".lstrip("/"), buffer))

    def change(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace an object by what `change` makes of it (of None if there is none), whoever else does so meanwhile.

        `change` is called again with what another has written in between: If-Match and If-None-Match of HTTP, which
        S3, GCS and Azure know.
        """
        sync(self._answered(lambda: self._changed(key, change)))

    async def _changed(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        while True:
            mode: Any = "create"
            found = None
            with suppress(FileNotFoundError):
                answer = await obstore.get_async(self.store, key)
                found = bytes(await answer.bytes_async())
                mode = {name: answer.meta[name] for name in ("e_tag", "version") if answer.meta[name] is not None}
            with suppress(AlreadyExistsError, PreconditionError):
                await obstore.put_async(self.store, key, change(found), mode=mode)
                return
            await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311

    async def _answered(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a call, its errors in words that say what to do; all calls may be made twice."""
        from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError

        until, left = time.monotonic() + _RETRY_SECONDS, _CUT_ANSWERS
        while True:
            try:
                return await call()
            except FileNotFoundError:
                raise
            except (PermissionDeniedError, UnauthenticatedError) as error:
                raise PermissionError(
                    f"{self} refuses this with the credentials at hand ({_first_line(error)}); see that they are "
                    "set as the store's own tools want them, and allow to list, read, write and delete there"
                ) from error
            except GenericError as error:
                left -= 1
                if not left or time.monotonic() > until:
                    raise OSError(
                        f"{self} fails or can't be reached ({_first_line(error)}); run the same script again once it "
                        "can: it goes on after what is stored"
                    ) from error
            except BaseError as error:
                raise OSError(
                    f"{self}: {_first_line(error)}; check save_dir and what the server allows, then run the same "
                    "script again"
                ) from error


async def _collected(names: AsyncGenerator[str, None]) -> Sequence[str]:
    return [name async for name in names]


def _first_line(error: BaseException) -> str:
    return without_secrets(first_line(error, None))
