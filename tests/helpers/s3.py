"""An S3 server on this machine that fails as real ones do; `python tests/helpers/s3.py` runs it and prints its address.

A process of its own, as moto keeps what is stored in memory, and whoever uses it may be killed.
"""

import argparse
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIATRAKTESTSKEY", "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests"}


class Faulty:
    """The server, one request at a time, since moto compares and sets in two steps.

    Answers 500 or 503 ("SlowDown") to some requests, before or after doing what they ask, and cuts the connections of
    others: before reading what is sent, before an answer, or in the middle of it.
    """

    def __init__(self, server, errors, drops, seed, refuse):
        self._server, self._errors, self._drops, self._refuse = server, errors, drops, refuse
        self._rng, self._lock = random.Random(seed), threading.Lock()
        self.counts = {"requests": 0, "errors": 0, "drops": 0}

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/-/counts":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self.counts).encode()]
        if self._refuse:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        with self._lock:
            self.counts["requests"] += 1
            fault, late = self._rng.random(), self._rng.random() < 0.5
        if fault < self._errors:
            self.counts["errors"] += 1
            if late:
                self._answer(environ)
            answers = ("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown")
            status, code = answers[fault < self._errors / 2]
            start_response(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>try again</Message></Error>".encode()]
        if fault < self._errors + self._drops:
            self.counts["drops"] += 1
            body = b"".join(self._answer(environ)[2]) if late else b""
            return self._cut(environ, body)
        status, headers, body = self._answer(environ)
        start_response(status, headers)
        return body

    def _answer(self, environ):
        told = []
        with self._lock:
            body = list(self._server(environ, lambda status, headers, _=None: told.append((status, headers))))
        return *told[0], body

    def _cut(self, environ, body):
        connection = environ["werkzeug.socket"]
        if body:
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            connection.sendall(head + body[: len(body) // 2])
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        raise ConnectionAbortedError


def serve(errors, drops, seed, refuse):
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    app = Faulty(DomainDispatcherApplication(create_backend_app), errors, drops, seed, refuse)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    sys.stdout.write(f"http://127.0.0.1:{server.port}\n")
    sys.stdout.flush()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  werkzeug tells of every connection that was cut
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() != 1:
        time.sleep(0.5)


@contextmanager
def server(errors=0.0, drops=0.0, seed=0, refuse=False):
    """Its environment variables, to be set wherever it is used."""
    command = [sys.executable, str(Path(__file__)), "--errors", str(errors), "--drops", str(drops), "--seed", str(seed)]
    command += ["--refuse"] if refuse else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            yield {**CREDENTIALS, "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": url}
        finally:
            process.kill()


def new_bucket():
    """The URL of a new bucket, on the server that the environment says."""
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    name = f"trak-{uuid.uuid4().hex}"
    while True:
        try:
            key = os.environ["AWS_ACCESS_KEY_ID"]
            authorization = f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/s3/aws4_request"
            url = f"{os.environ['AWS_ENDPOINT_URL']}/{name}"
            urlopen(Request(url, method="PUT", headers={"Authorization": authorization})).close()
            return f"s3://{name}"
        except (URLError, ConnectionError):
            time.sleep(0.05)


def objects(url):
    """Every object's bytes by its name."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    from trak.store.object_store import open_bucket

    bucket, prototype = open_bucket(url), default_buffer_prototype()

    async def read():
        return {name: (await bucket.get(name, prototype)).to_bytes() async for name in bucket.list()}

    return sync(read())


def contents(url):
    """A hash of every object by its name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in objects(url).items()}


def counts():
    """How many requests there were, and how many of them were failed or cut."""
    from urllib.request import urlopen

    with urlopen(f"{os.environ['AWS_ENDPOINT_URL']}/-/counts") as answer:
        return json.load(answer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=float, default=0.0, help="share of requests that are answered 500 or 503")
    parser.add_argument("--drops", type=float, default=0.0, help="share of requests whose connection is cut")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--refuse", action="store_true", help="answer 403 to everything")
    chosen = parser.parse_args()
    serve(chosen.errors, chosen.drops, chosen.seed, chosen.refuse)
