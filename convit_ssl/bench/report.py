"""Tables of the benchmarks, on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.box import SIMPLE
from rich.table import Table

from convit_ssl.bench.contenders import CONTENDERS
from convit_ssl.terminal import Terminal
from convit_ssl.writing import whole_file

TableOf = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # title, columns, lines

MODEL_COLUMNS = (
    "network", "ms / image", "quartiles", "images/s", "ours is", "at best", "saved MiB",
    "+ a step", "ops", "peak MiB", "MFU", "of GEMM",
)  # fmt: skip
ONLY_IN_FILES = ("quartiles", "+ a step")


def model_title(comparison: dict[str, Any]) -> str:
    """The setting of a comparison of models, as a title."""
    s = comparison["setting"]
    how = ", compiled" if s["compiled"] else ""
    return f"{s['size']} at {s['side']} px, batch {s['batch']}, {s['dtype']}, {s['mode']}{how}"


def model_cells(comparison: dict[str, Any]) -> list[list[str]]:
    """One line for each contender."""
    lines = []
    eager = not comparison["setting"]["compiled"]  # a compiler chooses what to save
    for row in comparison["rows"]:
        low, high = row["quartiles"]
        lines.append(
            [
                CONTENDERS[row["name"]],
                _milliseconds(row["milliseconds"]),
                f"{_milliseconds(low)}-{_milliseconds(high)}",
                f"{row['images_per_s']:.1f}",
                "" if row["name"] == "ours" else f"{row['ours_is_faster']:.2f} x",
                "" if row["name"] == "ours" else f"{row['ours_is_faster_at_best']:.2f} x",
                _or_dash(row["saved_mib"] if eager else None, ".1f"),
                _or_dash(row["saved_mib_per_step"] if eager else None, ".1f"),
                _or_dash(row["operations"], "d"),
                _or_dash(row["peak_mib"], ".0f"),
                _or_dash(row["mfu"], ".1%"),
                _or_dash(row["of_ceiling"], ".1%"),
            ]
        )
    nothing = ["-"] * (len(MODEL_COLUMNS) - 1)
    lines += [
        [f"{CONTENDERS[name]}: out of memory", *nothing]
        for name in comparison.get("out_of_memory", [])
    ]
    return lines


def _milliseconds(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.4f}"


RATIO_TITLE = "Speed and saved memory relative to the others"
RATIO_COLUMNS = (
    "size", "px", "dtype", "pass", "batch", "timm's ConViT", "VISSL's ConViT", "plain ViT",
    "saved / timm's", "saved / ViT's",
)  # fmt: skip


def ratio_cells(comparisons: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One line for each setting."""
    lines = []
    for comparison in comparisons:
        s, rows = comparison["setting"], {row["name"]: row for row in comparison["rows"]}
        speeds = [
            f"{rows[name]['ours_is_faster']:.2f} x" if name in rows else "-"
            for name in ("timm", "vissl", "vit")
        ]
        memory = [
            f"{rows['ours']['saved_mib'] / rows[name]['saved_mib']:.2f}"
            if name in rows and s["mode"] == "training" and not s["compiled"]
            else "-"
            for name in ("timm", "vit")
        ]
        how = f"{s['mode']}, compiled" if s["compiled"] else s["mode"]
        lines.append(
            [s["size"], str(s["side"]), s["dtype"], how, str(s["batch"]), *speeds, *memory]
        )
    return lines


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def print_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table on the terminal, without its empty columns."""
    # Some columns are left to the files, so that the table fits into 80 characters.
    shown = [i for i in _shown(columns, lines) if columns[i] not in ONLY_IN_FILES]
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i in shown:
        justify: Literal["left", "right"] = "left" if _is_text(lines, i) else "right"
        table.add_column(columns[i], justify=justify, no_wrap=i == 0)
    for line in lines:
        table.add_row(*(line[i] for i in shown))
    Terminal().print(table)


def _is_text(lines: Sequence[Sequence[str]], column: int) -> bool:
    return column == 0 or any(line[column][:1].isalpha() for line in lines)


def _shown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[int]:
    return [i for i in range(len(columns)) if any(line[i] not in ("", "-") for line in lines)]


def write_markdown(
    path: str | None,
    heading: str,
    record: dict[str, Any],
    tables: Sequence[TableOf],
    notes: Sequence[str] = (),
) -> None:
    """Write the tables as a page, with the commands that made them.

    Args:
        path: of the page; None or "" writes none.
        heading: of the page.
        record: of `make_record`.
        tables: title, columns and lines of each.
        notes: paragraphs between heading and tables.
    """
    if not path:
        return
    last = record["runs"][-1]
    machine = last["hardware"]
    lines = [
        f"# {heading}",
        "",
        *(line for about in record["runs"] for line in _made_by(about)),
        f"{machine['cpu']}, {machine['cores']} cores, {_threads(last['threads'])}; "
        + (f"{', '.join(machine['gpus'])}; " if machine["gpus"] else "")
        + ", ".join(f"{name} {version}" for name, version in last["versions"].items())
        + ".",
        "",
        *(line for note in notes for line in (note, "")),
    ]
    for title, columns, body in tables:
        shown = _shown(columns, body)
        lines += [f"## {title}", ""]
        lines.append("| " + " | ".join(columns[i] for i in shown) + " |")
        texts = {i for i in shown if _is_text(body, i)}
        lines.append("|" + "|".join("---" if i in texts else "---:" for i in shown) + "|")
        lines += ["| " + " | ".join(row[i] for i in shown) + " |" for row in body]
        lines.append("")
    _write_text(path, "\n".join(lines))
    print(f"written: {path}")


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"


def _made_by(about: dict[str, Any]) -> list[str]:
    load = about["load_average"][0]
    return [
        f"`{' '.join(about['command'])}`  ",
        f"{about['date']}, commit {about['commit']}, load average at the end {load}.",
        "",
    ]


def _write_text(path: str, text: str) -> None:
    with whole_file(path) as partial:
        partial.write_text(text)
