"""Where the trunks are in a checkpoint, whoever wrote it.

A trunk is found by the keys that every ConViT and ViT has, not by a list of known prefixes, so
`module.`, `backbone.`, `_orig_mod.`, `trunk.` and whatever comes next are all prefixes. Which
of a file's trunks is the teacher is read from the names on the way to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.foreign import ANCHORS
from convit_ssl.reading import printable

# Wrappers that put their name in the middle of keys: DDP, torch.compile, FSDP, checkpointing.
_WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module",
}  # fmt: skip
# Words on the way to a trunk, and what they say about it; the first that matches counts.
_ROLES = (
    ("ema", re.compile(r"(^|_)ema(_|$)")),
    ("teacher", re.compile(r"teacher|momentum|target_(network|encoder|backbone)|^encoder_k$")),
    ("student", re.compile(r"student|online|^base_(model|encoder)$|^encoder_q$")),
)
WEIGHTS = ("teacher", "student", "ema")
# What is taken where nobody says what to take.
_PREFERENCE = ("teacher", "model", "student", "ema")


@dataclass
class FoundTrunk:
    """One trunk of a checkpoint.

    Attributes:
        role: teacher, student, ema, or model where the file makes no difference.
        where: the path to it in the file.
        tensors: its keys without the prefix.
        beside: full names of the file's tensors that belong to no trunk (heads, centres).
    """

    role: str
    where: str
    tensors: dict[str, Tensor]
    beside: list[str] = field(default_factory=list)


def find_trunks(content: Any, path: str) -> list[FoundTrunk]:
    """All trunks of a checkpoint's content.

    Raises:
        UserError: there is none.
    """
    found: list[FoundTrunk] = []
    beside: list[str] = []
    for place, tensors in state_dicts(content):
        trunks, others = _trunks_of(place, tensors)
        found += trunks
        beside += others
    for trunk in found:
        trunk.beside = beside
        check_tensors(trunk.tensors, path)
    if not found:
        first = printable(", ".join(beside[:3]))
        what = f"its first tensors are {first}" if beside else "no tensors"
        raise UserError(
            f"{path} holds no ConViT: no key ends in {ANCHORS['official']} ({what}). "
            "Give a checkpoint of ConViT or of a DeiT-style plain ViT"
        )
    _name_the_student(found)
    return found


def _name_the_student(found: list[FoundTrunk]) -> None:
    """A trunk without a role beside a teacher is its student, as in solo-learn and lightly."""
    plain = [trunk for trunk in found if trunk.role == "model"]
    roles = {trunk.role for trunk in found}
    if len(plain) == 1 and "teacher" in roles and "student" not in roles:
        plain[0].role = "student"


def check_tensors(tensors: Mapping[str, Tensor], path: str) -> None:
    """Refuse tensors that hold no values of their own, before anything is computed with them.

    Raises:
        UserError: one is sparse, has no values, or claims more than its storage has.
    """
    for key, value in tensors.items():
        if value.is_meta:
            fault = "has a shape and no values (it was saved from the meta device)"
        elif value.layout != torch.strided:
            fault = "is sparse; weights are saved dense"
        elif value.is_quantized:
            fault = "is quantised; weights are saved as floating-point numbers"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            shape = " x ".join(map(str, value.shape))
            fault = f"claims {shape} values and has fewer; save a contiguous copy of it"
        else:
            continue
        raise UserError(f"{path} cannot be read: {printable(key)} {fault}")


def choose(found: list[FoundTrunk], weights: str, path: str) -> FoundTrunk:
    """The trunk that was asked for.

    Args:
        found: what `find_trunks` gave.
        weights: "teacher" takes the teacher where there is one, and otherwise the weights the
            file has; "student" and "ema" are taken at their word; anything else is a part of
            the path to a trunk, such as ``momentum_backbone``.
        path: for the message.

    Raises:
        UserError: the weights asked for are not in the file, or there are several such.
    """
    by_role = {trunk.role: trunk for trunk in reversed(found)}
    if weights in by_role:
        return _only(by_role[weights], found, path)
    if weights == "teacher":
        role = next(role for role in _PREFERENCE if role in by_role)
        return _only(by_role[role], found, path)
    there = ", ".join(f"{trunk.role} ({trunk.where})" for trunk in found)
    chosen = [trunk for trunk in found if _is_part(weights, trunk.where)]
    if not chosen:
        choose_from = (
            "" if weights in WEIGHTS else f" (choose one of {', '.join(WEIGHTS)} or a key)"
        )
        raise UserError(
            f"{path} holds no {printable(weights)} weights; it has: {printable(there)}{choose_from}"
        )
    if any(_differ(trunk, chosen[0]) for trunk in chosen[1:]):
        places = ", ".join(trunk.where for trunk in chosen)
        raise UserError(
            f"{path} holds several trunks under {weights!r}: {places}; give a longer "
            f"part of the key"
        )
    return chosen[0]


def _is_part(key: str, where: str) -> bool:
    return bool(key.strip(".")) and f".{key.strip('.')}." in f".{where}."


def _only(chosen: FoundTrunk, found: list[FoundTrunk], path: str) -> FoundTrunk:
    """The trunk, unless the file has another one by the same right."""
    others = (trunk for trunk in found if trunk is not chosen)  # NaN differs from itself
    rivals = [trunk for trunk in others if trunk.role == chosen.role and _differ(trunk, chosen)]
    if rivals:
        places = ", ".join(trunk.where for trunk in (chosen, *rivals))
        raise UserError(
            f"{path} holds several trunks, and it is ambiguous which one to use ({places}); "
            f"choose with --weights KEY (weights=KEY in Python), where KEY is part of one of these"
        )
    return chosen


def _differ(one: FoundTrunk, other: FoundTrunk) -> bool:
    if one.tensors.keys() != other.tensors.keys():
        return True
    pairs = ((value, other.tensors[key]) for key, value in one.tensors.items())
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


def state_dicts(content: Any) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dictionary of tensors in a file's content, with the names on the way to it.

    Wrappers' parts of keys are left out.
    """
    for place, tensors in _state_dicts(content, (), set()):
        yield place, {without_wrappers(key): value for key, value in tensors.items()}


