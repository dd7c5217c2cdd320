"""Each wrong input ends in one message and exit code 2, before anything heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from convit_ssl.cli.main import run_command
from convit_ssl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "run_distributed_engines.py"
SMALL = ("data=digits", "run=cpu", "trunk=convit_nano", "optim.epochs=1")
Refuse = Callable[..., str]


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Runs the command in this process; gives its message."""

    def run(*arguments: str, config: str = "convit_dino") -> str:
        given = [f"config={config}", *SMALL, f"run.root={tmp_path / 'runs'}", *arguments]
        code = run_command("train", given)
        printed = capsys.readouterr()
        assert code == 2
        assert printed.out == ""
        assert printed.err.startswith("convit-ssl train: ")
        assert "Traceback" not in printed.err
        assert len(printed.err.splitlines()) == 1
        assert not (tmp_path / "runs").exists()
        return printed.err

    return run


def write_images(folder: Path, count: int, size: tuple[int, int] = (8, 8)) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (number * 20 % 256, 90, 30)).save(folder / f"{number}.png")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("optim.lrr=1", ["unknown option 'optim.lrr'", "did you mean 'optim.lr'?"]),
        ("optm.epochs=1", ["unknown option 'optm.epochs'", "'optim.epochs'"]),
        ("method.temprature=1", ["method.temprature", "temperature"]),
        ("config.MODEL.TRUNC=1", ["config.MODEL.TRUNC", "config.MODEL.TRUNK"]),
        ("trunk=convit_smal", ["unknown trunk 'convit_smal'", "convit_small", "deit_nano"]),
        ("optim=adam", ["unknown optim 'adam'", "adamw", "lars", "sgd"]),
        ("data=digit", ["unknown data 'digit'", "'digits'", "imagenet", "folder"]),
        ("run.gradients=int8", ["run.gradients='int8'", "fp32 or bf16"]),
        ("run=gpu", ["unknown run 'gpu'", "gpu1", "cpu", "slurm"]),
        ("method=dinos", ["unknown method 'dinos'", "'dino'", "simclr"]),
        ("optim.name=adam", ["optim.name", "adamw"]),
        ("optim.epochs=many", ["optim.epochs"]),
        ("optim=5 ", ["unknown optim"]),
        ("epochs", ["cannot read 'epochs'", "key=value"]),
        ("augment=quick", ["augment='quick'", "fast", "pil", "device"]),
        ("trunk.variant=convit_smal", ["trunk", "convit_smal", "convit_small"]),
        ("run.device=tpu", ["run.device='tpu'", "cpu", "cuda"]),
        ("crops.global_size=30", ["crops.global_size=30", "trunk.patch_size=4", "28", "32"]),
        ("optim.batch_size=100000", ["optim.batch_size=100000", "images"]),
        ("run.processes=3", ["optim.batch_size=", "3 processes"]),
    ],
)
def test_wrong_words_are_met_with_the_right_ones(
    argument: str, words: list[str], refuse: Refuse
) -> None:
    message = (
        refuse(argument, "trunk.patch_size=4", "optim.batch_size=100")
        if not argument.startswith("optim.batch_size")
        else refuse(argument)
    )
    for word in words:
        assert word in message


def test_a_trunk_that_would_never_learn(refuse: Refuse) -> None:
    message = refuse("method.freeze_trunk_epochs=2", config="convit_supervised")
    assert "the trunk would never be trained" in message and "convit_linear" in message


def test_what_does_not_go_with_shares_is_named(refuse: Refuse) -> None:
    message = refuse("run.fsdp=true", "run.compile=true", "run.precision=fp16")
    assert (
        "run.fsdp=true cannot be combined with run.compile=true and run.precision=fp16" in message
    )


def test_unknown_experiment_lists_what_there_is(refuse: Refuse) -> None:
    message = refuse(config="convit_dyno")
    assert "unknown experiment 'convit_dyno'; did you mean 'convit_dino'?" in message
    assert "convit_supervised" in message


