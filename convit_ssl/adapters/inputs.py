"""The data of a task: data sets, loaders, and the processing of a batch on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from convit_ssl.adapters.dataset import Numbered, VisslImages
from convit_ssl.adapters.late_views import LateView
from convit_ssl.adapters.views import augment_config, plain_view
from convit_ssl.data import FaultLog, ImageFiles, open_dataset
from convit_ssl.data.augment.fast import Normalize
from convit_ssl.data.augment.spec import build_augmentation
from convit_ssl.data.listing.division import DivisionSpec
from convit_ssl.data.loading.loader_workers import PREFETCHED, shared_mib, shield_worker
from convit_ssl.data.reading.value_range import Reading
from convit_ssl.evaluation.probes.splits import hold_out
from convit_ssl.machine import start_method
from convit_ssl.methods import LinearOptions, SupervisedOptions, options_of
from convit_ssl.runs import RunFolder
from convit_ssl.schema_resolved import Resolved

LARGEST_TESTING_BATCH = 256
TESTING_PIXELS = LARGEST_TESTING_BATCH * 64**2
SMALLEST_FOR_WORKERS = 96  # pixels; below, decoding takes less than starting a worker


class EpochLoader(DataLoader[Any]):
    """A loader whose length is that of a whole epoch, even if it starts within one.

    VISSL reads the length of the run from it.
    """

    def __len__(self) -> int:
        start = getattr(self.sampler, "start_index", 0)
        if not start:
            return super().__len__()
        sampler: Any = self.sampler
        return int(sampler.num_images // sampler.world_size // self.batch_size)


class TaskInputs:
    """Data sets and loaders of one process.

    Args:
        options: the experiment's options.
        device: of the batches.
        datasets: ``TRAIN`` and, for labelled experiments, ``TEST``.
        finish: the part of the augmentation that is computed on the device.
        num_holdout: images held out of train, first in the test set.
        train: the training images.
    """

    def __init__(
        self,
        options: Resolved,
        device: torch.device,
        datasets: dict[str, Dataset[Any]],
        finish: nn.Module,
        num_holdout: int,
        train: ImageFiles,
    ) -> None:
        self.train = train
        self.options = options
        self.device = device
        self.datasets = datasets
        self.finish = finish.to(device)
        self.num_holdout = num_holdout
        self.sampler: Any = None
        # Epoch and images of it that were seen, of a run that goes on with another batch size.
        self.resume_at: tuple[int, int] | None = None
        self.mixup = build_mixup(options)

    def loader(self, split: str, pin_memory: bool) -> DataLoader[Any]:
        """A loader of this process's share of a split."""
        from convit_ssl.data.augment.collate import fast_collate
        from convit_ssl.data.loading.samplers import EpochSampler

        derived = self.options.derived
        rank, world = process_rank(), derived.world_size
        dataset = self.datasets[split]
        training = split == "TRAIN"
        method = options_of(self.options.method)
        repeats = method.repeats if isinstance(method, SupervisedOptions) else 1
        if training:
            sampler: Any = EpochSampler(
                len(dataset),  # type: ignore[arg-type]
                seed=self.options.seed,
                rank=rank,
                world_size=world,
                tail="drop",
                repeats=repeats,
                groups=self.train.groups() if len(dataset) == len(self.train) else (),  # type: ignore[arg-type]
            )
            self.sampler = sampler
        else:
            sampler = range(rank, len(dataset), world)  # type: ignore[arg-type]
        workers = derived.workers
        return EpochLoader(
            dataset,
            batch_size=self.batch_size(split),
            sampler=sampler,
            drop_last=training,
            num_workers=workers,
            prefetch_factor=PREFETCHED if workers else None,
            collate_fn=fast_collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=start_method() if workers else None,
            worker_init_fn=shield_worker,
            # A generator of its own: the model's random state must not depend on loaders.
            generator=torch.Generator().manual_seed(0),
        )

    def batch_size(self, split: str) -> int:
        """The batch size of this process."""
        own = int(self.options.derived.batch_per_process)
        if split == "TRAIN":
            return own
        return max(own, testing_batch(self.options.crops.global_size))

    def shared_mib(self) -> float:
        """Shared memory for the waiting batches of one loader worker, in MiB."""
        return max(
            shared_mib(data, self.batch_size(split)) for split, data in self.datasets.items()
        )

    def set_position(self, epoch: int, start_step: int) -> None:
        """Let the next iterator start at a step of an epoch."""
        train = self.datasets["TRAIN"]
        assert isinstance(train, VisslImages)
        train.set_epoch(epoch)
        seen = start_step * self.options.optim.batch_size
        if self.resume_at is not None and self.resume_at[0] == epoch:
            seen = self.resume_at[1]
        self.sampler.set_epoch(epoch, seen)

    def on_device(
        self, views: Any, target: Tensor, training: bool, late: bool = False
    ) -> tuple[Any, Tensor]:
        """Move a batch to the device, normalise or augment it, and mix it in supervised training.

        Args:
            views: of a loader.
            target: labels.
            training: whether the method may mix them.
            late: normalise several views in parts, when they are used.
        """
        target = target.to(self.device, non_blocking=True)
        if late and isinstance(views, list):
            raw = [view.to(self.device, non_blocking=True) for view in views]
            return [LateView(view, self.finish) for view in raw], target
        moved = self._finished(views)
        if training and self.mixup is not None:
            moved, target = mix(self.mixup, moved, target)
        return moved, target

    def _finished(self, views: Any) -> Any:
        if isinstance(views, Tensor):
            return self.finish(views.to(self.device, non_blocking=True))
        if isinstance(views, tuple):  # canvases and the draws for them, of augment=device
            pixels, drawn = views
            crops = self.finish(pixels.to(self.device, non_blocking=True), drawn)
            return crops[0] if len(crops) == 1 else crops
        return [self.finish(view.to(self.device, non_blocking=True)) for view in views]