def _state_dicts(
    content: Any, place: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dictionary of tensors inside nested dictionaries, with the names on the way."""
    # A pickle can hold a dictionary that holds itself.
    if not isinstance(content, Mapping) or id(content) in seen or len(place) > 20:
        return
    seen.add(id(content))
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(isinstance(key, str) for key in tensors):
        yield place, tensors
    for key, value in content.items():
        # Optimizers hold tensors under integer keys, never a trunk.
        if isinstance(key, str) and key not in ("optim", "optimizer"):
            yield from _state_dicts(value, (*place, key), seen)


def _trunks_of(
    place: tuple[str, ...], tensors: dict[str, Tensor]
) -> tuple[list[FoundTrunk], list[str]]:
    prefixes = [
        key[: -len(anchor)]
        for key in tensors
        for anchor in ANCHORS.values()
        if key == anchor or key.endswith(f".{anchor}")
    ]
    trunks = []
    for prefix in prefixes:
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        words = [word for word in (*place, *prefix.split(".")) if word]
        trunks.append(FoundTrunk(role_of(words), ".".join(words) or "the top level", inside))
    others = [key for key in tensors if not any(key.startswith(prefix) for prefix in prefixes)]
    return trunks, [".".join((*place, key)) for key in others]


def role_of(words: list[str]) -> str:
    """Teacher, student, ema, or model where the names on the way to a trunk do not say."""
    for role, pattern in _ROLES:
        if any(pattern.search(word) for word in words):
            return role
    return "model"


def without_wrappers(key: str) -> str:
    """A key without what DDP, FSDP and torch.compile put into it."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)
