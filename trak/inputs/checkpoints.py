"""Checkpoints of any form: reading them, loading them into a model, and the fingerprint of their weights."""

import copy
import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from trak._utils.messages import abbreviate, first_line
from trak.inputs import batches, fsdp
from trak.inputs.wrappers import rename_to_match

State = Mapping[str, Tensor]
Checkpoint: TypeAlias = State | str | Path | nn.Module | Callable[[], Any]

_EXTRA = "_extra_state"
_SAVED = ("model.safetensors", "pytorch_model.bin")
_NESTED = ("state_dict", "model_state_dict", "model")


def load_state(checkpoint: Checkpoint, mapped: bool = False) -> State:
    """The state dict of a checkpoint: a state dict, a path to one, a module, or a function that returns any of them.

    A path is read with `torch.load(weights_only=True)`, or by safetensors if it ends so; with `mapped` only what is
    used of it comes into memory. A folder is one that `save_pretrained` wrote, in one file or several. A dict that
    holds the state dict under "state_dict", "model_state_dict" or "model" is unwrapped. A file with code that loading
    would run is a ValueError.
    """
    if isinstance(checkpoint, nn.Module):
        return checkpoint.state_dict()
    if isinstance(checkpoint, str | os.PathLike):
        return _unwrap(_read(Path(checkpoint).expanduser(), mapped), f"checkpoint file {str(checkpoint)!r}")
    if isinstance(checkpoint, Mapping):
        return _unwrap(checkpoint, "the checkpoint")
    if callable(checkpoint):
        return load_state(checkpoint(), mapped)
    raise TypeError(
        "a checkpoint is a state dict, a path, a module or a function that returns one, got "
        f"{type(checkpoint).__name__}; pass one of these"
    )


def _read(path: Path, mapped: bool) -> Any:
    if not path.exists():
        pattern = f", and a pattern is not looked up; pass sorted(glob.glob({str(path)!r}))"
        remedy = pattern if "*" in str(path) else "; check the path"
        raise FileNotFoundError(f"checkpoint file {str(path)!r} does not exist{remedy}")
    if path.is_dir():
        return _read_folder(path, mapped)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except (OSError, ImportError):
        raise
    except Exception as error:  # a damaged file stops its reader in whatever way its bytes happen to
        what = f"{type(error).__name__}: {first_line(error, 100)}"
        reason = "it holds Python objects" if isinstance(error, pickle.UnpicklingError) else what
        raise ValueError(
            f"checkpoint file {str(path)!r} can't be read as weights ({reason}), and only tensors are loaded, since a "
            "pickle can run code; save it with torch.save(model.state_dict(), path)"
        ) from error


def find_weights_file(folder: Path) -> Path | None:
    """The file of weights that `save_pretrained` wrote in a folder, or the index of several; None if there is none."""
    names = (f"{file}{index}" for file in _SAVED for index in ("", ".index.json"))
    return next((folder / name for name in names if (folder / name).exists()), None)


def _read_folder(folder: Path, mapped: bool) -> Any:
    found = find_weights_file(folder)
    if found is None:
        runs = " or of several runs; pass checkpoints({!r}), of trak.integrations.transformers or .lightning, for these"
        raise ValueError(
            f"checkpoint {str(folder)!r} is a folder without {' or '.join(_SAVED)}; pass the file of weights in it"
            + runs.format(str(folder)) * any(folder.glob("run-*/final.pt"))
        )
    if found.suffix != ".json":
        return _read(found, mapped)
    parts = sorted(set(json.loads(found.read_text(encoding="utf-8"))["weight_map"].values()))
    return {name: value for part in parts for name, value in _read(folder / part, mapped).items()}


def _unwrap(state: Any, what: str) -> State:
    if isinstance(state, nn.Module):
        return state.state_dict()
    if isinstance(state, Mapping) and state:
        if all(isinstance(value, Tensor) or str(key).endswith(_EXTRA) for key, value in state.items()):
            return state
        for key in _NESTED:
            if isinstance(state.get(key), Mapping):
                return _unwrap(state[key], f"{what}[{key!r}]")
    found = f"keys {', '.join(map(str, list(state)[:5]))}" if isinstance(state, Mapping) else type(state).__name__
    raise ValueError(f"{what} holds no state dict (found: {found}); pass model.state_dict()")


