"""What ids are called: lists of names, checked when they are set and not when the trained model is saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastlstm.ops.checks import describe


class Names:
    """A model's attribute that is None or a list of str; other sequences of str, numpy's too, are converted.

    Parameters
    ----------
    size : str
        The option that says how many ids there are; there may be no more names.
    all_named : bool
        There may be no fewer names either.
    """

    def __init__(self, size: str, *, all_named: bool = False) -> None:
        self._size = size
        self._all_named = all_named

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: Any, owner: type | None = None) -> list[str] | None:
        return None if model is None else vars(model).get(self._name)

    def __set__(self, model: Any, names: Iterable[str] | None) -> None:
        vars(model)[self._name] = None if names is None else self._checked(names, model.options.get(self._size))

    def _checked(self, names: Any, size: int | None) -> list[str]:
        if isinstance(names, (str, bytes, Mapping, set, frozenset)) or not isinstance(names, Iterable):
            raise TypeError(
                f"{self._name} is {describe(names)}, expected a list of str, one for each id in their order"
            )
        listed = list(names)
        for i, name in enumerate(listed):
            if not isinstance(name, str):
                raise TypeError(
                    f"{self._name}[{i}] is {describe(name)}, expected a str: [str(name) for name in {self._name}]"
                )
        if size is not None and (len(listed) > size or (self._all_named and len(listed) < size)):
            most = "" if self._all_named else "at most "
            raise ValueError(f"{self._name} has {len(listed)} names, expected {most}{size} ({self._size} = {size})")
        return [str(name) for name in listed]
