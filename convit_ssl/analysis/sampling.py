"""Choose the images that a report looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convit_ssl.analysis.images import bounded, in_channels, in_colours, measured, open_image
from convit_ssl.analysis.runs import Run, find_value
from convit_ssl.analysis.summary import LabelledImage, Sample
from convit_ssl.data import open_dataset
from convit_ssl.data.listing.division import FILE, DivisionSpec
from convit_ssl.data.listing.names import some
from convit_ssl.data.listing.tables import read_table
from convit_ssl.data.reading.channel_reading import channel_names
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.errors import UserError


def recorded_data(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Name and folder of the data set that a run was trained on; of either None if unknown.

    Args:
        config: the run's options, as it wrote them.
    """
    data = config.get("data")
    name = data.get("name") if isinstance(data, dict) else data
    name = name if isinstance(name, str) else None
    folder = config.get("data_dir") or find_value(config, "data_dir")
    return name, folder if isinstance(folder, str) and folder else None


def recorded_annotations(folder: Path, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Labels and groups of a run's images, as ``--labels`` and ``--group-by`` take them.

    The run's own `split.csv` has both; the table that they came from may be gone since.

    Args:
        folder: of the run.
        config: the run's options, as it wrote them.

    Raises:
        UserError: `split.csv` cannot be read.
    """
    data = config.get("data")
    data = data if isinstance(data, Mapping) else {}
    labels, groups = (text if isinstance(text, str) else None
                      for text in (data.get("labels"), data.get("group_by")))  # fmt: skip
    split = folder / FILE
    if not split.is_file() or not (labels or data.get("split")):
        return labels, groups
    columns = read_table(str(split))
    by_column = bool(groups and groups.startswith("column:"))
    if not any(columns.get("label", ())) or (by_column and not all(columns.get("group", ()))):
        return labels, groups  # images without a label have no group there
    return f"{split}:file,label,group", "column:group" if by_column else groups


def recorded_reading(run: Run) -> Reading:
    """How image files became pixels in a run's training; the default where nothing is said."""
    return Reading.of(run.config.get("data"))


def open_sample(
    data: str | None,
    data_dir: str | None,
    split: str | None = None,
    images: int = 300,
    pictures: Sequence[Path] = (),
    shown: int = 4,
    reading: Reading | None = None,
    show: Sequence[int | str] | None = None,
    colour_map: str | None = None,
    labels: str | None = None,
) -> tuple[Sample | None, str | None]:
    """A sample spread evenly over a data set, and what went wrong with it, in one sentence.

    Args:
        data: name of a data set; None leaves features out.
        data_dir: its folder, for data sets that need one.
        split: split to use (default: val if there is one).
        images: how many to describe features on.
        pictures: files to draw attention maps of; `shown` of the sample by default.
        shown: see `pictures`.
        reading: how files become 8-bit RGB, or channels.
        show: channels that are shown as red, green and blue, by number from 0 on or by name.
        colour_map: of matplotlib, for images of one channel.
        labels: of the images, as `recorded_annotations` gives them; of their folders by default.

    Raises:
        UserError: a file of `pictures` cannot be opened.
    """
    chosen = [
        (path.name, open_image(path, reading, show=show, colour_map=colour_map))
        for path in pictures
    ]
    labelled, classes, source, problem = _labelled(
        data, data_dir, split, images, reading, show, colour_map, labels
    )
    if not labelled and not chosen:
        return None, problem or "No images: give --data or --image."
    if not chosen:
        places = np.unique(np.linspace(0, len(labelled) - 1, shown).round().astype(int))
        reading = reading or Reading()
        chosen = [
            (each.name, measured(each.image, each.path, reading))
            for each in (labelled[i] for i in places)
        ]
    return Sample(chosen, labelled, classes, source), problem


def _labelled(
    data: str | None,
    data_dir: str | None,
    split: str | None,
    images: int,
    reading: Reading | None,
    show: Sequence[int | str] | None,
    colour_map: str | None,
    labels: str | None,
) -> tuple[list[LabelledImage], list[str], str, str | None]:
    if data is None:
        unknown = "The data set is unknown, so features are not shown (give --data)."
        return [], [], "pictures given", unknown
    problem = None
    annotated = DivisionSpec(labels=labels, unlabelled=True) if labels else None
    for name in [split] if split else ["val", "train"]:
        try:
            dataset = open_dataset(
                data, data_dir, name, reading=reading, max_corrupt=1.0, replace=False,
                division=annotated,
            )  # fmt: skip
        except UserError as error:
            problem = str(error)
            continue
        places = np.unique(np.linspace(0, len(dataset) - 1, images).round().astype(int))
        labelled, unread = [], []
        names: tuple[str, ...] | None = None
        for place in places:
            image, target, index = dataset[int(place)]
            file = dataset.files[int(place)]
            if index < 0:
                unread.append(file)
                continue
            if dataset.reading.native:
                if names is None:
                    names = _names(dataset.path(int(place)), dataset.reading)
                image = in_channels(image, dataset.reading, show, colour_map, names)
            else:
                in_colours(image, show, colour_map)
            title, path = file.rsplit("/", 1)[-1], dataset.path(int(place))
            labelled.append(LabelledImage(bounded(image), target, title, path))
        return labelled, list(dataset.classes), f"{data}, {name}", _unreadable(unread, len(places))
    return [], [], "pictures given", f"No images of data={data}: {problem}"


def _names(path: str, reading: Reading) -> tuple[str, ...]:
    try:
        return channel_names(path, reading)
    except Exception:  # what libraries raise; a page without names is still a page
        return ()


def _unreadable(files: Sequence[str], images: int) -> str | None:
    if not files:
        return None
    return (
        f"{len(files)} of the {images} sampled images cannot be read, and are left out: "
        f"{some(files)}."
    )
