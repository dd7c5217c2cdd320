"""Which folders of a collection are its splits: train, val and test, under their usual names."""

from __future__ import annotations

from pathlib import Path

from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.walking import entries, holds_images
from convit_ssl.data.notes import note_once
from convit_ssl.errors import UserError

# In any case: Train, VAL.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
SPLITS = tuple(SPLIT_NAMES)


def check_split(split: str) -> None:
    """Refuse a word that is not a split.

    Raises:
        UserError: with the words that are.
    """
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; it is 'train', 'val' or 'test'")


def find_splits(folder: Path) -> dict[str, str]:
    """The folders of the splits: split -> name; empty if there are none.

    Without a folder of train, only ``val`` counts: ``valid`` beside ``invalid`` is a class.
    Where there is no val, test stands for it.

    Raises:
        UserError: two folders for one split, or a train folder that may be a class.
    """
    folders = entries(folder).folders
    found: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        here = [name for name in folders if name.lower() in names]
        if len(here) > 1:
            raise UserError(
                f"{folder} holds {' and '.join(f'{name}/' for name in here)}, which could both be "
                f"{split}; rename or move all but one"
            )
        if here:
            found[split] = here[0]
    if "train" not in found:
        return {"val": found["val"]} if found.get("val", "").lower() == "val" else {}
    others = [name for name in folders if name not in found.values()]
    beside = [name for name in others if holds_images(folder / name)]
    if len(found) == 1:
        _check_not_a_class(folder, found["train"], beside)
    _say(folder, found, beside)
    if "val" not in found and "test" in found:
        found["val"] = found["test"]
    return found


def _check_not_a_class(folder: Path, train: str, beside: list[str]) -> None:
    """A class may be called train: vehicles have one."""
    if beside and entries(folder / train).images:
        raise UserError(
            f"{folder} holds {train}/ with images directly in it, beside {some(beside)}: if these "
            f"are classes, move all of them into {folder / 'train'}/; if {train}/ holds the images "
            "to train on, move the others elsewhere"
        )


def _say(folder: Path, found: dict[str, str], beside: list[str]) -> None:
    unusual = [f"{name}/ as {split}" for split, name in found.items() if name != split]
    if "val" not in found and "test" in found:
        unusual.append(f"{found['test']}/ as val, too: there is no val/")
    if unusual:
        note_once(f"splits of {folder}: {', '.join(unusual)}")
    if beside:
        note_once(f"not read in {folder}, beside {found['train']}/: {some(beside)}")