def testing_batch(side: int) -> int:
    """The smallest batch of a test: larger for smaller images (side in pixels)."""
    return min(LARGEST_TESTING_BATCH, TESTING_PIXELS // side**2)


def reads_with_workers(options: Resolved) -> bool:
    """Whether an evaluation of features while training starts loader workers of its own."""
    return options.crops.global_size >= SMALLEST_FOR_WORKERS


def features_batch(options: Resolved) -> int:
    """Images at a time in an evaluation of features: no more memory than training has needed."""
    own = int(options.derived.batch_per_process)
    return min(LARGEST_TESTING_BATCH, max(own, testing_batch(options.crops.global_size), 1))


def open_inputs(options: Resolved, device: torch.device) -> TaskInputs:
    """Open the data sets of an experiment with its augmentation."""
    log = FaultLog(str(RunFolder.of(options.run).unreadable))
    augmentation = augment_config(options)
    pipeline = options.augment
    train = open_split(options, "train", build_augmentation(augmentation, pipeline), log)
    batch = options.optim.batch_size
    datasets: dict[str, Dataset[Any]] = {}
    num_holdout = 0
    learned: Dataset[Any] = train
    if options.derived.test_model:
        transform = plain_view(options)
        val: Dataset[Any] = open_split(options, "val", transform, log, replace=False)
        method = options_of(options.method)
        if isinstance(method, LinearOptions):
            targets = np.asarray(train.targets)
            fit, held_out = hold_out(targets, method.holdout, options.seed)
            plain = open_split(options, "train", transform, log, replace=False)
            val = ConcatDataset([Subset(plain, held_out.tolist()), val])
            num_holdout = len(held_out)
            learned = Subset(train, fit.tolist())
        datasets["TEST"] = VisslImages(Numbered(val), batch)
    datasets["TRAIN"] = VisslImages(learned, batch, train.set_epoch)
    if pipeline == "device" and not augmentation.timm:
        from convit_ssl.data.augment.device import DeviceAugmentation

        finish: nn.Module = DeviceAugmentation(augmentation)
    else:
        finish = Normalize(augmentation.mean, augmentation.std)
    return TaskInputs(options, device, datasets, finish, num_holdout, train)


def open_split(
    options: Resolved, split: str, transform: Any, log: FaultLog, *, replace: bool = True
) -> ImageFiles:
    """The transformed images of one split of the experiment's data."""
    return open_dataset(
        options.data.name,
        options.data_dir,
        split,
        transform,
        subset=options.data.subset,
        seed=options.seed,
        max_corrupt=options.data.max_corrupt,
        reading=Reading.of(options.data),
        fault_log=log,
        replace=replace,
        division=DivisionSpec.of(options.data, not options.derived.test_model),
    )


def build_mixup(options: Resolved) -> Any:
    """Mixup and cutmix of supervised training, by timm, or None."""
    method = options_of(options.method)
    if not isinstance(method, SupervisedOptions) or not (method.mixup or method.cutmix):
        return None
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=method.mixup,
        cutmix_alpha=method.cutmix,
        label_smoothing=method.smoothing,
        num_classes=options.derived.num_classes,
    )


def mix(mixup: Any, images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Mix pairs of images of a batch, as timm does; an odd image stays unchanged.

    Args:
        mixup: timm's, which mixes image i with image n - 1 - i.
        images: (B, C, H, W).
        target: (B,) classes.

    Returns:
        The images, (B, C, H, W), and soft labels, (B, K).
    """
    from timm.data.mixup import mixup_target

    pairs = len(images) // 2 * 2
    if pairs == len(images):
        mixed, shares = mixup(images, target)
        return mixed, shares
    alone = mixup_target(target[pairs:], mixup.num_classes, 1.0, mixup.label_smoothing)
    if pairs == 0:
        return images, alone
    mixed, shares = mixup(images[:pairs], target[:pairs])
    return torch.cat([mixed, images[pairs:]]), torch.cat([shares, alone])


def process_rank() -> int:
    """This process's number in the group; 0 without one."""
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if ready else 0
