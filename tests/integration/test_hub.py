"""Weights by their name on a hub: a server on this machine stands where the hub would."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from convit_ssl.export import load_trunk
from convit_ssl.export.trunk import export_trunk
from convit_ssl.models import ConViT, ConViTConfig
from tests.quick_run import TINY, TOOL

TRUNK = ConViTConfig(
    img_size=8, patch_size=4, num_classes=0, embed_dim=32, depth=3, num_heads=4, num_gpsa_layers=2
)
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)")

Command = Callable[..., subprocess.CompletedProcess[str]]


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that fetching a public file takes.

    Source: huggingface_hub's file_download.py, which reads these headers.
    """

    def __init__(self, root: Path, *args: object) -> None:
        self.root = root
        super().__init__(*args)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.head()

    def do_GET(self) -> None:
        self.wfile.write(self.head())

    def head(self) -> bytes:
        """Send status and headers; the file's bytes, none where there is no file."""
        wanted = FILE.fullmatch(self.path.split("?")[0])
        path = self.root / wanted[1] / wanted[2] if wanted else self.root
        found = path.is_file()
        content = path.read_bytes() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(content)))
        if found:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        else:
            known = path.parent.is_dir()
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.end_headers()
        return content

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Path, Command]]:
    """The hub's folder, and how a command is run that knows no other hub."""
    root = tmp_path / "hub"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, root))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
    }

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path,
        )  # fmt: skip

    yield root, command
    server.shutdown()
    server.server_close()


CLI = ("-m", "convit_ssl.cli.main")


@pytest.fixture
def published(hub: tuple[Path, Command]) -> ConViT:
    """A trunk of ours on the hub, as timm and as the hub's own mixin would have it."""
    torch.manual_seed(3)
    model = ConViT(TRUNK).eval()
    export_trunk(model, ["timm", "hf"], hub[0] / "lab")
    return model


def test_a_trunk_is_imported_by_its_name(
    hub: tuple[Path, Command], published: ConViT, tmp_path: Path
) -> None:
    _, command = hub
    done = command(*CLI, "import", "hf-hub:lab/timm", "--out", "mine.safetensors")
    assert done.returncode == 0, done.stderr
    assert "from hf-hub:lab/timm" in done.stdout
    assert "not loaded: nothing" in done.stdout
    mine = load_trunk(tmp_path / "mine.safetensors").state_dict()
    assert all(torch.equal(value, mine[key]) for key, value in published.state_dict().items())


def test_timms_own_names(hub: tuple[Path, Command], tmp_path: Path) -> None:
    root, command = hub
    torch.manual_seed(4)
    theirs = timm.create_model("convit_tiny")
    (root / "timm" / "convit_tiny.fb_in1k").mkdir(parents=True)
    save_file(theirs.state_dict(), root / "timm" / "convit_tiny.fb_in1k" / "model.safetensors")
    done = command(*CLI, "import", "timm:convit_tiny", "--out", "mine.safetensors")
    assert done.returncode == 0, done.stderr
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert load_trunk(tmp_path / "mine.safetensors")(image) == pytest.approx(
            theirs.eval()(image), abs=1e-5
        )


def test_an_experiment_starts_from_a_name(hub: tuple[Path, Command], published: ConViT) -> None:
    _, command = hub
    options = [*TINY.split(), "trunk.num_heads=4", "run.root=.", "optim.epochs=1"]
    done = command(str(TOOL), *options, "weights=hf-hub:lab/timm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hf-hub:lab/timm" in done.stdout


def test_the_mixin_loads_by_name(hub: tuple[Path, Command], published: ConViT) -> None:
    _, command = hub
    script = (
        "from convit_ssl.export.hub import HubConViT\n"
        "print(sum(p.double().sum().item() for p in HubConViT.from_pretrained('lab/hf')"
        ".parameters()))"
    )
    done = command("-W", "ignore", "-c", script)
    assert done.returncode == 0, done.stderr
    total = sum(p.double().sum().item() for p in published.parameters())
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(total, rel=1e-12)


def test_a_name_that_the_hub_does_not_know(hub: tuple[Path, Command], tmp_path: Path) -> None:
    _, command = hub
    done = command(*CLI, "import", "hf-hub:lab/nothing", "--out", "mine.safetensors")
    assert done.returncode == 2
    assert "hf-hub:lab/nothing could not be fetched (RepositoryNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mine.safetensors").exists()
