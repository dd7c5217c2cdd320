"""A trunk as a graph: ONNX, and PyTorch's exported program. Neither needs this package to run."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convit_ssl.errors import UserError
from convit_ssl.export.check import own_size, random_images
from convit_ssl.export.files import ENTRY, whole_file
from convit_ssl.models.trunks import Network

INPUT, OUTPUT = "images", "features"


def make_program(model: Network) -> torch.export.ExportedProgram:
    """The network as a graph that takes any number of images of its own size."""
    # Two images: PyTorch takes a single one for a constant.
    example = random_images(model, own_size(model), count=2)
    batch = {0: torch.export.Dim("batch")}
    with torch.no_grad(), _quiet():
        # strict: the tracer that reads bytecode knows that len(images) is no constant.
        return torch.export.export(model, (example,), dynamic_shapes=(batch,), strict=True)


def write_program(program: torch.export.ExportedProgram, path: Path) -> None:
    """A program for ``torch.export.load(path).module()``."""
    with whole_file(path) as temporary, _quiet():
        torch.export.save(program, temporary)


def open_program(path: Path) -> Any:
    """The program as a callable."""
    with _quiet():
        return torch.export.load(path).module()


def write_onnx(program: torch.export.ExportedProgram, path: Path, entry: dict[str, Any]) -> None:
    """An ONNX graph of the program, with our metadata.

    Raises:
        UserError: onnx or onnxscript is not installed.
    """
    onnx = _require("onnx")
    _require("onnxscript")
    with whole_file(path) as temporary:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                external_data=False,
                verbose=False,
            )
            assert made is not None
            graph = made.model_proto
        _forget_this_machine(graph)
        graph.producer_name = "convit_ssl"
        onnx.helper.set_model_props(graph, {ENTRY: json.dumps(entry, default=str)})
        onnx.checker.check_model(graph)
        onnx.save(graph, str(temporary))


def open_onnx(path: Path) -> Any:
    """The graph in onnxruntime, as a function of images.

    Raises:
        UserError: onnxruntime is not installed.
    """
    runtime = _require("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return run


def _forget_this_machine(graph: Any) -> None:
    """Drop the exporter's notes, which hold source paths of the machine it ran on."""
    del graph.graph.metadata_props[:]
    for item in (*graph.graph.node, *graph.graph.initializer, *graph.functions):
        item.doc_string = ""
        del item.metadata_props[:]
    for item in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]


def _require(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"ONNX export needs {name}, which is not installed: pip install 'convit_ssl[export]'"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters report their progress and PyTorch's own deprecations; neither is news here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
