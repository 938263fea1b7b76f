"""Tasks by name."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from trak._utils.registry import Registry
from trak.tasks.base import Task, stored_name

TASKS = Registry(Task, "task")
register_task = TASKS.register


def describe_output(name: str, settings: Any) -> str | None:
    """Describe f for the task that a store has recorded, of this library or of this process; None if it is unknown, or
    if classes of several modules have this name."""
    found: list[type[Task]] = [task for task in _subclasses(Task) if stored_name(task) == name]
    if len({task.__module__ for task in found}) != 1:
        return None
    # Of a class defined again, as when a notebook's cell runs twice, the last is meant.
    return found[-1].describe_output(settings if isinstance(settings, Mapping) else {})


def _subclasses(of: type[Any]) -> Iterator[type[Any]]:
    for task in of.__subclasses__():
        yield task
        yield from _subclasses(task)


def make_task(task: Any) -> Task:
    """The task given by an instance, a class or a name.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, type) and issubclass(task, Task):
        if inspect.isabstract(task):
            raise TypeError(f"task {task.__name__} has no output method; write one, or use one of {', '.join(TASKS)}")
        return task()
    if isinstance(task, str):
        return TASKS.find(task)()
    if hasattr(task, "get_output") and hasattr(task, "get_out_to_loss_grad"):
        from trak.tasks.compat_traker import TrakerTaskAdapter

        return TrakerTaskAdapter(task() if isinstance(task, type) else task)
    raise TypeError(
        f"task must be a name or a trak.tasks.Task, got {type(task).__name__}; use a name, such as "
        '"image_classification", or an instance of the class'
    )
