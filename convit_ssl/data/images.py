"""``ImageFiles``: a folder, or a subset of one, as a PyTorch data set."""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from convit_ssl.data.augment.physical import Drawn
from convit_ssl.data.augment.randomness import RepeatedIndex, sample_seed
from convit_ssl.data.checks.survey import Progress, Survey, survey
from convit_ssl.data.listing.folders import Listing
from convit_ssl.data.listing.names import NameTable
from convit_ssl.data.listing.parts_listing import spread_parts
from convit_ssl.data.listing.scenes import draw_tile, is_tile
from convit_ssl.data.loading.cache import DEFAULT_BYTES, PixelCache, make_cache
from convit_ssl.data.loading.paths import split_member
from convit_ssl.data.loading.retries import may_pass, retried
from convit_ssl.data.loading.samples import DataError, FaultLog, SampleReader, UnreadableImageError
from convit_ssl.data.reading.pixels import Pixels, Reading, image_header
from convit_ssl.data.reading.planes import Scaled
from convit_ssl.data.reading.raw_image import ImageHeader
from convit_ssl.errors import UserError

Transform = Callable[..., Any]
Picture = Image.Image | Pixels | Scaled
Result = TypeVar("Result")

_REPLACEMENTS = 100
_PROBES = 32
_SQUARES = 8
_PHYSICAL_DRAWS = 0x5CA1E  # keeps the place of crops of a physical size apart from other draws


