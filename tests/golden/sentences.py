"""Every sentence that the package raises for a user to read, found in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ERRORS = {"UserError", "TemporaryError", "RunFailure", "DataError", "_Ended"}


def sentences() -> dict[str, list[str]]:
    """By module, in the order of the source; ``{}`` stands for what is filled in.

    An error whose whole message is put together elsewhere has none.
    """
    found = {}
    for path in sorted((ROOT / "convit_ssl").rglob("*.py")):
        raised = [text for text in _raised(ast.parse(path.read_text())) if text.strip("{} ")]
        if raised:
            found[path.relative_to(ROOT).as_posix()] = raised
    return found


def _raised(tree: ast.AST) -> Iterator[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else call.func
        if isinstance(name, ast.Name):
            name = name.id
        if name in ERRORS and call.args:
            yield _template(call.args[0])


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    return "{}"