def load_into(model: nn.Module, checkpoint: Checkpoint) -> str:
    """Load a checkpoint into a model and return its fingerprint. Prefixes that `DistributedDataParallel` and
    `torch.compile` add to names are ignored, and so is one that all names share, as of a model within a module."""
    state, own = load_state(checkpoint, fsdp.is_sharded(model)), model.state_dict()
    # Of a sharded model each rank takes its parts of what it has whole.
    state = {name: fsdp.distribute(value, own.get(name)) for name, value in rename_to_match(state, own).items()}
    state |= _tied_weights(own, state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the checkpoint does not fit the model ({type(model).__name__}): {_difference(state, own) or error}; pass "
            "a checkpoint of this architecture, or build the model that it was saved from"
        ) from error
    return fingerprint(model.state_dict())


def _difference(state: State, own: State) -> str:
    """The names that are missing, unexpected or of another shape, as a message; empty if none is."""
    other = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in state.items()
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
    ]
    found = {
        "it lacks": [name for name in own if name not in state],
        "it has besides": [name for name in state if name not in own],
        "of another shape": other,
    }
    return "; ".join(f"{what}: {abbreviate(names)}" for what, names in found.items() if names)


def _tied_weights(own: State, state: State) -> dict[str, Tensor]:
    """Weights that a checkpoint leaves out, as safetensors does, because the model shares them under another name."""
    missing = [name for name in own if name not in state and isinstance(own[name], Tensor) and own[name].numel()]
    given = {_storage_key(own[name]): state[name] for name in own if name in state} if missing else {}
    return {name: given[place] for name in missing if (place := _storage_key(own[name])) in given}


def _storage_key(value: Any) -> Any:
    """The memory and layout of a tensor; unique for tensors without memory or spread over ranks."""
    if not isinstance(value, Tensor) or fsdp.is_dtensor(value) or not value.data_ptr():
        return id(value)
    return value.data_ptr(), value.dtype, tuple(value.shape), value.stride()


def copy_state(checkpoint: Checkpoint) -> State:
    """A copy of a checkpoint's state dict."""
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in load_state(checkpoint).items()
    }


def shares_memory(checkpoint: Checkpoint, model: nn.Module) -> bool:
    """Whether the checkpoint is the model's own weights, which loading another one would overwrite."""
    state = checkpoint.state_dict() if isinstance(checkpoint, nn.Module) else checkpoint
    if not isinstance(state, Mapping):
        return False
    own = {t.data_ptr() for t in _local_tensors(model.state_dict())}
    return any(t.data_ptr() in own for t in _local_tensors(state))


def _local_tensors(state: State) -> Iterator[Tensor]:
    parts = (fsdp.to_local(value) for value in state.values() if isinstance(value, Tensor))
    return (t for t in parts if t.numel())


@contextmanager
def preserve_weights(model: nn.Module, checkpoints: Checkpoint | Sequence[Checkpoint]) -> Iterator[list[Checkpoint]]:
    """Yield one checkpoint or several as a list, to be loaded into the model, whose weights are restored on exit."""
    single = isinstance(checkpoints, Mapping | str | nn.Module) or not isinstance(checkpoints, Iterable)
    given: Any = checkpoints
    several: list[Checkpoint] = [given] if single else list(given)
    if not several:
        raise ValueError("checkpoints is empty: give at least one")
    found = copy_state(model)
    several = [copy_state(checkpoint) if shares_memory(checkpoint, model) else checkpoint for checkpoint in several]
    try:
        yield several
    finally:
        model.load_state_dict(found)


def fingerprint(state: State) -> str:
    """A hash of names, types, shapes and values: 32 hexadecimal digits. A sharded model, for which every rank has to
    call this, has that of the whole one."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        if not isinstance(state[name], Tensor):
            continue  # what a module keeps beside its weights
        value = fsdp.full_tensor(state[name])
        digest.update(f"{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1f".encode())
        if value.numel():
            digest.update(batches.raw_bytes(value).data)
    return digest.hexdigest()
