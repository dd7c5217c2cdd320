"""``convit-ssl <command>``: finds the command, runs it, and turns errors into one message."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence

import convit_ssl.adapters  # noqa: F401 installs what VISSL and torchvision need
from convit_ssl import __version__
from convit_ssl.cli.values import check_outputs
from convit_ssl.cli.words import join_numbers
from convit_ssl.engines.output import printable_output, spell_out
from convit_ssl.errors import UserError
from convit_ssl.machine import wait_briefly

# Each command is a module of this package with SUMMARY, EXAMPLE, add_arguments(parser)
# and run(args) -> exit code. It is imported only when it is called.
COMMANDS: dict[str, str] = {
    "train": "pretrain, fine-tune or probe: an experiment of configs/config",
    "options": "every option of an experiment: default, range and meaning",
    "demo": "pretrain, evaluate and export on scikit-learn's digits in a few minutes",
    "data": "write a built-in data set as an image folder",
    "check": "duplicates, leaks between train and test, and bad images of a collection",
    "subset": "choose labelled images: by fraction, by number, by class",
    "features": "extract features once, for every probe to reuse",
    "explore": "a collection as its features see it: map, clusters, odd images, what to label",
    "knn": "k-nearest-neighbour accuracy of a checkpoint",
    "linear": "linear-probe accuracy of a checkpoint",
    "scores": "label-free scores of a checkpoint, beside untrained and raw pixels",
    "finetune": "fine-tune a checkpoint on labelled images",
    "results": "result files as one table",
    "study": "sample-efficiency and ablation studies",
    "export": "write a trunk for safetensors, timm, ONNX and others",
    "import": "read a foreign ConViT checkpoint into ours",
    "audit": "say what a checkpoint is, and whether its convolutional init is there",
    "report": "the locality report of one or more runs, as one HTML page",
    "attention": "the attention maps of one image",
    "bench": "side-by-side speed and memory",
    "doctor": "versions, devices and known problems of this installation",
}


def build_parser() -> argparse.ArgumentParser:
    """The top-level parser; commands add their own arguments when called."""
    commands = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="convit-ssl",
        description=f"Self-supervised pretraining of ConViT.\n\ncommands:\n{commands}",
        epilog="example: convit-ssl train config=convit_dino data=digits run=cpu trunk=convit_nano",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convit-ssl {__version__}")
    parser.add_argument("command", choices=sorted(COMMANDS), metavar="command")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one command; a UserError and Ctrl-C become one message and an exit code."""
    wait_briefly()  # before the command imports PyTorch
    spell_out(sys.stdout)
    with printable_output():
        return _run_command(name, arguments)


def _run_command(name: str, arguments: Sequence[str]) -> int:
    arguments = list(arguments)
    debug = "--debug" in arguments
    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    parser = argparse.ArgumentParser(
        prog=f"convit-ssl {name}",
        description=command.SUMMARY,
        epilog=f"example: {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_arguments(parser)
    try:
        args = _parse(parser, join_numbers(arguments))
        check_outputs(args)
        return int(command.run(args))
    except UserError as error:
        if debug:
            raise
        print(f"convit-ssl {name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print(f"convit-ssl {name}: stopped by Ctrl-C", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        # Of a place that cannot be read or written; without a name it is no such thing.
        if debug or error.filename is None:
            raise
        print(f"convit-ssl {name}: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Flags and key=value in any order, which argparse only allows without sub-commands."""
    nested = any(isinstance(a, argparse._SubParsersAction) for a in parser._actions)
    return parser.parse_args(arguments) if nested else parser.parse_intermixed_args(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Console-script entry. Returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(["--help"] if words == ["help"] else words)
    try:
        code = run_command(args.command, args.arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 128 + 13  # as a shell reports SIGPIPE
    return code


def _reader_is_gone() -> bool:
    """Whether what reads our output has seen enough, as in ``convit-ssl audit ... | head``."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:  # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


if __name__ == "__main__":
    sys.exit(main())
