"""``bench builds``: the same training by today's source and by an earlier commit's, or a peer's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convit_ssl.bench import peers
from convit_ssl.bench.processes import run_timed
from convit_ssl.bench.report import TableOf
from convit_ssl.children import SAFE
from convit_ssl.errors import UserError
from convit_ssl.evaluation.features.feature_set import load_features
from convit_ssl.evaluation.paired import over_seeds
from convit_ssl.evaluation.probes.knn import evaluate_knn
from convit_ssl.evaluation.probes.linear import evaluate_linear
from convit_ssl.models.products import SWITCH
from convit_ssl.runs import RunFolder
from convit_ssl.starting import working_on

ROOT = Path(__file__).resolve().parents[2]
TODAY, EARLIER = "today", "earlier"
PROBES = {"knn_5": "5-NN", "knn": "kNN", "linear": "linear probe"}
NOTES = [
    "Each arm is `convit-ssl train` with one thread and no loader workers, in a process of "
    "its own; arms take turns, seed by seed. Core-seconds are the processor time of that "
    "process and its children from start to end, including imports and evaluation during "
    "training; they depend far less on the load of the machine than seconds do. Each build "
    "uses its own defaults for options that the command does not set. Features, kNN and the "
    "linear probe are computed by today's code for all arms and are not timed.",
    "Share of the time: the mean over seeds of the ratio to the earlier build. To the "
    "earlier's accuracy: the shortest of today's runs whose mean accuracy is at least that of "
    "the earlier build. Differences are paired by seed, with Student's t interval (95 %).",
    "lightly: its SimCLR as its own PyTorch example trains it (views, head, loss, SGD at 0.06, "
    "batch 256), on timm's plain ViT of the same width, depth, heads, patches and crop size as "
    "today's network; lightly-adamw is the same with AdamW at 1e-3.",
    f"Without oneDNN: `{SWITCH}=0`, today's build with matrix products by PyTorch's BLAS; this "
    "matters with `run.precision=fp32`.",
]


@dataclass(frozen=True)
class Setting:
    """What is trained by each build.

    Attributes:
        method: of ``configs/config``, without ``convit_``.
        data: a built-in data set, or a kind of folder with `data_dir`.
        data_dir: None for built-in data.
        trunk: of ``configs/trunk``.
        overrides: further ``key=value`` that both builds know.
        today: those of today's build alone.
    """

    method: str
    data: str
    data_dir: str | None
    trunk: str
    overrides: tuple[str, ...] = ()
    today: tuple[str, ...] = ()

    def run(self, epochs: int, seed: int, folder: Path, earlier: bool = False) -> list[str]:
        """All words of the command line of a run."""
        own = () if earlier else self.today
        words = [*self.words(), *own, f"optim.epochs={epochs}", f"seed={seed}"]
        return [*words, f"run.dir={folder}"]

    def words(self) -> list[str]:
        """Those that all runs have."""
        found = [f"config=convit_{self.method}", f"data={self.data}", "run=cpu"]
        found += [f"trunk={self.trunk}", "run.threads=1", "data.workers=0"]
        found += [f"data_dir={self.data_dir}"] if self.data_dir else []
        return [*found, *self.overrides]


@dataclass(frozen=True)
class Arm:
    """One contender.

    Attributes:
        name: in tables.
        source: folder of the build's repository.
        epochs: of its training.
        onednn: whether oneDNN may multiply in float32.
    """

    name: str
    source: Path
    epochs: int
    onednn: bool = True

    def line(self, setting: Setting, seed: int, run: Path) -> list[str]:
        """The command that trains it into a folder."""
        line = [sys.executable, "-m", "convit_ssl.cli.main", "train"]
        return [*line, *setting.run(self.epochs, seed, run, self.name == EARLIER)]


@dataclass(frozen=True)
class PeerArm(Arm):
    """Another library's training.

    Attributes:
        command: without epochs, seed and folder.
    """

    command: tuple[str, ...] = ()

    def line(self, setting: Setting, seed: int, run: Path) -> list[str]:
        """The command that trains it into a folder."""
        ends = {"--epochs": self.epochs, "--seed": seed, "--out": run}
        return [*self.command, *(str(word) for pair in ends.items() for word in pair)]


def arms(first: Arm, today_epochs: Sequence[int], without_onednn: bool = False) -> list[Arm]:
    """What today's build is compared with, and today's.

    Args:
        first: the earlier build, or a peer.
        today_epochs: of today's, one arm for each.
        without_onednn: today's once more, for as long as the first, without oneDNN.
    """
    found = [first, *(Arm(TODAY, ROOT, number) for number in today_epochs)]
    if without_onednn:
        found.append(Arm(f"{TODAY}, without oneDNN", ROOT, first.epochs, onednn=False))
    return found


def opponent(setting: Setting, against: str, epochs: int, folder: Path) -> tuple[Arm, str]:
    """What today's build is compared with, and its name or its commit.

    Args:
        setting: of the trainings.
        against: a name in `peers.PEERS`, or a commit.
        epochs: of its training.
        folder: for a checkout.

    Raises:
        UserError: it is not here, or trains with another method.
    """
    if against not in peers.PEERS:
        return Arm(EARLIER, folder, epochs), check_out(against, folder)
    if setting.method != "simclr":
        raise UserError(f"--against {against} compares SimCLR: give --methods simclr")
    name = peers.version(against)
    network = peers.Network.beside(setting.words())
    subsets = [word.partition("=")[2] for word in setting.overrides if "data.subset=" in word]
    line = peers.command(against, network, setting.data, setting.data_dir, *subsets[-1:])
    return PeerArm(EARLIER, ROOT, epochs, command=tuple(line)), name


def check_out(against: str, folder: Path) -> str:
    """Check a commit of this source's repository out into a folder, which needs git.

    Args:
        against: whatever git takes for a commit.
        folder: to be made.

    Returns:
        The commit's full name.

    Raises:
        UserError: not run from a git checkout, or the commit does not exist.
    """
    if not (ROOT / ".git").exists():
        raise UserError(
            f"bench builds compares with an earlier commit, and {ROOT} is not a git checkout; "
            "clone the repository and run it there"
        )
    wanted = _git(ROOT, "rev-parse", "--verify", "--quiet", f"{against}^{{commit}}")
    if wanted is None:
        raise UserError(
            f"--against {against}: the repository {ROOT} has no such commit; "
            "`git log --oneline` lists them, `git fetch --unshallow` completes a shallow clone"
        )
    copied = _git(ROOT, "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder))
    if copied is None or _git(folder, "checkout", "--quiet", "--detach", wanted) is None:
        raise UserError(f"git could not check {against} out into {folder}")
    return wanted


def _git(root: Path, *words: str) -> str | None:
    """What git prints, None where it fails or is absent."""
    command = ["git", "-C", str(root), *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def measure(
    setting: Setting,
    against: str,
    epochs: int,
    today_epochs: Sequence[int],
    seeds: Sequence[int],
    linear: bool,
    without_onednn: bool,
) -> dict[str, Any]:
    """Train all arms with all seeds, and measure their features.

    Raises:
        UserError: a command line that one of the builds refuses, with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="convit_ssl-builds-") as folder:
        place = Path(folder)
        first, name = opponent(setting, against, epochs, place / "source")
        contenders = arms(first, today_epochs, without_onednn)
        results: list[list[dict[str, Any]]] = [[] for _ in contenders]
        for seed in seeds:
            for number, arm in enumerate(contenders):
                run = place / f"run_{number}_{seed}"
                with working_on(f"{_title(arm.name, arm.epochs)}, seed {seed}"):
                    found = _train(arm, setting, seed, run)
                    _check_source(arm, found["commit"], name)
                    found |= _probe(run, setting, place / f"features_{number}_{seed}", linear)
                results[number].append(found)
                said = ", ".join(f"{PROBES[k]} {100 * found[k]:.1f}" for k in PROBES if k in found)
                print(f"{_title(arm.name, arm.epochs)}, seed {seed}: "
                      f"{found['core_seconds']:.0f} core-seconds, {said}", flush=True)  # fmt: skip
    return {
        "training": setting.words(),
        **({"today_set": list(setting.today)} if setting.today else {}),
        "against": name,
        "epochs": epochs,
        "seeds": list(seeds),
        "rows": [
            {"arm": arm.name, "epochs": arm.epochs, "runs": found}
            for arm, found in zip(contenders, results, strict=True)
        ],
    }


