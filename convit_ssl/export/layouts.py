"""Where the trunks are in a checkpoint, whoever wrote it.

A trunk is found by the keys that every ConViT and ViT has, not by a list of known prefixes, so
`module.`, `backbone.`, `_orig_mod.`, `trunk.` and whatever comes next are all prefixes. Which
of a file's trunks is the teacher is read from the names on the way to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from convit_ssl.errors import UserError

# Wrappers that put their name in the middle of keys: DDP, torch.compile, FSDP, checkpointing.
_WRAPPERS = {
    "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module",
}  # fmt: skip
# A key that all trunks in question have, and what comes before it is the prefix.
_ANCHOR = "patch_embed.proj.weight"

# Words on the way to a trunk, and what they say about it; the first that matches counts.
_ROLES = (
    ("ema", ("ema", "model_ema", "state_dict_ema", "ema_model", "model_state_ema")),
    ("teacher", ("teacher", "momentum_teacher", "momentum_encoder", "target_network", "encoder_k")),
    ("student", ("student", "base_model", "online_network", "encoder_q")),
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
    for place, tensors in _state_dicts(content, (), set()):
        cleaned = {_without_wrappers(key): value for key, value in tensors.items()}
        trunks, others = _trunks_of(place, cleaned)
        found += trunks
        beside += others
    for trunk in found:
        trunk.beside = beside
    if not found:
        what = f"its first tensors are {', '.join(beside[:3])}" if beside else "no tensors"
        raise UserError(
            f"{path} holds no ConViT: no key ends in {_ANCHOR} ({what}). "
            "It takes checkpoints of ConViT and of DeiT-style plain ViTs"
        )
    return found


def choose(found: list[FoundTrunk], weights: str, path: str) -> FoundTrunk:
    """The trunk that was asked for.

    Args:
        found: what `find_trunks` gave.
        weights: "teacher" takes the teacher where there is one, and otherwise the weights the
            file has; "student" and "ema" are taken at their word.
        path: for the message.

    Raises:
        UserError: the weights asked for are not in the file, or there are several such.
    """
    if weights not in WEIGHTS:
        raise UserError(f"weights={weights!r}: choose one of {', '.join(WEIGHTS)}")
    by_role = {trunk.role: trunk for trunk in reversed(found)}
    if weights in by_role:
        return _only(by_role[weights], found, path)
    if weights == "teacher":
        role = next(role for role in _PREFERENCE if role in by_role)
        return _only(by_role[role], found, path)
    there = ", ".join(f"{trunk.role} ({trunk.where})" for trunk in found)
    raise UserError(f"{path} holds no {weights} weights; it has: {there}")


def _only(chosen: FoundTrunk, found: list[FoundTrunk], path: str) -> FoundTrunk:
    """The trunk, unless the file has another one by the same right."""
    rivals = [trunk for trunk in found if trunk.role == chosen.role and _differ(trunk, chosen)]
    if rivals:
        places = ", ".join(trunk.where for trunk in (chosen, *rivals))
        raise UserError(
            f"{path} holds several trunks, and nothing says which one is meant ({places}); save "
            "one of them into a file of its own"
        )
    return chosen


def _differ(one: FoundTrunk, other: FoundTrunk) -> bool:
    if one.tensors.keys() != other.tensors.keys():
        return True
    pairs = ((value, other.tensors[key]) for key, value in one.tensors.items())
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)


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
    prefixes = [key[: -len(_ANCHOR)] for key in tensors if key.endswith(_ANCHOR)]
    trunks = []
    for prefix in prefixes:
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        words = [word for word in (*place, *prefix.split(".")) if word]
        trunks.append(FoundTrunk(_role(words), ".".join(words) or "the top level", inside))
    others = [key for key in tensors if not any(key.startswith(prefix) for prefix in prefixes)]
    return trunks, [".".join((*place, key)) for key in others]


def _role(words: list[str]) -> str:
    for role, names in _ROLES:
        if any(word in names for word in words):
            return role
    return "model"


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)
