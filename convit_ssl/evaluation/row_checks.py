"""Result rows of unknown origin: of the right types, and within their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convit_ssl.errors import UserError
from convit_ssl.reading import is_share, printable

# Further shares of a row; None where they are not known.
_SHARES = ("balanced_accuracy", "auc", "fraction")


def check_row(row: Any, path: Any) -> dict[str, Any]:
    """A row as it is shown: its texts are one printable line each.

    Args:
        row: as JSON gave it.
        path: for the message.

    Raises:
        UserError: a value of another type, or out of its range.
    """
    if not isinstance(row, dict) or "accuracy" not in row:
        raise UserError(f"{path} holds no results: a row without 'accuracy'")
    if row["accuracy"] is None:
        raise UserError(
            f"{path} has no accuracy: its images have no labels, or there was no val; "
            "convit-ssl knn and linear measure a run on images with labels"
        )
    _share(row["accuracy"], "accuracy", path)
    for name in _SHARES:
        if row.get(name) is not None:
            _share(row[name], name, path)
    bounds = row.get("interval_95")
    if bounds is not None and not (isinstance(bounds, list) and len(bounds) == 2):
        raise _wrong(path, "interval_95", bounds, "a list of two numbers")
    for bound in bounds or ():
        if bound is not None:
            _share(bound, "interval_95", path)
    for name, kind, words in (
        ("name", str, "a text"), ("kind", str, "a text"), ("commit", str, "a text"),
        ("details", Mapping, "a dictionary"), ("settings", Mapping, "a dictionary"),
    ):  # fmt: skip
        if row.get(name) is not None and not isinstance(row[name], kind):
            raise _wrong(path, name, row[name], words)
    checked = dict(row)
    if bounds is not None and None in bounds:
        del checked["interval_95"]
    for name in ("name", "kind", "commit"):
        if isinstance(row.get(name), str):
            checked[name] = printable(row[name])
    checked["details"] = _printable(row.get("details"))
    return checked


def _printable(details: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        printable(str(key)): printable(value) if isinstance(value, str) else value
        for key, value in (details or {}).items()
    }


def _share(value: Any, name: str, path: Any) -> None:
    if not is_share(value):
        raise _wrong(path, name, value, "a number from 0 to 1")


def _wrong(path: Any, name: str, value: Any, words: str) -> UserError:
    return UserError(
        f"{path} holds a row whose {name} is {printable(repr(value), 80)}; expected {words}"
    )
