"""Tasks by name."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from trak._utils.messages import suggest
from trak.tasks.base import Task, stored_name

TASKS: dict[str, type[Task]] = {}

T = TypeVar("T", bound=type[Task])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator: make a task known under `name`.

    Raises:
        ValueError: if the name is taken by another class.
        TypeError: if the name is not a string, or the class not a `Task`.
    """
    if not isinstance(name, str):
        raise TypeError(f"register_task needs a name, got {name!r}; write @register_task('my_task')")

    def register(cls: T) -> T:
        if not (isinstance(cls, type) and issubclass(cls, Task)):
            raise TypeError(
                f"only a subclass of trak.tasks.Task can be registered, got {cls!r}; make it one, with an output method"
            )
        taken = TASKS.get(name)
        # The same class defined again, as when a notebook's cell runs twice, replaces the first.
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            owner = f"{taken.__module__}.{taken.__qualname__}"
            raise ValueError(f"the task name {name!r} is taken by {owner}; choose another")
        cls.name = name
        TASKS[name] = cls
        return cls

    return register


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
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: {suggest(task, TASKS)}")
        return TASKS[task]()
    if hasattr(task, "get_output") and hasattr(task, "get_out_to_loss_grad"):
        from trak.tasks.compat_traker import TrakerTaskAdapter

        return TrakerTaskAdapter(task() if isinstance(task, type) else task)
    raise TypeError(
        f"task must be a name or a trak.tasks.Task, got {type(task).__name__}; use a name, such as "
        '"image_classification", or an instance of the class'
    )
