"""Options of ``config=convit_auto``, which races methods before it trains."""

from __future__ import annotations

from dataclasses import dataclass

from convit_ssl.options import option

METHODS = ["vicreg", "simclr", "lejepa"]


@dataclass
class AutoOptions:
    """How ``config=convit_auto`` chooses; other experiments have no use for these."""

    methods: list[str] = option(
        METHODS,
        "Methods that config=convit_auto compares, the preferred one first: it is used if there "
        "is no time for a race.",
        form="names of methods without labels, such as [simclr,vicreg]",
    )
    share: float = option(
        0.25,
        "Time of the race, all trials together, as a fraction of the planned training.",
        unit="fraction of the training", above=0, most=1,
    )  # fmt: skip
    judge: str = option(
        "auto",
        "What decides: labels is kNN on images held out of train; retrieval is finding the other "
        "view of an image, without labels; auto uses labels if there are enough.",
        choices=("auto", "labels", "retrieval"),
    )
    settings: bool = option(
        True, "Also race larger or smaller crops and smaller patches for the best method."
    )
