"""A virtual environment for each package."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


def constraints(folder: Path) -> Path:
    """constraints.txt with the very torch that runs now, so that a CPU build is never exchanged for a CUDA build."""
    pinned = re.sub(r"(?m)^torch==.*$", f"torch=={importlib.metadata.version('torch')}", CONSTRAINTS.read_text())
    file = folder / "constraints.txt"
    file.write_text(pinned)
    return file


def install(folder: Path, name: str, requirements: list[str]) -> Path:
    """The Python of an environment with the requirements; made by uv if there is one that can, else by pip.

    Raises:
        RuntimeError: if the package can't be installed; the message is the installer's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python, record = folder / name / "bin" / "python", folder / name / "requirements.txt"
    pins = constraints(folder)
    wanted = "\n".join(requirements) + "\n" + pins.read_text()
    if record.exists() and record.read_text() == wanted:
        return python
    options = ["--quiet", "--constraint", str(pins), *requirements]
    uv = shutil.which("uv")
    ways = [[uv, "pip", "install", "--python", str(python), "--torch-backend", "cpu", *options]] if uv else []
    ways.append([str(python), "-m", "pip", "install", *options])
    print(f"installing {', '.join(requirements)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True)
    for command in ways:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            _drop_misfits(python)
            record.write_text(wanted)
            return python
    lines = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines() or ["no message"]
    raise RuntimeError(f"not installed: {lines[0][:200]}")


def _drop_misfits(python: Path) -> None:
    """Uninstall what was built for another torch, and so breaks the packages that use it if it is there."""
    for name in ("torchvision", "torchaudio"):
        if subprocess.run([str(python), "-c", f"import {name}"], capture_output=True).returncode:
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", name], capture_output=True)
