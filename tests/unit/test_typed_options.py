"""Options, plans and tasks have types: mypy sees each access to one of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import convit_ssl

PACKAGE = Path(convit_ssl.__file__).parent
NAMES = {"options", "crops", "run", "plan", "task", "composed"}
# VISSL's own objects, which have no types.
OF_VISSL = {"compat/sync_bn_on_cpu.py", "adapters/dataset.py"}


def untyped() -> Iterator[str]:
    """Parameters by these names whose annotation is missing or Any."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if place in OF_VISSL:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                    kind = argument.annotation
                    words = "" if kind is None else ast.unparse(kind)
                    if argument.arg in NAMES and words in ("", "Any"):
                        yield f"{place}:{argument.lineno} {argument.arg}"


def test_no_option_is_read_from_any() -> None:
    assert list(untyped()) == []
