"""Files that no one should have, and what is said about each.

    python tests/bad_input/corpus.py FOLDER

writes them, with `expected.json`: a regular expression per file that the one message matches.
Everything is made from fixed seeds.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Files = dict[str, tuple[bytes, str]]
NO_TEXT = "is not a text file"
NO_CONVIT = "holds no ConViT"
CUT = r"not a readable checkpoint|cut short"


def _image(kind: str, side: int = 64, mode: str = "RGB", **options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def _png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)


def images() -> Files:
    """Images that cannot be decoded. Each is reported with its reason and replaced."""
    png, jpeg, gif, webp, tiff, bmp = (
        _image(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
    )
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    bomb = _png_header(60_000, 60_000) + _chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    any_reason = r"\S"
    return {
        "empty.png": (b"", "empty"),
        "one_byte.jpg": (b"\xff", any_reason),
        "text.png": (b"this is no image\n", "not an image"),
        "page.jpg": (b"<!DOCTYPE html><title>404</title>", "not an image"),
        "script.png": (b"#!/bin/sh\ntouch /tmp/sprung\n", "not an image"),
        "json.jpeg": (b'{"error": "rate limit"}', "not an image"),
        "zeros.png": (bytes(4096), "not an image"),
        "noise.jpg": (np.random.default_rng(1).bytes(4096), any_reason),
        "zip.png": (b"PK\x03\x04" + bytes(100), "not an image"),
        "gzip.png": (b"\x1f\x8b\x08" + bytes(100), "not an image"),
        "pointer.png": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
            "not an image",
        ),
        "cut.png": (png[: len(png) // 2], "truncated|broken|incomplete"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated|premature|damaged|incomplete"),
        "cut.gif": (gif[:60], any_reason),
        "cut.webp": (webp[: len(webp) // 2], any_reason),
        "cut.tiff": (tiff[: len(tiff) // 2], any_reason),
        "cut.bmp": (bmp[: len(bmp) // 2], "truncated"),
        "header_only.png": (_png_header(64, 64), any_reason),
        "header_only.jpg": (jpeg[:20], any_reason),
        "no_pixels.png": (_png_header(0, 0) + _chunk(b"IEND", b""), any_reason),
        "bad_depth.png": (_png_header(8, 8, depth=3), any_reason),
        "flipped.png": (bytes(flipped), any_reason),
        "bomb.png": (bomb, "pixels"),
        "wide_bomb.png": (_png_header(2**31 - 1, 1000), any_reason),
        "svg.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", any_reason),
    }


def lists() -> Files:
    """Lists of images (``data.subset=list=FILE``) that name what is not there."""
    return {
        "empty.txt": (b"", "is empty"),
        "blank.txt": (b"\n \n\t\n", "is empty"),
        "unknown.txt": (b"nobody.png\n", "nobody.png"),
        "half_known.txt": (b"0_00.png\nnobody.png\n", "nobody.png"),
        "binary.txt": (bytes(range(256)), NO_TEXT),
        "latin.txt": ("caf\u00e9.png\n".encode("latin-1"), NO_TEXT),
        "utf16.txt": ("0_00.png\n".encode("utf-16"), NO_TEXT),
        "outside.txt": (b"../../etc/passwd\n", "passwd"),
        "absolute.txt": (b"/etc/passwd\n", "passwd"),
        "numbers.txt": (b"1\n2\n3\n", "1"),
        "table.csv": (b"path,label\n0_00.png,0\n", "path,label"),
        "pickle.txt": (pickle.dumps(["0_00.png"]), NO_TEXT),
        "array.npy": (_array(), NO_TEXT),
    }


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return file.getvalue()


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


def _torch(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _zip(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/"), data)
    return file.getvalue()


def checkpoints(trap: str) -> Files:
    """Checkpoints that are damaged, foreign or malicious.

    Args:
        trap: a folder that a malicious one tries to make.
    """
    weights = _torch({"model": {"cls_token": torch.zeros(1, 1, 8)}})
    legacy = _torch({"a": torch.zeros(3)}, _use_new_zipfile_serialization=False)
    wrong = {"patch_embed.proj.weight": torch.zeros(36, 3), "cls_token": torch.zeros(1, 1, 36)}
    safe_header = struct.pack("<Q", 2**40)
    return {
        "empty.pth": (b"", CUT),
        "text.pth": (b"weights are at http://example.org\n", CUT),
        "cut.pth": (weights[: len(weights) // 2], CUT),
        "cut_end.pth": (weights[:-20], CUT),
        "cut_legacy.pth": (legacy[: len(legacy) // 2], CUT),
        "zeros.pth": (bytes(2048), CUT),
        "zip_without_pickle.pth": (_zip(readme=b"hello"), CUT),
        "zip_of_nothing.pth": (_zip(), CUT),
        "trap.pth": (_torch({"model": _Trap(trap)}), "refused: reading it would call"),
        "trap_legacy.pth": (pickle.dumps(_Trap(trap)), "refused|not a readable checkpoint"),
        "trap_in_zip.pth": (
            _zip(archive__data__pkl=pickle.dumps(_Trap(trap))),
            "refused|not a readable checkpoint",
        ),
        "list.pth": (_torch([1, 2, 3]), NO_CONVIT),
        "number.pth": (_torch(3.0), NO_CONVIT),
        "no_tensors.pth": (_torch({"epoch": 3}), NO_CONVIT),
        "foreign.pth": (_torch({"conv1.weight": torch.zeros(4, 3, 3, 3)}), "conv1.weight"),
        "wrong_rank.pth": (_torch(wrong), "has shape"),
        "half.pth": (weights, NO_CONVIT),
        "empty.safetensors": (b"", CUT),
        "long_header.safetensors": (safe_header + b"{}", CUT),
        "cut.safetensors": (struct.pack("<Q", 50) + b'{"a":{"dtype":"F32"', CUT),
        "bad_json.safetensors": (struct.pack("<Q", 4) + b"{a:}", CUT),
        "graph.onnx": (b"\x08\x07", "ONNX graph"),
    }


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def _vit(**more: Any) -> dict[str, Any]:
    """A plain ViT small enough to write many of."""
    state = {
        "cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 5, 8),
        "patch_embed.proj.weight": torch.zeros(8, 3, 4, 4),
        "patch_embed.proj.bias": torch.zeros(8), "norm.weight": torch.ones(8),
        "norm.bias": torch.zeros(8), "blocks.0.attn.qkv.weight": torch.zeros(24, 8),
        "blocks.0.attn.qkv.bias": torch.zeros(24), "blocks.0.attn.proj.weight": torch.zeros(8, 8),
        "blocks.0.attn.proj.bias": torch.zeros(8), "blocks.0.mlp.fc1.weight": torch.zeros(32, 8),
        "blocks.0.mlp.fc1.bias": torch.zeros(32), "blocks.0.mlp.fc2.weight": torch.zeros(8, 32),
        "blocks.0.mlp.fc2.bias": torch.zeros(8),
    }  # fmt: skip
    for norm in ("norm1", "norm2"):
        state |= {f"blocks.0.{norm}.weight": torch.ones(8), f"blocks.0.{norm}.bias": torch.zeros(8)}
    return {**state, **more}


_MODEL: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "num_classes": 0, "embed_dim": 8, "depth": 1, "num_heads": 2,
    "num_gpsa_layers": 0, "qkv_bias": True, "local_init": False,
}  # fmt: skip


def _ours(eps: Any = 1e-6, **model: Any) -> bytes:
    """One of our files, whose description says something else than its tensors."""
    entry = {"format": 1, "model": {**_MODEL, **model}, "layer_norm_eps": eps}
    return _torch({"trunk": _vit(), "convit_ssl": entry})


def wrong_weights() -> Files:
    """Weights that are well-formed files and cannot be what they say."""
    nothing = torch.zeros(1)
    files = {
        "sound.pth": (_torch(_vit()), "do not say how many attention heads"),
        "meta.pth": (_torch(_vit(pos_embed=torch.zeros(1, 5, 8, device="meta"))), "no values"),
        "sparse.pth": (_torch(_vit(norm_x=torch.eye(8).to_sparse())), "is sparse"),
        "expanded.pth": (_torch(_vit(cls_token=nothing.expand(1, 10**6, 8))), "has fewer"),
        "int.pth": (_torch(_vit(pos_embed=torch.zeros(1, 5, 8).long())), "do not say|int64"),
        "flat_patches.pth": (
            _torch({**_vit(), "patch_embed.proj.weight": torch.zeros(8, 48)}),
            "has shape",
        ),
        "no_positions.pth": (
            _torch({k: v for k, v in _vit().items() if k != "pos_embed"}),
            "pos_embed is missing",
        ),
        "odd_positions.pth": (_torch(_vit(pos_embed=torch.zeros(1, 7, 8))), "heads|--img-size"),
        "rope.pth": (_torch(_vit(**{"rope_embed.periods": nothing})), "rotary"),
        "registers.pth": (_torch(_vit(register_tokens=nothing)), "register tokens"),
        "swiglu.pth": (_torch(_vit(**{"blocks.0.mlp.w12.weight": nothing})), "SwiGLU"),
        "two.pth": (_torch({"a": _vit(), "b": _vit(norm_b=nothing)}), "several trunks"),
        "control.pth": (_torch({"conv\x1b[2J.weight": nothing}), "holds no ConViT"),
        "other_class.pth": (_torch({"model": _vit(), "extra": io.StringIO}), "refused"),
    }
    described = {
        "depth": {"depth": 10_000_000}, "wide": {"embed_dim": 2**30, "num_heads": 2},
        "wider": {"embed_dim": 2**40}, "heads": {"num_heads": 3}, "no_heads": {"num_heads": 0},
        "ratio_nan": {"mlp_ratio": float("nan")}, "ratio_inf": {"mlp_ratio": float("inf")},
        "ratio_text": {"mlp_ratio": "4"}, "ratio_negative": {"mlp_ratio": -1.0},
        "depth_text": {"depth": "1"}, "depth_true": {"depth": True}, "depth_none": {"depth": None},
        "size_list": {"img_size": [8, 8, 8]}, "size_text": {"img_size": "8"},
        "size_huge": {"img_size": 4 * 10**6}, "size_odd": {"img_size": 9},
        "patch": {"patch_size": 0},
        "pool": {"global_pool": "max"}, "unknown": {"<b>new</b>": 1}, "chans": {"in_chans": 10**6},
        "gpsa": {"num_gpsa_layers": 1}, "classes": {"num_classes": -1},
        "bias": {"qkv_bias": "yes"}, "list": {"embed_dim": [8]},
    }  # fmt: skip
    for name, model in described.items():
        files[f"says_{name}.pth"] = (_ours(**model), _ANY_MISFIT)
    for name, eps in (("nan", float("nan")), ("text", "1e-6"), ("negative", -1.0), ("one", 1)):
        files[f"eps_{name}.pth"] = (_ours(eps), "layer_norm_eps")
    giant = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    overlap = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}'
    files |= {
        "giant.safetensors": (_safetensors(giant), CUT),
        "short.safetensors": (_safetensors(overlap, bytes(4)), CUT),
        "list.safetensors": (_safetensors(b"[]"), CUT),
        "deep.safetensors": (_safetensors(b"[" * 500), CUT),
        "empty_header.safetensors": (_safetensors(b"{}"), NO_CONVIT),
        "packed.pth": (_packed(_torch({"a": nothing})), "packed"),
    }
    return files


_ANY_MISFIT = r"does not fit|wrong|cannot be|does not know|multiple|at least|divisible|must"


def _packed(data: bytes) -> bytes:
    """The same archive, deflated."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def results() -> Files:
    """Result files with values of other types, or out of their ranges."""
    row: dict[str, Any] = {"kind": "knn", "name": "x", "accuracy": 0.5}
    rows = {
        "percent": {"accuracy": 750}, "above_one": {"accuracy": 7.5}, "below": {"accuracy": -0.1},
        "true": {"accuracy": True}, "text": {"accuracy": "0.5"}, "list": {"accuracy": [0.5]},
        "dictionary": {"accuracy": {}}, "nan": {"accuracy": float("nan")},
        "infinite": {"accuracy": float("inf")}, "huge": {"accuracy": 10**400},
        "interval_text": {"interval_95": "0-1"}, "interval_one": {"interval_95": [0.5]},
        "interval_nan": {"interval_95": [float("nan"), 1]},
        "interval_wide": {"interval_95": [0, 9]},
        "name_list": {"name": []}, "kind_number": {"kind": 3}, "details_list": {"details": [1]},
        "settings_text": {"settings": "k=20"}, "fraction_text": {"fraction": "all"},
        "fraction_large": {"fraction": 5}, "commit_number": {"commit": 5},
        "balanced": {"balanced_accuracy": "high"}, "auc": {"auc": 2},
    }  # fmt: skip
    files = {
        f"{name}.json": (json.dumps({"results": [{**row, **change}]}).encode(), "holds a row whose")
        for name, change in rows.items()
    }
    return files | {
        "none.json": (json.dumps([{**row, "accuracy": None}]).encode(), "has no accuracy"),
        "empty.json": (b"", "as JSON"),
        "number.json": (b"3", "holds no results"),
        "rows_number.json": (b'{"results": 3}', "holds no results"),
        "rows_of_numbers.json": (b"[1, 2]", "without 'accuracy'"),
        "cut.json": (b'{"results": [{"accu', "as JSON"),
        "binary.json": (bytes(range(256)), "UTF-8"),
        "deep.json": (b"[" * 100_000, "nested"),
        "deep_closed.json": (b"[" * 500 + b"]" * 500, "nested"),
        "long_number.json": (b"[" + b"9" * 5000 + b"]", "as JSON"),
        "control.json": (b'{"\x1b": 1', "as JSON"),
    }


