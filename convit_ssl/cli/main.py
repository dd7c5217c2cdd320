"""``convit-ssl <command>``: finds the command, runs it, and turns errors into one message."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import convit_ssl.adapters  # noqa: F401 installs what VISSL and torchvision need
from convit_ssl import __version__
from convit_ssl.children import keep_children_safe
from convit_ssl.cli.help import HelpFormatter, sentence
from convit_ssl.cli.options.values import check_outputs
from convit_ssl.cli.words import join_numbers
from convit_ssl.engines.callbacks.output import printable_output, spell_out
from convit_ssl.engines.launch.early_signals import own_process, say, stop_heard
from convit_ssl.errors import StoppedBySignal, UserError
from convit_ssl.machine import wait_briefly
from convit_ssl.once import within_command
from convit_ssl.process_end import run_to_end
from convit_ssl.starting import open_closed_streams, silence_reported, spoke

# Each command is a module of this package with SUMMARY, EXAMPLE, add_arguments(parser)
# and run(args) -> exit code. It is imported only when it is called.
COMMANDS: dict[str, str] = {
    "train": "pretrain, fine-tune or probe: run an experiment",
    "options": "list the options of an experiment: default, range, meaning",
    "demo": "pretrain, evaluate and export on scikit-learn's digits in a few minutes",
    "data": "write a built-in data set as an image folder",
    "check": "find duplicates, train/test leaks and bad images",
    "subset": "choose a labelled subset: by fraction, number or class",
    "features": "extract features once and reuse them in every probe",
    "explore": "map a collection: clusters, outliers, what to label next",
    "knn": "measure k-nearest-neighbour accuracy of a checkpoint",
    "linear": "measure linear-probe accuracy of a checkpoint",
    "scores": "score features without labels, next to untrained and raw pixels",
    "segment": "measure segmentation with frozen patch features and masks",
    "retrieve": "measure image retrieval: recall@1, recall@5 and mAP",
    "evaluate": "measure features with evaluators of your own",
    "finetune": "fine-tune a checkpoint on labelled images",
    "results": "show result files as one table",
    "study": "run sample-efficiency, ablation and baseline studies",
    "export": "export weights to safetensors, timm, ONNX and other formats",
    "import": "convert a ConViT or ViT checkpoint of another project",
    "audit": "describe a checkpoint and check its convolutional init",
    "report": "write an HTML report of one or more runs",
    "attention": "draw the attention maps of one image",
    "bench": "measure speed and memory side by side",
    "doctor": "show versions, devices and known problems of this installation",
}


# What a stopped command leaves, where that is not plain: files are written whole or not at all.
UNFINISHED = "nothing half-written is left"
LEFT_BY = {
    **dict.fromkeys(("data", "export", "features", "import", "subset"), UNFINISHED),
    "study": "its runs were stopped, and the same command resumes",
}

MANY_FLAGS = 8  # beyond which the usage of a command does not repeat them


def build_parser() -> argparse.ArgumentParser:
    """The top-level parser; commands add their own arguments when called."""
    commands = "\n".join(f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="convit-ssl",
        usage="convit-ssl [-h] [--version] COMMAND ...",
        description="Self-supervised pretraining of ConViT: train, evaluate, explore, export.\n\n"
        f"commands:\n{commands}",
        epilog="Options of a command: convit-ssl COMMAND --help\n"
        "example: convit-ssl train config=convit_dino data=digits run=cpu trunk=convit_nano",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"convit-ssl {__version__}")
    parser.add_argument(
        "command", choices=sorted(COMMANDS), metavar="command", help=argparse.SUPPRESS
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run one command; a UserError and a stop signal become one message and an exit code."""
    wait_briefly()  # before the command imports PyTorch
    spoke()  # silence counts from here
    spell_out(sys.stdout)
    with printable_output():
        try:
            with stop_heard():
                return _run_command(name, arguments)
        except KeyboardInterrupt:
            if "--debug" in arguments:
                raise
            return _stopped(name, "Ctrl-C", signal.SIGINT)
        except StoppedBySignal as stop:
            return _stopped(name, signal.Signals(stop.signum).name, stop.signum)


def _stopped(name: str, by: str, signum: int) -> int:
    """Say what stopped a command, and what it leaves; the exit code."""
    left = LEFT_BY.get(name)
    say(f"convit-ssl {name}: stopped by {by}" + (f"; {left}" if left else ""))
    return 128 + signum


def run_program(name: str, arguments: Sequence[str]) -> NoReturn:
    """Run one command as all that this process is for, and end the process."""
    own_process()
    keep_children_safe()
    open_closed_streams()

    def run() -> int:
        with silence_reported(name):
            return _run_and_flush(name, arguments)

    run_to_end(run)


def _run_and_flush(name: str, arguments: Sequence[str]) -> int:
    try:
        code = run_command(name, arguments)
        if sys.stdout is not None:  # closed by who started this process
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        code = 128 + 13  # as a shell reports SIGPIPE
    return code


def _run_command(name: str, arguments: Sequence[str]) -> int:
    arguments = list(arguments)
    debug = "--debug" in arguments
    command = importlib.import_module(f"convit_ssl.cli.{name}_command")
    parser = argparse.ArgumentParser(
        prog=f"convit-ssl {name}",
        description=sentence(command.SUMMARY),
        epilog=f"example: {command.EXAMPLE}",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_arguments(parser)
    _shorten_usage(parser)
    try:
        args = _parse(parser, join_numbers(arguments))
        check_outputs(args)
        if complete := getattr(args, "complete", None):
            complete(args)
        with within_command():
            return int(command.run(args))
    except UserError as error:
        if debug:
            raise
        print(f"convit-ssl {name}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        # Of a place that cannot be read or written; without a name it is no such thing.
        if debug or error.filename is None:
            raise
        print(f"convit-ssl {name}: {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


def _shorten_usage(parser: argparse.ArgumentParser) -> None:
    """``CKPT --out OUT [options]`` instead of twenty lines of flags, which are listed below it."""
    places, required, flags = [], [], 0
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for kind in action.choices.values():
                _shorten_usage(kind)
            return
        name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = {"+": f"{name} [{name} ...]", "*": f"[{name} ...]", "?": f"[{name}]"}.get(
            str(action.nargs), name
        )
        flags += bool(action.option_strings)
        if not action.option_strings:
            places.append(value)
        elif action.required:
            required.append(f"{action.option_strings[-1]} {value}")
    if flags > MANY_FLAGS:
        program = parser.prog.replace("%", "%%")
        parser.usage = " ".join([program, *places, *required, "[options]"])


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Flags and key=value in any order, which argparse only allows without sub-commands."""
    nested = any(isinstance(a, argparse._SubParsersAction) for a in parser._actions)
    return parser.parse_args(arguments) if nested else parser.parse_intermixed_args(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Console-script entry. Returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(["--help"] if words == ["help"] else words)
    if argv is None:
        run_program(args.command, args.arguments)
    return _run_and_flush(args.command, args.arguments)


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