def _environment(arm: Arm) -> dict[str, str]:
    """In which ``python -m`` finds this build, and nothing of the current folder."""
    found = {**os.environ, SAFE: "1", "PYTHONPATH": str(arm.source), "OMP_NUM_THREADS": "1"}
    if isinstance(arm, PeerArm):  # wherever this process has it from
        found["PYTHONPATH"] = os.pathsep.join([str(arm.source), *filter(None, sys.path)])
    if not arm.onednn:
        found[SWITCH] = "0"
    return found


def _train(arm: Arm, setting: Setting, seed: int, run: Path) -> dict[str, Any]:
    """Core-seconds and seconds of one run."""
    line = arm.line(setting, seed, run)
    code, spent, seconds = run_timed(line, _environment(arm), run.with_suffix(".log"))
    result = {} if isinstance(arm, PeerArm) else RunFolder(run).read_result()
    if code or result is None:
        said = run.with_suffix(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        raise UserError(
            f"{_title(arm.name, arm.epochs)}: `python {' '.join(line[1:])}` ended with "
            f"exit code {code}: {' '.join(said[-3:])}"
        )
    return {
        "seed": seed,
        "core_seconds": round(spent, 2),
        "seconds": round(seconds, 2),
        "commit": result.get("commit"),
    }


def _check_source(arm: Arm, ran: str | None, wanted: str) -> None:
    """Refuse figures of an installed package that hid the earlier source."""
    if arm.name == EARLIER and not isinstance(arm, PeerArm) and ran != wanted:
        raise UserError(
            f"python ran {ran} instead of {wanted}: another convit_ssl comes before PYTHONPATH "
            "here; run this in an environment that has no installed copy"
        )


def _probe(run: Path, setting: Setting, features: Path, linear: bool) -> dict[str, float]:
    """Accuracies of a run's features, all by today's code."""
    line = [sys.executable, "-m", "convit_ssl.cli.main", "features", str(run)]
    line += ["--data", setting.data, "--out", str(features), "--workers", "0"]
    if setting.data_dir:
        line += ["--data-dir", setting.data_dir]
    log = features.with_suffix(".log")
    code, _, _ = run_timed(line, _environment(Arm(TODAY, ROOT, 0)), log)
    if code:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise UserError(f"`convit-ssl {' '.join(line[3:])}` failed: {' '.join(said[-3:])}")
    train, val = (load_features(features / split) for split in ("train", "val"))
    near = evaluate_knn(train, val, device="cpu")
    found = {"knn_5": near.majority.value, "knn": near.accuracy[near.headline].value}
    if linear:
        found["linear"] = evaluate_linear(train, val, device="cpu").accuracy.value
    return found


def _title(name: str, epochs: int) -> str:
    return f"{name}, {epochs} epoch{'s' if epochs != 1 else ''}"


def table(comparison: dict[str, Any]) -> TableOf:
    """Time and accuracy of each arm beside the earlier build's."""
    rows = comparison["rows"]
    probes = [name for name in PROBES if name in rows[0]["runs"][0]]
    against = shown(comparison["against"])
    columns = ["build", "core-seconds", "share of the time"]
    less = "less the earlier's" if against != comparison["against"] else "less lightly's"
    columns += [text for name in probes for text in (f"{PROBES[name]}, %", less)]
    lines = []
    for row in rows:
        pairs = list(zip(row["runs"], rows[0]["runs"], strict=True))
        spent = [run["core_seconds"] for run in row["runs"]]
        shares = [run["core_seconds"] / other["core_seconds"] for run, other in pairs]
        name = against if row["arm"] == EARLIER else row["arm"]
        line = [_title(name, row["epochs"]), f"{_mean(spent):.0f}", _interval(shares, "{:.2f}")]
        for probe in probes:
            points = [100 * (run[probe] - other[probe]) for run, other in pairs]
            line.append(f"{100 * _mean([run[probe] for run in row['runs']]):.1f}")
            line.append("" if row is rows[0] else _interval(points, "{:+.1f}"))
        lines.append(line)
    lines += [_reached(comparison, probe, len(columns)) for probe in probes]
    seeds = ", ".join(map(str, comparison["seeds"]))
    own = " ".join(comparison.get("today_set", []))
    title = " ".join(comparison["training"]) + (f", today with {own}" if own else "")
    return f"{title}, seeds {seeds}", columns, lines


def shown(against: str) -> str:
    """A commit in short, or a peer's name."""
    return against[:7] if re.fullmatch(r"[0-9a-f]{8,40}", against) else against


def joined(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Comparisons that differ in nothing but their seeds, as one."""
    found: dict[str, dict[str, Any]] = {}
    for comparison in comparisons:
        arms_of = [(row["arm"], row["epochs"]) for row in comparison["rows"]]
        equal = [comparison[name] for name in ("training", "against", "epochs")]
        key = repr((equal, comparison.get("today_set"), arms_of))
        if key not in found:
            found[key] = comparison
            continue
        before = found[key]
        rows = [
            {**one, "runs": [*one["runs"], *other["runs"]]}
            for one, other in zip(before["rows"], comparison["rows"], strict=True)
        ]
        seeds = [*before["seeds"], *comparison["seeds"]]
        found[key] = {**before, "seeds": seeds, "rows": rows}
    return list(found.values())


def _reached(comparison: dict[str, Any], probe: str, width: int) -> list[str]:
    """The shortest run of today's build whose mean accuracy is the earlier build's, or more."""
    rows = comparison["rows"]
    wanted = _mean([run[probe] for run in rows[0]["runs"]])
    name = f"to {PROBES[probe]} of {shown(comparison['against'])} ({100 * wanted:.1f} %)"
    ours = sorted((row for row in rows if row["arm"] == TODAY), key=lambda row: int(row["epochs"]))
    for row in ours:
        if _mean([run[probe] for run in row["runs"]]) < wanted:
            continue
        pairs = zip(row["runs"], rows[0]["runs"], strict=True)
        shares = [run["core_seconds"] / other["core_seconds"] for run, other in pairs]
        spent = _mean([run["core_seconds"] for run in row["runs"]])
        found = [f"{name}: {_title(TODAY, row['epochs'])}", f"{spent:.0f}"]
        return [*found, _interval(shares, "{:.2f}"), *[""] * (width - 3)]
    tried = ", ".join(str(row["epochs"]) for row in ours)
    return [f"{name}: not by {tried} epochs", *[""] * (width - 1)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(values: Sequence[float], form: str) -> str:
    """Mean with its interval, where there are seeds enough and they differ."""
    if len(values) < 2 or len(set(values)) == 1:
        return form.format(_mean(values))
    found = over_seeds(values)
    low, high = form.format(found.low), form.format(found.high)
    return f"{form.format(found.value)} ({low} to {high})"
