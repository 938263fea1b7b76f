"""Tasks by name."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from trak.naming import did_you_mean
from trak.tasks.base import Task

TASKS: dict[str, type[Task]] = {}

T = TypeVar("T", bound=type[Task])


def register_task(name: str) -> Callable[[T], T]:
    """Class decorator: make a task known under `name`.

    Raises:
        ValueError: if the name is taken by another class.
        TypeError: if the name is no string, or the class no `Task`.
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


def make_task(task: Any) -> Task:
    """The task meant by an instance, a class or a name.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else that is no task.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, type) and issubclass(task, Task):
        if inspect.isabstract(task):
            raise TypeError(f"task {task.__name__} has no output method; write one, or use one of {', '.join(TASKS)}")
        return task()
    if isinstance(task, str):
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}: {did_you_mean(task, TASKS)}")
        return TASKS[task]()
    if hasattr(task, "get_output") and hasattr(task, "get_out_to_loss_grad"):
        from trak.tasks.published import PublishedTask

        return PublishedTask(task() if isinstance(task, type) else task)
    raise TypeError(
        f"task must be a name or a trak.tasks.Task, got {type(task).__name__}; use a name, such as "
        '"image_classification", or an instance of the class'
    )
