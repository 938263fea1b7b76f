"""Registries of classes by name, filled by decorators."""

from collections.abc import Callable
from typing import Any, TypeVar

from trak._utils.messages import suggest

C = TypeVar("C", bound=type[Any])


class Registry(dict[str, Any]):
    """Subclasses of one base class by their names."""

    def __init__(self, base: type[Any], what: str) -> None:
        """Give the base class, and the word for one of its subclasses in messages, such as "task"."""
        super().__init__()
        self._base, self._what = base, what

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that registers a class under `name`, which becomes its attribute `name`."""
        decorator = f"register_{self._what}"
        if not isinstance(name, str):
            raise TypeError(f"{decorator} needs a name, got {name!r}; write @{decorator}('my_{self._what}')")

        def register(cls: C) -> C:
            base = f"{self._base.__module__.rpartition('.')[0]}.{self._base.__name__}"
            if not (isinstance(cls, type) and issubclass(cls, self._base)):
                raise TypeError(f"only a subclass of {base} can be registered, got {cls!r}; make it one")
            taken = self.get(name)
            # A class defined again, as when a notebook's cell runs twice, replaces the first.
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                owner = f"{taken.__module__}.{taken.__qualname__}"
                raise ValueError(f"the {self._what} name {name!r} is taken by {owner}; choose another")
            cls.name = name
            self[name] = cls
            return cls

        return register

    def find(self, name: str, *others: str) -> Any:
        """Return the class of a name; a ValueError for an unknown one suggests `others`, too."""
        if name not in self:
            raise ValueError(f"unknown {self._what} {name!r}: {suggest(str(name), [*others, *self])}")
        return self[name]
