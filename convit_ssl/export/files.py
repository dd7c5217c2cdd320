"""Reading weights without running anything in them, and writing files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convit_ssl.checksums import check_file
from convit_ssl.errors import UserError
from convit_ssl.export.inert import load_inert
from convit_ssl.export.seal import check_seal, seal
from convit_ssl.leftovers import release, working_folder
from convit_ssl.reading import WEIGHTS_LIMIT, regular_file, utf8_place
from convit_ssl.sealed import seal as seal_json
from convit_ssl.writing import into_stream, is_stream, real_place

SAFETENSORS_SUFFIX = ".safetensors"
# Key of our JSON in a safetensors header, and of our dictionary in a training checkpoint.
ENTRY = "convit_ssl"


def read_weights(path: str | Path) -> tuple[Any, dict[str, Any]]:
    """The content of a checkpoint file, with tensors on the CPU.

    Pickles are read by torch's restricted unpickler, which builds tensors and plain containers
    and refuses every other global before it is called.

    Returns:
        What the file holds, and our own metadata ({} where there is none).

    Raises:
        UserError: no such file, an incomplete or damaged one, or one that would run code.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such checkpoint: {path}")
    regular_file(path, WEIGHTS_LIMIT)
    check_file(path)
    if path.suffix == SAFETENSORS_SUFFIX:
        return _read_safetensors(path)
    if path.suffix == ".onnx":
        raise UserError(f"{path} is an ONNX graph; load the file it was exported from")
    if path.suffix == ".pt2":
        raise UserError(f"{path} is an exported program; load the file it was exported from")
    return _read_torch(path)


def _read_torch(path: Path) -> tuple[Any, dict[str, Any]]:
    """What torch.save wrote, and our description, which a bare state dict carries unseen."""
    try:
        content = load_inert(path)
        described = getattr(content, "__dict__", {}).get(ENTRY)
        entry = json.loads(described) if isinstance(described, str) else {}
    # The unpickler meets arbitrary bytes here and fails in as many ways as there are bytes.
    except Exception as error:
        raise UserError(_why_unreadable(path, error)) from error
    return content, entry if isinstance(entry, dict) else {}


def _why_unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    # "GLOBAL posix.system was not an allowed global", "Unsupported global: GLOBAL posix.system"
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    if asked and not _ends_within(path, asked[1]):
        return (
            f"{path} is refused: reading it would call {asked[1]}, which a weights file does not "
            f"need. Nothing was run. If you trust its author, ask for a safetensors file"
        )
    if "TorchScript" in text:
        return f"{path} is a TorchScript program, not weights; save its state_dict() instead"
    unpickling = re.search(r"WeightsUnpickler error: (.*)", text)
    lines = [unpickling[1]] if unpickling else [line for line in text.splitlines() if line.strip()]
    reason = lines[0].strip().partition(". ")[0] if lines else "empty"
    said = f" ({reason[:160]})" if re.search("[a-z]", reason) else ""
    size = path.stat().st_size
    return (
        f"{path} ({size} bytes) is not a readable checkpoint: it is cut short, so copy or download "
        f"it again, or neither torch.save nor safetensors wrote it{said}"
    )


def _ends_within(path: Path, name: str) -> bool:
    """Whether a file ends in the middle of a name that it would call, and so is cut short."""
    module, _, called = name.rpartition(".")
    with open(path, "rb") as file:
        file.seek(max(path.stat().st_size - len(name) - 2, 0))
        end = file.read().decode("latin-1")
    # PyTorch takes the last sign for the end of the line, and leaves it out.
    within = re.escape(f"{module}\n{called}") if called else f"{re.escape(module)}\n?"
    return re.search(rf"{within}.?\Z", end, re.DOTALL) is not None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    try:
        with utf8_place(path) as place, safe_open(str(place), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        entry = json.loads(header.get(ENTRY, "{}"))
    except Exception as error:
        raise UserError(_why_unreadable(path, error)) from error
    entry = entry if isinstance(entry, dict) else {}
    check_seal(path, tensors, entry)
    return tensors, entry


def write_safetensors(path: Path, tensors: dict[str, Tensor], entry: dict[str, Any]) -> None:
    """Write tensors, with our metadata as JSON in the header."""
    from safetensors.torch import save, save_file

    tensors = own_tensors(tensors)
    # "format" is what timm and transformers look for.
    header = {"format": "pt", ENTRY: json.dumps(seal(tensors, entry), sort_keys=True)}
    with whole_file(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=header)
        except UnicodeEncodeError:  # of a name that is not UTF-8
            temporary.write_bytes(save(tensors, metadata=header))


def described(tensors: dict[str, Tensor], entry: dict[str, Any]) -> OrderedDict[str, Tensor]:
    """A bare state dict that carries our description as an attribute.

    Its keys are the tensors' alone, so other libraries read it as before; `read_weights` finds
    what the tensors do not tell, such as an oblong grid.
    """
    carrier: OrderedDict[str, Tensor] = OrderedDict(tensors)
    vars(carrier)[ENTRY] = json.dumps(entry, sort_keys=True, default=str)
    return carrier


def write_torch(path: Path, content: Any) -> None:
    """`torch.save`, whole or not at all."""
    # By an open file: PyTorch takes no names that are not UTF-8.
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def write_text(path: Path, text: str) -> None:
    """A UTF-8 text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """An indented JSON file, whole or not at all."""
    content = seal_json(value, str) if isinstance(value, Mapping) else value
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def own_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies that share no storage: safetensors refuses views, torch.save writes them whole."""
    return {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes its real name only on success.

    Links are followed, and devices and pipes stay what they are, as in `writing.whole_file`.

    Raises:
        UserError: the folder cannot be written.
    """
    if is_stream(path):
        with into_stream(path, path.name) as temporary:
            yield temporary
        return
    place = real_place(path)
    with whole_folder(place.parent) as folder:
        yield folder / place.name


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder whose content moves into `target` only when all of it is written.

    Files of the same name in `target` are replaced, others are left alone. What a killed export
    left there is deleted.

    Raises:
        UserError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            target.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(working_folder(target, ".unfinished-"))
        except OSError as error:
            raise UserError(f"cannot write in {target}: {error.strerror or error}") from error
        yield staging
        release(staging)
        _move_into(staging, target)


def _move_into(staging: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    for source in sorted(staging.rglob("*")):
        destination = target / source.relative_to(staging)
        if source.is_dir():
            destination.mkdir(exist_ok=True)
        else:
            source.chmod(0o666 & ~umask)
            os.replace(source, destination)
