"""Data that packages carry, fetched by the package's own client and kept."""

import subprocess
import sys
import tarfile
from pathlib import Path

from real_tasks.base import CACHE


def debian(name: str, installed: str) -> Path:
    """The folder that a Debian package installs: where it is installed, or unpacked from the package."""
    if Path(installed).exists():
        return Path(installed)
    unpacked = CACHE / name
    folder = unpacked / Path(installed).relative_to("/")
    if not folder.exists():
        unpacked.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", name], check=True, cwd=unpacked)  # noqa: S603, S607
        (package,) = unpacked.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), str(unpacked)], check=True)  # noqa: S603, S607
    return folder


def npm(name: str, version: str) -> tarfile.TarFile:
    """An npm package, its files under "package/"."""
    archive = CACHE / f"{name}-{version}.tgz"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", "--pack-destination", str(CACHE), f"{name}@{version}"]
        subprocess.run(command, check=True)  # noqa: S603
    return tarfile.open(archive)


def pypi(requirement: str, pattern: str, *options: str) -> Path:
    """The file of a PyPI package, by its name's pattern; options are pip's."""
    if not any(CACHE.glob(pattern)):
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        subprocess.run([*command, "--dest", str(CACHE), requirement], check=True)  # noqa: S603
    (file,) = CACHE.glob(pattern)
    return file
