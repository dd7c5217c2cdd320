"""What loader workers would come to hold copies of, since reading an object writes to it."""

from __future__ import annotations

from pathlib import Path

from convit_ssl.data import ImageFiles
from convit_ssl.data.listing.folders import Listing


def test_images_of_a_class_share_the_number_of_their_class(tmp_path: Path) -> None:
    count = 3000
    targets = [int(str(300 + number % 3)) for number in range(count)]  # each one an object
    assert len({id(target) for target in targets}) == count
    listing = Listing(tmp_path, ["a.png"] * count, targets, [str(n) for n in range(303)])
    images = ImageFiles(listing)
    assert images.targets == targets
    assert len({id(target) for target in images.targets}) == 3
