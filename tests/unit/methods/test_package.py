"""What the package of methods gives to those who import it."""

from __future__ import annotations


def test_names_of_all_methods_come_with_the_package() -> None:
    """`from convit_ssl.methods import *` gives the heads and losses of each method, too."""
    names: dict[str, object] = {}
    exec("from convit_ssl.methods import *", names)
    for name in ("MoCoV3Head", "BarlowTwinsLoss", "DINOLoss", "SwAVLoss", "VICRegLoss"):
        assert name in names, name
