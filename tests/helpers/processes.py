"""Children of one process that has imported torch, and what they leave on disk."""

import hashlib
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

HELPERS = Path(__file__).parent
ROOT = HELPERS.parents[1]


def report(script, directory, **environment):
    """What a test file, run as a script in a folder, prints as JSON on its last line."""
    command = [sys.executable, script, str(directory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HELPERS)]), **environment}
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def fork(work):
    """Run `work(tell)` in a child; returns its id and the pipe that `tell` writes to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        work(lambda words: os.write(writing, f"{time.monotonic()} {words}\n".encode()))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child, reading):
    """Everything the child told, as (time, words); fails if the child did."""
    told = b""
    while piece := os.read(reading, 2**16):
        told += piece
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"child ended with status {status}")
    return [(float(at), words) for at, words in (line.split(" ", 1) for line in told.decode().splitlines())]


def done(work):
    return wait(*fork(work))


def contents(directory):
    """A hash of every file by its path, locks left out."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(directory).rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


def differences(found, expected):
    return sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path))