def test_no_experiment_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("train", ["data=digits"]) == 2
    assert "no experiment given; write config=NAME" in capsys.readouterr().err


def test_misspelt_key_in_a_file_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    folder = tmp_path / "configs" / "config"
    folder.mkdir(parents=True)
    shipped = (ROOT / "configs" / "config" / "convit_dino.yaml").read_text()
    text = shipped.replace("experiment: convit_dino", "experiment: mine")
    (folder / "mine.yaml").write_text(text.replace("warmup_epochs: 10", "warmup_epoch: 10"))
    monkeypatch.chdir(tmp_path)
    message = refuse(config="mine")
    assert "optim.warmup_epoch" in message and "'optim.warmup_epochs'" in message
    assert "mine" in message


def test_data_folder_that_is_missing(tmp_path: Path, refuse: Refuse) -> None:
    message = refuse("data=folder", f"data_dir={tmp_path / 'none'}")
    assert str(tmp_path / "none") in message


def test_data_folder_not_given(refuse: Refuse) -> None:
    assert "data_dir" in refuse("data=folder")


def test_data_folder_that_is_empty(tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refuse("data=folder", f"data_dir={tmp_path / 'empty'}")


def test_data_folder_without_images(tmp_path: Path, refuse: Refuse) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no image")
    message = refuse("data=folder", f"data_dir={tmp_path / 'texts'}")
    assert str(tmp_path / "texts") in message and "image" in message


def test_class_folders_that_differ(tmp_path: Path, refuse: Refuse) -> None:
    data = tmp_path / "images"
    for place in ("train/cat", "train/dog", "val/cat", "val/dgo"):
        write_images(data / place, 4)
    message = refuse("data=folder", f"data_dir={data}", config="convit_supervised")
    assert "dog" in message and "dgo" in message


def test_labels_needed_and_absent(tmp_path: Path, refuse: Refuse) -> None:
    write_images(tmp_path / "flat", 4)
    message = refuse("data=folder", f"data_dir={tmp_path / 'flat'}", config="convit_supervised")
    assert "needs labels" in message and "convit_dino" in message


def test_more_processes_than_images(tmp_path: Path, refuse: Refuse) -> None:
    write_images(tmp_path / "flat", 3)
    message = refuse("data=folder", f"data_dir={tmp_path / 'flat'}", "run.processes=4")
    assert "4 processes for 3 images: use at most 3" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_asked_for_and_absent(refuse: Refuse) -> None:
    assert "no GPU that PyTorch can use; add run=cpu" in refuse("run.device=cuda")


def test_debug_gives_the_traceback() -> None:
    with pytest.raises(UserError, match=r"optim\.lrr"):
        run_command("train", ["config=convit_dino", *SMALL, "optim.lrr=1", "--debug"])


def test_the_real_command_says_it_in_one_message_and_imports_nothing_heavy(tmp_path: Path) -> None:
    probe = (
        "import atexit, runpy, sys\n"
        "heavy = ('torch', 'vissl', 'matplotlib', 'sklearn', 'timm', 'torchvision')\n"
        "atexit.register(lambda: print('loaded', [m for m in heavy if m in sys.modules]))\n"
        f"sys.argv = [{str(TOOL)!r}, 'config=convit_dino', 'data=digits', 'optim.lrr=1']\n"
        f"runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.endswith(" s")]
    assert said == ["convit-ssl train: unknown option 'optim.lrr'; did you mean 'optim.lr'?"]
    assert done.stdout.splitlines() == ["loaded []"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "config=convit_dino", *SMALL, "run.compile=true", "run.root=runs"),
        ("bench", "model", "--sizes", "nano", "--sides", "32", "--compile"),
    ],
)
def test_no_compiler_on_the_machine(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("convit-ssl"), *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=300,
        env={
            **{name: value for name, value in os.environ.items() if name not in ("CC", "CXX")},
            "PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        },
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "torch.compile does not work here" in done.stderr
    assert "No working C++ compiler found" in done.stderr
    assert "g++" in done.stderr and "compile" in done.stderr.splitlines()[-1]
