"""Executes the notebooks of this folder, in place: `make notebooks`, or `python examples/notebooks.py text.ipynb`.

The kernel is this interpreter, whatever kernels are installed, and imports the library that lies beside this folder.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
SECONDS = 600


class ThisPython(AsyncKernelManager):
    """Starts kernels of the interpreter that runs, without looking for an installed one."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run from start to end.

    Args:
        path: of the notebook, which is left as it is.
        folder: where it writes what it keeps.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell raises an error.
    """
    book = nbformat.read(path, as_version=4)
    more = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), more))), "OMP_NUM_THREADS": "1",
        # Of what is not installed, and where: outputs are to be the same everywhere.
        "PYTHONWARNINGS": "ignore:IProgress",
    }  # fmt: skip
    client = NotebookClient(
        book,
        timeout=SECONDS,
        kernel_manager_class=ThisPython,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=environment)
    return book


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.name for path in FOLDER.glob("*.ipynb")))
    for name in parser.parse_args().names:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(executed(FOLDER / name, Path(folder)), FOLDER / name)
        print(f"{name}: {time.perf_counter() - start:.0f} s, {(FOLDER / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