def _aliases(levels: int, merge: bool = False) -> str:
    """YAML whose lists refer to one another: small, and 9 to the power of its levels when read."""
    lines = ["a0: &a0 {k: 1}" if merge else "a0: &a0 [1]"]
    for level in range(1, levels):
        names = ", ".join([f"*a{level - 1}"] * 9)
        value = f"{{<<: [{names}]}}" if merge else f"[{names}]"
        lines.append(f"a{level}: &a{level} {value}")
    return "\n".join(lines) + "\n"


def yamls() -> Files:
    """Configurations of runs and experiments that no reader may follow to the end."""
    return {
        "aliases.yaml": (_aliases(12).encode(), "expands to"),
        "merges.yaml": (_aliases(12, merge=True).encode(), "expands to"),
        "itself.yaml": (b"a: &a [*a]\n", "nested"),
        "deep.yaml": (b"[" * 3000, "nested"),
        "deep_closed.yaml": (b"[" * 150 + b"]" * 150, "nested"),
        "long.yaml": (b"# \n" * 400_000, "limit"),
        "tag.yaml": (b"!!python/object/apply:os.mkdir ['TRAP']\n", "as YAML"),
        "binary.yaml": (bytes(range(256)), "UTF-8"),
        "unclosed.yaml": (b"a: [1\n", "as YAML"),
        "unhashable.yaml": (b"? [1]\n: 2\n", "as YAML"),
    }


