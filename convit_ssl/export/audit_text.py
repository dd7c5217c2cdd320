"""An audit for a reader."""

from __future__ import annotations

from statistics import fmean

from convit_ssl.export.audit import Audit, LayerAudit

_STATES = {
    "initial": "convolutional, as made",
    "trained": "convolutional, trained",
    "missing": "random, never trained",
    "untraceable": "trained, no trace of it",
}


def audit_text(report: Audit, heads: bool = False) -> str:
    """The audit as lines of text.

    Args:
        report: what `audit_trunk` found.
        heads: a line for each head as well.
    """
    lines = [report.what, f"  from {report.source}, {report.weights} weights"]
    if report.method:
        epoch = "" if report.epoch is None else f", epoch {report.epoch}"
        lines.append(f"  trained by {report.method}{epoch}")
    lines.append(f"  fingerprint {report.fingerprint[:16]}")
    if report.layers:
        lines += ["", *_table(report.layers)]
        if heads:
            lines += ["", *_heads(report.layers)]
    lines.append("")
    lines += [f"  note: {note}" for note in report.notes]
    lines += [f"  PROBLEM: {problem}" for problem in report.problems]
    if not report.problems:
        lines.append("  sound: " + _sound(report))
    return "\n".join(lines)


def _sound(report: Audit) -> str:
    if not report.layers:
        return "weights are finite; there are no GPSA layers"
    return "weights are finite, and the convolutional init is there or was trained from"


def _table(layers: list[LayerAudit]) -> list[str]:
    rows = ["  block  ||v-I||  diag(v)  width  distance  kernel  gates        convolutional init"]
    for layer in layers:
        peaks = [width for width in layer.widths if width is not None]
        width = f"{fmean(peaks):.2f}" if len(peaks) == len(layer.widths) else "none"
        gates = f"{min(layer.gates):.2f} - {max(layer.gates):.2f}" if layer.gates else "none"
        rows.append(
            f"  {layer.index:>5}  {layer.identity_distance:>7.2f}  {layer.identity_trace:>7.3f}"
            f"  {width:>5}  {fmean(layer.distances):>8.2f}  {'square' if layer.square else '-':<6}"
            f"  {gates:<11}  {_STATES[layer.state]}"
        )
    rows.append(
        "  width: standard deviation of the positional attention; distance: its mean from the"
    )
    rows.append("  query; both in patches. kernel: whether the heads' centres form a square.")
    return rows


def _heads(layers: list[LayerAudit]) -> list[str]:
    rows = ["  block  head  centre (dx, dy)  width  distance   gate"]
    for layer in layers:
        for head, centre in enumerate(layer.centres):
            place = "none" if centre is None else f"{centre[0]:+.2f}, {centre[1]:+.2f}"
            width = layer.widths[head]
            gate = f"{layer.gates[head]:.3f}" if layer.gates else "none"
            rows.append(
                f"  {layer.index:>5}  {head:>4}  {place:>15}  "
                f"{'none' if width is None else f'{width:.2f}':>5}  {layer.distances[head]:>8.2f}"
                f"  {gate:>5}"
            )
    return rows
