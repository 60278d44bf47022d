"""A real S3 server on 127.0.0.1 (moto), and one of plain HTTP that knows ranges from the end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from aiohttp import ClientSession, web
from obstore.store import S3Store
from yarl import URL

from tests.support.services.servers import RangeServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

SECRET = "not-to-be-told"  # noqa: S105


_OF_CONNECTION = ("Transfer-Encoding", "Connection", "Server", "Date")


class SuffixServer(RangeServer):
    """Answers ``bytes=-100`` too, as object stores do."""

    def _span(self, request, file):
        byte_range = request.headers.get("Range", "")
        if file.is_file() and byte_range.startswith("bytes=-"):
            size = file.stat().st_size
            return (max(0, size - int(byte_range.removeprefix("bytes=-"))), size)
        return super()._span(request, file)


@dataclass(frozen=True, kw_only=True)
class S3:
    """A running server; unless it checks signatures, any key and secret are accepted."""

    endpoint: str
    key: str = "reader"
    secret: str = SECRET

    def environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point the standard variables at it, and nothing else."""
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)

    def make(self, bucket: str) -> None:
        """Make a bucket."""
        urlopen(Request(f"{self.endpoint}/{bucket}", method="PUT")).close()  # noqa: S310

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Make a bucket and put a folder's files into it."""
        self.make(bucket)
        storage = self.storage(bucket)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                storage.put(f"{prefix}/{path.relative_to(folder)}", path)

    def delete(self, bucket: str, key: str) -> None:
        """Take an object away."""
        self.storage(bucket).delete(key)

    def storage(self, bucket: str) -> S3Store:
        """The bucket as obstore opens it."""
        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self.key,
            secret_access_key=self.secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )


@contextmanager
def s3_server(**environment: str) -> Iterator[S3]:
    """Run moto's server in a process of its own until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, "moto_server ended"
            assert time.monotonic() < deadline, "moto_server does not answer"
            time.sleep(0.05)
        yield S3(endpoint=f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def signed_s3_server(bucket: str) -> Iterator[S3]:
    """The same with a bucket, for one user alone: signatures are checked."""
    import boto3

    # Making the bucket, the user, the key and the policy are the four requests that are not.
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="4") as server:
        options = {
            "endpoint_url": server.endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "first",
            "aws_secret_access_key": "first",
        }
        boto3.client("s3", **options).create_bucket(Bucket=bucket)
        iam = boto3.client("iam", **options)
        iam.create_user(UserName="publisher")
        key = iam.create_access_key(UserName="publisher")["AccessKey"]
        statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_user_policy(UserName="publisher", PolicyName="all", PolicyDocument=policy)
        yield replace(server, key=key["AccessKeyId"], secret=key["SecretAccessKey"])


EMPTY_LISTING = (
    "<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
)


def denied() -> web.Response:
    """Answer of S3 to a request without the right to it."""
    text = "<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"
    return web.Response(status=403, text=text, content_type="application/xml")


@dataclass
class Gate:
    """A way to a server, which takes away what other servers and buckets lack or do not allow."""

    endpoint: str
    url: str = ""
    writes: int | None = None
    """Number of writes that are let through; None: all."""
    full: bool = False
    """Whether writes beyond are answered with 507, the bucket being full; else cut off."""
    lists: bool = True
    """Whether names may be listed; if not, what is missing is refused as well, as S3 does it."""
    knows_names: bool = True
    """Whether a listing that is allowed holds any name."""
    head_status: int | None = None
    """Answer to every HEAD, where only GET is allowed."""
    condition_status: int | None = None
    """Answer to writes on condition, where the server lacks them."""
    weak_tags: bool = False
    """Whether entity tags are made weak, as compressing proxies do; these fulfil no condition."""

    def application(self) -> web.Application:
        """The way as an application, to be served."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass)
        return app

    async def _pass(self, request: web.Request) -> web.Response:
        if request.method in ("PUT", "POST") and self.writes is not None:
            if self.writes == 0:
                return self._refuse(request)
            self.writes -= 1
        if (refusal := self._refusal(request)) is not None:
            return refusal
        # Signatures cover the host and the path as they were sent, escapes included.
        target = URL(f"{self.endpoint}{request.raw_path}", encoded=True)
        async with (
            ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, target, headers=request.headers, data=BytesIO(await request.read())
            ) as answer,
        ):
            headers = {k: v for k, v in answer.headers.items() if k not in _OF_CONNECTION}
            if answer.status == 404 and not self.lists:
                return denied()
            if self.weak_tags and "ETag" in answer.headers:
                headers = {k: v for k, v in headers.items() if k.lower() != "etag"}
                headers["ETag"] = f"W/{answer.headers['ETag']}"
            body = await answer.read()
            return web.Response(status=answer.status, headers=headers, body=body)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if "list-type" in request.query:
            if not self.lists:
                return denied()
            if not self.knows_names:
                return web.Response(text=EMPTY_LISTING, content_type="application/xml")
        if request.method == "HEAD" and self.head_status is not None:
            return web.Response(status=self.head_status)
        condition = request.headers.get("If-Match", request.headers.get("If-None-Match"))
        if request.method != "PUT" or condition is None:
            return None
        if self.condition_status is not None:
            return web.Response(status=self.condition_status)
        return web.Response(status=412) if condition.startswith("W/") else None

    def _refuse(self, request: web.Request) -> web.Response:
        if not self.full and request.transport is not None:
            request.transport.abort()
        return web.Response(status=507)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
