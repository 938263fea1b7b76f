"""What differs between operating systems, also as other systems have it."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from trak._utils import platform

# In other processes the module is loaded without the package, which would import torch.
ALONE = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("trak_platform", {platform.__file__!r})
platform = importlib.util.module_from_spec(spec)
spec.loader.exec_module(platform)
"""
MISSING_ELSEWHERE = ("fdatasync", "posix_fallocate", "pread", "pwrite")


@pytest.fixture(params=["all", "none"])
def offered(request, monkeypatch):
    """With all that this system offers, and without what another may lack."""
    if request.param == "none":
        for name in MISSING_ELSEWHERE:
            monkeypatch.delattr(os, name, raising=False)
        monkeypatch.setattr(platform, "fcntl", None)
    return request.param


def test_bytes_are_written_to_and_read_from_their_place(offered, tmp_path):
    path = tmp_path / "file"
    platform.reserve(path, 3 << 20)
    assert path.read_bytes() == bytes(3 << 20)
    with platform.open_locked(path, write=True) as file:
        platform.write_at(file, memoryview(b"one"), 1 << 20)
        platform.write_at(file, memoryview(b"two"), 1)
        assert platform.read_at(file, 4, 0) == b"\0two"
    platform.sync_data(path)
    with platform.open_locked(path, write=False) as file:
        assert platform.read_at(file, 3, 1 << 20) == b"one"


def test_data_are_synced_by_what_the_system_has(offered, tmp_path, monkeypatch):
    calls, path = [], tmp_path / "file"
    path.touch()
    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", calls.append)
    platform.sync_data(path)
    assert len(calls) == 1


def test_without_room_no_file_is_left(offered, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "full")

    if hasattr(os, "posix_fallocate"):
        monkeypatch.setattr(os, "posix_fallocate", full)
    else:
        monkeypatch.setattr(platform, "bytes", full, raising=False)
    with pytest.raises(OSError, match="full"):
        platform.reserve(tmp_path / "file", 10)
    assert not list(tmp_path.iterdir())


def test_a_lock_excludes_other_openings_in_this_process_and_others(tmp_path):
    path = tmp_path / ".lock"
    code = f"""
from pathlib import Path
{ALONE}
print(platform.lock_file(platform.open_lock(Path({str(path)!r})), wait=False))
"""

    def in_another_process():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    first, second = platform.open_lock(path), platform.open_lock(path)
    assert platform.lock_file(first)
    assert not platform.lock_file(second, wait=False)
    assert in_another_process() == "False"
    locked = threading.Event()
    thread = threading.Thread(target=lambda: platform.lock_file(second) and locked.set())
    thread.start()
    assert not locked.wait(0.05)
    platform.close_lock(first)
    thread.join(60)
    assert locked.is_set()
    platform.close_lock(second)
    assert in_another_process() == "True"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_links_and_pipes_in_the_place_of_locks_are_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("link", "symbolic link"), ("pipe", "not a file")):
        with pytest.raises(OSError, match=words):
            platform.open_lock(tmp_path / name)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("what", ["replace", "delete"])
def test_windows_waits_for_a_file_that_is_in_use_and_then_says_so(what, tmp_path, monkeypatch):
    source, target, calls = tmp_path / "source", tmp_path / "target", []
    source.write_text("new")
    target.write_text("old")

    def refused(*arguments, **options):
        calls.append(arguments)
        if len(calls) < 3 or refused.always:
            raise PermissionError(errno.EACCES, "used by another process")

    refused.always = False
    monkeypatch.setattr(platform, "_WINDOWS", True)
    monkeypatch.setattr(platform, "_REPLACE_SECONDS", 300)
    monkeypatch.setattr(os, "replace", refused)
    monkeypatch.setattr(type(target), "unlink", refused)
    call = (lambda: platform.replace(source, target)) if what == "replace" else (lambda: platform.delete(target))
    call()
    assert len(calls) == 3
    refused.always = True
    monkeypatch.setattr(platform, "_REPLACE_SECONDS", 0.05)
    with pytest.raises(PermissionError, match=r"in use by a process .*run the same script again"):
        call()


@pytest.mark.parametrize(
    ("url", "path", "on_windows"),
    [
        ("file:///tmp/a", "/tmp/a", "/tmp/a"),
        ("file://localhost/tmp/a", "/tmp/a", "/tmp/a"),
        ("file:///tmp/with%20space/%C3%A4", "/tmp/with space/ä", "/tmp/with space/ä"),
        ("file:///tmp/with space/ä#1?", "/tmp/with space/ä#1?", "/tmp/with space/ä#1?"),
        ("file:///C:/a/b", "/C:/a/b", "C:/a/b"),
        ("file:///c|/a", "/c|/a", "c:/a"),
        ("file://C:/a", "C:/a", "C:/a"),
        ("file://server/share/a", "server/share/a", "//server/share/a"),
    ],
)
def test_paths_of_file_urls(url, path, on_windows):
    assert platform.file_url_path(url, windows=False) == path
    assert platform.file_url_path(url, windows=True) == on_windows


@pytest.mark.parametrize("name", ["CON", "con", "nul", "NUL.txt", "aux .a", "Com1", "lpt9.b.c", "a.", "a ", "a. "])
def test_names_that_windows_refuses(name):
    assert not platform.is_portable_name(name)


@pytest.mark.parametrize("name", ["a", "a.b", "a b", "console", "com", "com10", "nul-1", "lpt", "_con"])
def test_names_that_every_system_takes(name):
    assert platform.is_portable_name(name)


def test_the_end_of_the_parent_is_noticed(tmp_path):
    grandchild = """
import sys, pathlib
ALONE
print("ready", flush=True)
platform.wait_for_end(int(sys.argv[1]))
pathlib.Path(sys.argv[2]).touch()
"""
    child = """
import os, subprocess, sys
command = [sys.executable, "-c", sys.argv[1], str(os.getpid()), sys.argv[2]]
process = subprocess.Popen(command, stdout=subprocess.PIPE)
process.stdout.readline()
"""
    done = tmp_path / "done"
    subprocess.run(
        [sys.executable, "-c", child, grandchild.replace("ALONE", ALONE), str(done)], check=True, timeout=300
    )
    for _ in range(600):
        if done.exists():
            break
        threading.Event().wait(0.1)
    assert done.exists()