BASE = """# @package _global_
defaults:
  - /vissl/base
  - /data: digits
  - /trunk: convit_nano
  - /method: dino
  - /optim: adamw
  - /run: cpu
  - _self_
experiment: mine
"""


def configs() -> Files:
    """Experiment files with a mistake."""
    texts = {
        "typo_in_key": (BASE + "optim:\n  lerning_rate: 0.1\n", r"optim\.lerning_rate"),
        "typo_in_section": (BASE + "optimm:\n  lr: 0.1\n", "optimm"),
        "text_for_number": (BASE + "optim:\n  epochs: many\n", "epochs|many"),
        "number_for_section": (BASE + "optim: 3\n", r"\S"),
        "list_for_number": (BASE + "optim:\n  lr: [1, 2]\n", r"optim\.lr"),
        "unknown_group": (
            BASE.replace("/data: digits", "/data: digit"),
            "unknown data 'digit'; did you mean 'digits'",
        ),
        "unknown_method": (BASE + "method:\n  name: dyno\n", "dyno"),
        "unknown_method_key": (BASE + "method:\n  out_dims: 3\n", r"out_dims"),
        "bad_indent": (BASE + "optim:\n lr: 1\n   epochs: 2\n", "cannot be read.*line 13"),
        "tab": (BASE + "optim:\n\tlr: 1\n", "cannot be read"),
        "open_bracket": (BASE + "optim: {lr: 1\n", "cannot be read.*line 11"),
        "python_tag": (
            BASE + "seed: !!python/object/apply:os.mkdir ['TRAP']\n",
            "cannot be read: could not determine a constructor for the tag",
        ),
        "binary": ("\x00\x01\x02", "cannot be read"),
        "dangling": (BASE + "seed: ${no.such.key}\n", r"no\.such\.key|seed"),
        "circle": (BASE + "seed: ${seed}\n", "does not resolve: Recursive"),
        "environment": (BASE + "seed: ${oc.env:CONVIT_SSL_NO_SUCH}\n", "CONVIT_SSL_NO_SUCH|seed"),
        "no_header": (BASE.replace("@package", "package"), "begin with the line `# @package"),
        "no_defaults": ("# @package _global_\nexperiment: mine\n", r"\S"),
        "wrong_device": (BASE + "run:\n  device: tpu\n", "tpu"),
    }
    return {f"{name}.yaml": (text.encode(), words) for name, (text, words) in texts.items()}


KINDS = ("images", "lists", "checkpoints", "configs", "wrong_weights", "results", "yamls")


def _kinds(trap: str) -> dict[str, Files]:
    return {
        "images": images(), "lists": lists(), "checkpoints": checkpoints(trap),
        "configs": configs(), "wrong_weights": wrong_weights(), "results": results(),
        "yamls": yamls(),
    }  # fmt: skip


def write(folder: Path) -> dict[str, dict[str, str]]:
    """Write the corpus; returns the expected words by kind and file."""
    trap = str(folder / "sprung")
    kinds = _kinds(trap)
    expected: dict[str, dict[str, str]] = {}
    for kind, files in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for name, (data, _) in files.items():
            (folder / kind / name).write_bytes(data.replace(b"TRAP", trap.encode()))
        expected[kind] = {name: words for name, (_, words) in files.items()}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    return expected


def names(kind: str) -> list[str]:
    """The files of a kind, without writing them."""
    return sorted(_kinds("/nowhere")[kind])


if __name__ == "__main__":
    total = sum(len(files) for files in write(Path(sys.argv[1])).values())
    print(f"{total} files in {sys.argv[1]}")
