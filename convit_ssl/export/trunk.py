"""Write a trunk for other libraries, each file checked by the library it is meant for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from convit_ssl.errors import UserError
from convit_ssl.export import graphs, timm_target
from convit_ssl.export.card import model_card
from convit_ssl.export.check import Difference, compare, own_size, second_size
from convit_ssl.export.figures import Figure
from convit_ssl.export.files import (
    ENTRY,
    described,
    read_weights,
    whole_folder,
    write_json,
    write_safetensors,
    write_text,
    write_torch,
)
from convit_ssl.export.keys import VISSL_LAYER_NORM_EPS, to_official, to_vissl
from convit_ssl.export.load import layer_norm_eps, load_trunk
from convit_ssl.export.other_targets import write_other
from convit_ssl.export.save import describe_weights
from convit_ssl.models import ConViT
from convit_ssl.models.trunks import Network, OtherTrunk

TARGETS = ("safetensors", "official", "timm", "hf", "onnx", "torch-export", "vissl")

# What the target's own class uses; the other forms keep ours.
_EPS = {"safetensors": 1e-6, "official": 1e-6, "timm": 1e-6, "vissl": VISSL_LAYER_NORM_EPS}


@dataclass
class Written:
    """One target: its files, relative to the output folder, and how far its outputs are."""

    target: str
    files: list[str]
    differences: list[Difference] = field(default_factory=list)
    note: str = ""


@dataclass
class _Job:
    model: ConViT
    folder: Path
    stem: str
    entry: dict[str, Any]
    data: dict[str, Any]
    license_name: str

    @functools.cached_property
    def program(self) -> torch.export.ExportedProgram:
        """Made once for all graphs."""
        return graphs.make_program(self.model)


def export_trunk(
    model: Network,
    targets: Sequence[str],
    output: Path,
    *,
    name: str = "convit",
    license_name: str = "unknown",
    figures: Sequence[Figure] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Written]:
    """Write a trunk in each form, check each, and put all in place only when all hold.

    Args:
        model: as `load_network` gives it.
        targets: some of `TARGETS`.
        output: the folder; files of other names in it are left alone.
        name: of the files.
        license_name: of the weights, for the model card; an SPDX name or the hub's.
        figures: measured with these weights, for the model card.
        progress: called with the number of finished forms, of all, and the name of the next.

    Raises:
        UserError: a target that cannot hold this network, or whose outputs differ. Nothing is
            written then.
    """
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown or not targets:
        raise UserError(
            f"--to {' '.join(unknown) or '(nothing)'}: choose from {', '.join(TARGETS)}"
        )
    if name in ("", "..") or Path(name).name != name:
        raise UserError(f"--name {name!r}: give a file name without folders; --out is the folder")
    _refuse_strangers(output)
    provenance = getattr(model, "provenance", {})
    data = (provenance.get("entry") or {}).get("data")
    data = data if isinstance(data, dict) else {}
    model.eval()
    with whole_folder(output) as folder:
        if isinstance(model, OtherTrunk):
            rows = write_other(model, targets, folder, name, license_name, figures)
            return [Written(form, files, [difference]) for form, files, difference in rows]
        job = _Job(model, folder, name, describe_weights(model), data, license_name)
        written: list[Written] = []
        forms = list(dict.fromkeys(targets))
        for target in forms:
            if progress:
                progress(len(written), len(forms), target)
            written.append(_write_and_check(target, job))
        _write_cards(model, folder, written, name, license_name, figures)
    return written


def _refuse_strangers(output: Path) -> None:
    """A model card takes the place of an earlier one, and of no other README."""
    for name, sign in (("README.md", "convit_ssl"), ("config.json", "fingerprint")):
        try:
            text = (output / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if sign not in text:
            raise UserError(
                f"{output / name} already exists and was not written by an export; choose another "
                f"--out"
            )


def _write_and_check(target: str, job: _Job) -> Written:
    before = set(job.folder.rglob("*"))
    note = _WRITERS[target](job)
    files = sorted(p for p in set(job.folder.rglob("*")) - before if p.is_file())
    written = Written(target, [str(p.relative_to(job.folder)) for p in files], note=note or "")
    same_eps = layer_norm_eps(job.model) == _EPS.get(target, layer_norm_eps(job.model))
    sizes = [own_size(job.model)]
    if target not in ("onnx", "torch-export", "vissl"):
        sizes.append(second_size(job.model))
    for size in sizes:
        theirs = _READERS[target](job, size)
        if theirs is None:
            continue
        difference = compare(job.model, theirs, size)
        written.differences.append(difference)
        if not difference.within_tolerance and same_eps:
            raise UserError(
                f"{target} computes a different output: {difference}, more than rounding error; "
                f"nothing was written"
            )
    if not same_eps:
        eps = f"LayerNorm eps is {_EPS[target]:g} there and {layer_norm_eps(job.model):g} here"
        written.note = f"{written.note}; {eps}" if written.note else eps
    return written


def _write_cards(
    model: ConViT,
    folder: Path,
    written: Sequence[Written],
    name: str,
    license_name: str,
    figures: Sequence[Figure],
) -> None:
    done = {item.target: item for item in written}
    write_json(folder / "config.json", describe_weights(model))
    for place in [p for p in ("timm", "hf") if p in done]:
        card = model_card(model, {place: done[place].differences}, name, license_name, figures)
        write_text(folder / place / "README.md", card)
        done[place].files.append(f"{place}/README.md")
    differences = {item.target: item.differences for item in written}
    write_text(folder / "README.md", model_card(model, differences, name, license_name, figures))


def _write_safetensors(job: _Job) -> None:
    write_safetensors(job.folder / f"{job.stem}.safetensors", job.model.state_dict(), job.entry)


def _write_official(job: _Job) -> None:
    tensors = {key: value.clone() for key, value in job.model.state_dict().items()}
    write_torch(job.folder / f"{job.stem}.pth", described(tensors, job.entry))


def _write_timm(job: _Job) -> None:
    timm_target.write_timm_folder(
        job.model, job.folder / "timm", job.entry, job.data, job.license_name
    )


def _write_hf(job: _Job) -> None:
    config = {**dataclasses.asdict(job.model.config), "layer_norm_eps": layer_norm_eps(job.model)}
    write_safetensors(job.folder / "hf" / "model.safetensors", job.model.state_dict(), job.entry)
    about = {key: job.entry[key] for key in ("variant", "method", "epoch", "fingerprint")}
    write_json(job.folder / "hf" / "config.json", {**config, "convit_ssl": about})


def _write_onnx(job: _Job) -> str:
    graphs.write_onnx(job.program, job.folder / f"{job.stem}.onnx", job.entry)
    return _fixed_size(job)


def _write_program(job: _Job) -> str:
    graphs.write_program(job.program, job.folder / f"{job.stem}.pt2")
    return _fixed_size(job)


def _fixed_size(job: _Job) -> str:
    height, width = own_size(job.model)
    return f"any number of images of {height} x {width} px; --img-size for another size"


def _write_vissl(job: _Job) -> str:
    config = job.model.config
    trunk = to_vissl(job.model.state_dict(), grid=config.grid_size(*config.image_shape))
    model = {"trunk": trunk, "heads": {}}
    about = {key: value for key, value in job.entry.items() if key != "fingerprint"}
    entry = {**about, "model": {**job.entry["model"], "num_classes": 0, "use_pos_embed": True}}
    state = {"base_model": {"model": model}}
    content = {"classy_state_dict": state, "phase_idx": 0, ENTRY: entry}
    write_torch(job.folder / f"{job.stem}_vissl.torch", content)
    return "for MODEL.WEIGHTS_INIT.PARAMS_FILE of VISSL 0.1.6's trunk `convit`; no classifier"


def _weights_reader(suffix: str) -> Callable[[_Job, tuple[int, int]], Any]:
    def read(job: _Job, size: tuple[int, int]) -> Any:
        content, _ = read_weights(job.folder / f"{job.stem}{suffix}")
        return timm_target.load_into_timm(job.model.config, content, size)

    return read


def _read_timm(job: _Job, size: tuple[int, int]) -> Any:
    if size == own_size(job.model):
        return timm_target.open_timm_folder(job.folder / "timm")
    content, _ = read_weights(job.folder / "timm" / "model.safetensors")
    return timm_target.load_into_timm(job.model.config, content, size)


def _read_hf(job: _Job, size: tuple[int, int]) -> Any:
    from convit_ssl.export.hub import HubConViT

    with contextlib.redirect_stdout(io.StringIO()):  # it announces itself on the user's screen
        return HubConViT.from_pretrained(str(job.folder / "hf")).eval()


def _read_vissl(job: _Job, size: tuple[int, int]) -> Any:
    """Folded back by our own reader. The tests ask VISSL itself, which export must not need."""
    path = job.folder / f"{job.stem}_vissl.torch"
    content, _ = read_weights(path)
    trunk = to_official(content["classy_state_dict"]["base_model"]["model"]["trunk"])
    own_tensors = job.model.state_dict()
    if not job.model.config.use_pos_embed:
        assert not trunk.pop("pos_embed").any()
    for key, value in trunk.items():
        # A bias, which no output depends on, is scaled on the way and may lose its last bit.
        own, tolerance = own_tensors[key], 1e-6 if key.endswith("pos_proj.bias") else 0.0
        if not torch.allclose(value, own, rtol=tolerance, atol=0.0):
            raise UserError(f"{key} changes when it is converted to VISSL's layout and back")
    return None if job.model.config.num_classes else load_trunk(path, img_size=size)


_WRITERS: dict[str, Callable[[_Job], str | None]] = {
    "safetensors": _write_safetensors,
    "official": _write_official,
    "timm": _write_timm,
    "hf": _write_hf,
    "onnx": _write_onnx,
    "torch-export": _write_program,
    "vissl": _write_vissl,
}
_READERS: dict[str, Callable[[_Job, tuple[int, int]], Any]] = {
    "safetensors": _weights_reader(".safetensors"),
    "official": _weights_reader(".pth"),
    "timm": _read_timm,
    "hf": _read_hf,
    "onnx": lambda job, size: graphs.open_onnx(job.folder / f"{job.stem}.onnx"),
    "torch-export": lambda job, size: graphs.open_program(job.folder / f"{job.stem}.pt2"),
    "vissl": _read_vissl,
}