class ImageFiles(Dataset[tuple[Any, int, int]]):
    """Images on disk; ``dataset[i]`` is ``(transform(PIL RGB image), target, i)``.

    An unreadable image is replaced by another one of its class (of any class where it has
    no other), chosen by seed, epoch and index alone. With ``replace=False``, as evaluation needs,
    it is black instead, with -1 as target and index, so that nobody takes it for an image.

    A transform with the attribute ``seeded = True`` is called with ``seed=``, a function
    of (seed, epoch, index); one with ``reads_arrays = True`` gets (H, W, 3) uint8 in
    place of the Pillow image, at least ``min_side`` pixels a side where it has that
    attribute and the file is larger. Where ``reading`` is of native depth, images are float32
    arrays (H, W, C) for every transform.

    Each image (slice, frame) of a file that holds several counts as one of its class.

    Args:
        listing: the files with their targets and classes.
        transform: None returns the Pillow image.
        seed: of augmentation and replacement.
        max_corrupt: tolerated share of unreadable images.
        fault_log: where unreadable images are listed; shared by all processes of a run.
        replace: put another image in the place of an unreadable one.
        subset: how the files were chosen from their folder, for the records.
        cache_bytes: memory for decoded images, used where all of them fit; 0 keeps none. The
            default is 1 GiB for a ``seeded`` transform, which will see each image again, and
            0 for any other.
        reading: how files become 8-bit RGB; by default each image of more than 8 bits is scaled
            by itself.

    Attributes:
        files: paths relative to ``root``, with ``/``.
        targets: class of each image, -1 without label.
        classes: names of the classes.
        reading: as given.
    """

    def __init__(
        self,
        listing: Listing,
        transform: Transform | None = None,
        *,
        seed: int = 0,
        max_corrupt: float = 0.01,
        fault_log: FaultLog | None = None,
        replace: bool = True,
        subset: str | None = None,
        cache_bytes: int | None = None,
        reading: Reading | None = None,
    ) -> None:
        if not listing.files:
            raise UserError(f"no images are left of {listing.root}")
        listing = spread_parts(listing, reading or Reading())
        self.root = listing.root
        self.files = NameTable(listing.files)
        # One number for each class, not for each image: reading one writes its reference count, and
        # every loader worker would come to hold a copy of them all, as in `NameTable`.
        numbers: dict[int, int] = {}
        self.targets = [numbers.setdefault(target, target) for target in listing.targets]
        self.classes = listing.classes
        self.transform = transform
        self.seed = seed
        self.reading = reading or Reading()
        self.replace = replace
        self.subset = subset
        self.reader = SampleReader(
            self.paths, max_corrupt, fault_log, root=self.root, reading=self.reading
        )
        # Shared memory, so that persistent loader workers see a new epoch too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._headers: list[ImageHeader] = []
        self._survey: Survey | None = None
        self._cache: PixelCache | None = None
        if cache_bytes is None:
            cache_bytes = DEFAULT_BYTES if getattr(transform, "seeded", False) else 0
        if cache_bytes > 0 and not self._draws():
            self._cache = self._make_cache(cache_bytes)
        self._by_class: dict[int, np.ndarray[Any, np.dtype[np.int64]]] | None = None

    def _make_cache(self, most: int) -> PixelCache | None:
        """Of native depth only where the channels are known, as in every run."""
        ranges = self.reading.channel_ranges
        if self.reading.native and ranges is None:
            return None
        sizes = [(header.height, header.width) for header in self.probe()]
        channels = len(ranges) if self.reading.native and ranges is not None else None
        return make_cache(sizes, len(self.files), most, channels)

    def share_decoded(self, other: ImageFiles) -> None:
        """Use the decoded images that another data set keeps, where it has the same files."""
        if self._cache is not None or other._cache is None or len(self) != len(other):
            return
        alike = self.root == other.root and self.reading == other.reading
        if alike and all(map(operator.eq, self.files, other.files)):
            self._cache = other._cache

    def __len__(self) -> int:
        return len(self.files)

    @property
    def paths(self) -> NameTable:
        """Full path of every image; a sequence of str."""
        return NameTable(self.files, prefix=os.path.join(self.root, ""))

    def groups(self) -> list[int]:
        """How many images lie together in each shard, in order; empty for single files."""
        if not self.files or split_member(self.path(0)) is None:
            return []
        sizes: dict[str, int] = {}
        for file in self.files:
            shard = file.partition("#")[0]
            sizes[shard] = sizes.get(shard, 0) + 1
        return list(sizes.values())

    @property
    def labelled(self) -> bool:
        """Whether the images have classes."""
        return bool(self.classes)

    @property
    def epoch(self) -> int:
        """The epoch that the next augmentations belong to."""
        return int(self._epoch.item())

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, before the loader's iterator is made."""
        self._epoch.fill_(epoch)

    def path(self, index: int) -> str:
        """Full path of one image."""
        return os.path.join(self.root, self.files[index])

    def digest(self) -> str:
        """SHA-256 over the relative paths: the same for the same choice of the same files."""
        return files_digest(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int, int]:
        position = int(index)
        if not 0 <= position < len(self.files):
            raise IndexError(f"image {position} of {len(self.files)}")
        repeat = index.repeat if isinstance(index, RepeatedIndex) else 0
        try:
            image, source = self._readable(position, repeat)
        except UnreadableImageError:
            return self._transformed(self._gap(), position, repeat), -1, -1
        return self._transformed(image, position, repeat), self.targets[source], source

    def _transformed(self, image: Picture, position: int, repeat: int) -> Any:
        if self.transform is None:
            return image
        if getattr(self.transform, "seeded", False):
            return self.transform(image, seed=sample_seed(self.seed, self.epoch, position, repeat))
        return self.transform(image)

    def _draws(self) -> bool:
        """Whether the same image is read differently each time."""
        return bool(self.reading.tiles or self.reading.physical) or any(map(is_tile, self.files))

    def _gap(self) -> Picture:
        """What stands for an unreadable image where none replaces it."""
        if self.reading.native:
            return np.zeros((64, 64, max(1, len(self.reading.channels or ()))), np.float32)
        black = np.zeros((64, 64, 3), np.uint8)
        return black if getattr(self.transform, "reads_arrays", False) else Image.fromarray(black)

    def _read(self, position: int, repeat: int = 0) -> Picture:
        path = self.path(position)
        drawn = self._drawn(path, position, repeat)
        if self.reading.native and (drawn is not None or self._cache is None):
            return self.reader.channels(path, drawn)
        arrays = getattr(self.transform, "reads_arrays", False)
        if drawn is not None:
            tile = self.reader.array(path, drawn=drawn)
            return tile if arrays else Image.fromarray(tile)
        if self._cache is not None:
            pixels = self._cache.get(position)
            if pixels is None:
                read = self.reader.channels if self.reading.native else self.reader.array
                pixels = read(path)
                self._cache.put(position, pixels)
            return pixels if arrays or self.reading.native else Image.fromarray(pixels)
        if arrays:
            return self.reader.array(path, getattr(self.transform, "min_side", None))
        return self.reader.image(path)

    def _drawn(self, path: str, position: int, repeat: int) -> Drawn | None:
        """Which tile is read in training, and where in the image crops of a physical size lie."""
        if not (is_tile(path) or self.reading.physical):
            return None
        if not getattr(self.transform, "seeded", False):
            return Drawn(path) if self.reading.physical else None
        place = (self.seed, self.epoch, position, repeat)
        return Drawn(draw_tile(path, self.reading, *place), sample_seed(*place, _PHYSICAL_DRAWS))

    def _readable(self, position: int, repeat: int = 0) -> tuple[Picture, int]:
        """The image at ``position`` or its replacement, and where it came from."""
        try:
            return self._read(position, repeat), position
        except UnreadableImageError as error:
            if not self.replace:
                raise
            reason = str(error)
        for attempt in range(_REPLACEMENTS):
            source = self._replacement(position, attempt)
            try:
                return self._read(source, repeat), source
            except UnreadableImageError:
                continue
        raise DataError(
            f"{self.path(position)} cannot be read ({reason}), and neither can {_REPLACEMENTS} "
            f"other images that were tried instead"
        )

    def _replacement(self, position: int, attempt: int) -> int:
        if self._by_class is None:
            targets = np.asarray(self.targets)
            self._by_class = {int(t): np.flatnonzero(targets == t) for t in np.unique(targets)}
        draw = sample_seed(self.seed, self.epoch, position, attempt + 1)
        peers = self._by_class[self.targets[position]]
        if len(peers) > 1 and attempt < _REPLACEMENTS // 2:
            return int(peers[draw % len(peers)])
        return draw % len(self.files)

    def probe(self) -> list[ImageHeader]:
        """Headers of up to 32 images spread over the set; read once.

        Unreadable ones are left out. Raises UserError where none can be read.
        """
        if not self._headers:
            self._headers, reasons = self._sample(image_header)
            if not self._headers:
                raise UserError(
                    f"none of the {len(reasons)} images sampled from {self.root} can be read; the "
                    f"first one: {reasons[0][:300]}"
                )
        return self._headers

    def _sample(self, read: Callable[[str], Result]) -> tuple[list[Result], list[str]]:
        """What some images give, and why others give nothing."""
        results: list[Result] = []
        reasons: list[str] = []
        patient = True  # a file system that does not answer at all is not asked for each
        for position in range(0, len(self.files), max(1, len(self.files) // _PROBES))[:_PROBES]:
            path = self.path(position)
            try:
                results.append(retried(partial(read, path)) if patient else read(path))
            except UserError:
                raise
            except Exception as error:  # Pillow raises many kinds; reading it later reports it.
                patient = patient and not may_pass(error)
                reasons.append(f"{path}: {str(error) or type(error).__name__}")
        return results, reasons

    def survey(self, progress: Progress | None = None) -> Survey:
        """What all of the images are, by their headers and, beyond 8 bits, their pixels.

        Read once, and kept in the user's cache.

        Args:
            progress: called with the number of files done and in all.
        """
        if self._survey is None:
            self._survey = survey(
                str(self.root), self.paths, self.probe(), progress, not self.reading.native
            )
        return self._survey

    def native_size(self) -> tuple[int, int]:
        """Median (height, width) in pixels of the images whose headers were read.

        With crops of a physical size, of the squares that are cut out of some of them.
        """
        if self.reading.physical:
            sizes = [np.asarray(self._read(n)).shape[:2] for n in self._spread(_SQUARES)]
            return int(np.median([s[0] for s in sizes])), int(np.median([s[1] for s in sizes]))
        height, width = np.median(np.array(self.survey().sizes), axis=0)
        return int(height), int(width)

    def _spread(self, most: int) -> Iterator[int]:
        """A few positions of images that can be read.

        Raises:
            UserError: there are none.
        """
        reason, found = "", 0
        for position in range(0, len(self.files), max(1, len(self.files) // most))[:most]:
            try:
                self._read(position)
            except UnreadableImageError as error:
                reason = str(error)
                continue
            found += 1
            yield position
        if not found:
            raise UserError(f"none of the sampled images can be read: {reason[:300]}")

    def is_grey(self) -> bool:
        """Whether all of the images are stored without colour."""
        return self.survey().grey


def files_digest(files: Sequence[str]) -> str:
    """SHA-256 (16 hexadecimal digits) of relative paths, whatever their order."""
    text = "".join(f"{file}\n" for file in sorted(files))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def take(listing: Listing, indices: Sequence[int]) -> Listing:
    """The listing of the chosen images, classes unchanged."""
    return Listing(
        root=listing.root,
        files=[listing.files[i] for i in indices],
        targets=[listing.targets[i] for i in indices],
        classes=listing.classes,
    )
