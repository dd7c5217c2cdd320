"""What augmentation does, apart from how: one description for all three pipelines.

``pil`` is the published one (torchvision on Pillow images), ``fast`` the same
distribution on uint8 arrays with OpenCV, ``device`` the same again in batches on the
accelerator. ``build_augmentation(config, "fast")`` makes the transform of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from convit_ssl.data.augment.changes import PerView, change_crops, refuse_for_timm
from convit_ssl.data.augment.evaluation import IMAGENET_MEAN, IMAGENET_STD
from convit_ssl.data.augment.own import check_own
from convit_ssl.errors import UserError

if TYPE_CHECKING:
    from convit_ssl.data.augment.channels import ChannelAugmentation
    from convit_ssl.data.augment.device import DeviceCanvas
    from convit_ssl.data.augment.fast import FastAugmentation
    from convit_ssl.data.augment.pil import PilAugmentation, TimmAugmentation

PIPELINES = ("fast", "pil", "device")

# Brightness, contrast, saturation and hue: BYOL's, which DINO and others took over, and SimCLR's
# at its published strength of 1, which SwAV took over.
BYOL_JITTER = (0.4, 0.4, 0.2, 0.1)
SIMCLR_JITTER = (0.8, 0.8, 0.8, 0.2)
NO_JITTER = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CropConfig:
    """One group of crops that are made alike, in the order of the fields.

    Attributes:
        size: (height, width) in pixels, or the side of a square.
        count: crops of this kind per image.
        scale: smallest and largest share of the image's area.
        ratio: smallest and largest width / height, drawn log-uniformly.
        interpolation: bilinear or bicubic, with antialiasing.
        horizontal_flip, vertical_flip: probabilities.
        rotate90: turn by 0, 90, 180 or 270 degrees with equal probability.
        jitter: strength of brightness, contrast, saturation and hue; in random order.
        jitter_prob, grey_prob, blur_prob, solarize_prob: probabilities.
        blur_sigma: smallest and largest standard deviation, in pixels.
        solarize_threshold: values from here on are inverted.
    """

    size: int | tuple[int, int]
    count: int = 1
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3.0 / 4.0, 4.0 / 3.0)
    interpolation: str = "bicubic"
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    rotate90: bool = False
    jitter: tuple[float, float, float, float] = NO_JITTER
    jitter_prob: float = 0.0
    grey_prob: float = 0.0
    blur_prob: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_prob: float = 0.0
    solarize_threshold: int = 128

    def __post_init__(self) -> None:
        # Configurations come with lists where there should be tuples.
        for name in ("size", "scale", "ratio", "jitter", "blur_sigma"):
            value = getattr(self, name)
            if not isinstance(value, (int, tuple)):
                object.__setattr__(self, name, tuple(value))
        height, width = self.height_width
        if min(height, width, self.count) < 1:
            raise UserError(f"crop size {self.size} x {self.count}: both must be at least 1")
        if not 0.0 < self.scale[0] <= self.scale[1] <= 1.0:
            raise UserError(f"crop scale is {self.scale}; it is a range within 0 < a <= b <= 1")
        if not 0.0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"crop ratio is {self.ratio}; it is a range of positive numbers")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UserError(f"crop interpolation {self.interpolation!r}: bilinear or bicubic")
        if self.rotate90 and height != width:
            raise UserError(f"rotate90 needs square crops, not {height} x {width}")
        if not 0.0 <= self.jitter[3] <= 0.5 or min(self.jitter) < 0.0:
            raise UserError(f"jitter is {self.jitter}; none is negative and hue is at most 0.5")
        if not 0.0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise UserError(f"blur_sigma is {self.blur_sigma}; it is a range of positive numbers")
        self._check_probabilities()

    def _check_probabilities(self) -> None:
        names = "horizontal_flip", "vertical_flip", "jitter_prob"
        for name in (*names, "grey_prob", "blur_prob", "solarize_prob"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} is {getattr(self, name)}; it must be between 0 and 1")

    @property
    def height_width(self) -> tuple[int, int]:
        """Size in pixels as (height, width)."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True)
class AugmentConfig:
    """The crops of an image and how they are normalised.

    Attributes:
        crops: groups of crops, global ones first.
        mean, std: per channel, of values in 0..1.
        grey_images: the images have no colour: hue, saturation and grey are left out, and
            one channel is computed in place of three.
        rand_augment: timm's name of a policy such as ``rand-m9-mstd0.5-inc1``, or None.
        erase_prob: of random erasing, with noise, after normalisation.
        channels: number of channels of float arrays; 0 for RGB.
        channel_gain: strength of the gain that each channel has of its own; None for that of the
            crop's brightness.
        channel_drop: probability that a crop lacks one channel.
        own: names of augmentations that a plugin registered, applied last; of 8-bit images.
    """

    crops: tuple[CropConfig, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    grey_images: bool = False
    rand_augment: str | None = None
    erase_prob: float = 0.0
    channels: int = 0
    channel_gain: float | None = None
    channel_drop: float = 0.0
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.crops:
            raise UserError("an augmentation needs at least one group of crops")
        if self.timm and self.num_crops != 1:
            raise UserError("rand_augment and erase_prob are for one crop per image")

    @property
    def num_crops(self) -> int:
        """Crops per image."""
        return sum(crop.count for crop in self.crops)

    @property
    def timm(self) -> bool:
        """Whether timm's supervised augmentation is asked for."""
        return self.rand_augment is not None or self.erase_prob > 0.0

    @property
    def min_side(self) -> int:
        """Pixels a side that an image needs for the smallest crops to be as sharp as they can.

        Half as much again as their number of pixels: a larger image may be made smaller
        before it is cropped, and that is resampling it twice.
        """
        return max(
            math.ceil(1.5 * max(crop.height_width) / math.sqrt(crop.scale[0]))
            for crop in self.crops
        )

    def adapt(
        self,
        *,
        grey_images: bool | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        rotate90: bool | None = None,
        blur_sigma: tuple[float, float] | None = None,
        **views: PerView | None,
    ) -> AugmentConfig:
        """The same with some things changed; None leaves them.

        Satellite and microscope images, which have no upper side, want ``vertical_flip=0.5``
        and ``rotate90=True``; digits and letters ``horizontal_flip=0``. A ``solarize`` that is one
        number is the probability for crops that are solarised at all, if there are any.

        Args:
            grey_images: the images have no colour.
            mean: of the channels.
            std: of the channels.
            rotate90: turn by quarters.
            blur_sigma: range of the standard deviation in pixels.
            views: probabilities of ``horizontal_flip, vertical_flip, jitter, grey, blur, solarize``
                and strengths of ``brightness, contrast, saturation, hue``: one number, or one for
                each kind of view.

        Raises:
            UserError: changes that do not fit the views, or would do nothing.
        """
        given = {"rotate90": rotate90, "blur_sigma": blur_sigma, **views}
        changes = {name: value for name, value in given.items() if value is not None}
        if self.timm:
            refuse_for_timm(changes)
        return replace(
            self,
            crops=change_crops(self.crops, changes),
            grey_images=self.grey_images if grey_images is None else grey_images,
            mean=self.mean if mean is None else mean,
            std=self.std if std is None else std,
        )

    def for_channels(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        gain: float | None = None,
        drop: float | None = None,
    ) -> AugmentConfig:
        """The same views of images of any number of channels.

        RandAugment and erasing are for RGB, and are left out.

        Args:
            mean: of each channel.
            std: of each channel.
            gain: see ``channel_gain``.
            drop: see ``channel_drop``; None for half of the probability of grey.
        """
        grey = max(crop.grey_prob for crop in self.crops)
        return replace(
            self,
            mean=tuple(mean),
            std=tuple(std),
            channels=len(mean),
            grey_images=True,
            rand_augment=None,
            erase_prob=0.0,
            channel_gain=gain,
            channel_drop=(grey / 2 if drop is None else drop) if len(mean) > 1 else 0.0,
        )

    @classmethod
    def dino(
        cls,
        global_size: int = 224,
        local_size: int = 96,
        num_local: int = 8,
        global_scale: tuple[float, float] = (0.4, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.4),
    ) -> AugmentConfig:
        """Two global crops, blurred always / seldom and solarised never / sometimes; local crops.

        Source: DINO, arXiv:2104.14294, and facebookresearch/dino, main_dino.py, lines 419-456.
        """
        first, second = _unequal_pair(global_size, global_scale, "bicubic")
        if num_local == 0:
            return cls((first, second))
        local = replace(first, size=local_size, scale=local_scale, count=num_local, blur_prob=0.5)
        return cls((first, second, local))

    @classmethod
    def swav(
        cls,
        global_size: int = 224,
        local_size: int = 96,
        num_local: int = 6,
        global_scale: tuple[float, float] = (0.14, 1.0),
        local_scale: tuple[float, float] = (0.05, 0.14),
    ) -> AugmentConfig:
        """Crops of two sizes, all changed alike: SimCLR's colours at full strength and its blur.

        Source: SwAV, arXiv:2006.09882; facebookresearch/swav, src/multicropdataset.py, lines
        37-52 and 71-94; scales in scripts/swav_800ep_pretrain.sh.
        """
        crop = _contrastive_crop(global_size, global_scale, 1.0, "bilinear")
        if num_local == 0:
            return cls((crop,))
        return cls((crop, replace(crop, size=local_size, scale=local_scale, count=num_local)))

    @classmethod
    def simclr(
        cls, size: int = 224, scale: tuple[float, float] = (0.08, 1.0), strength: float = 1.0
    ) -> AugmentConfig:
        """Two crops made alike; ``strength`` scales the jitter.

        Source: SimCLR, arXiv:2002.05709, appendix A; google-research/simclr, data_util.py,
        lines 74-77, 322, 387-394 and 417, and run.py, line 240 (strength).
        """
        return cls((_contrastive_crop(size, scale, strength, "bicubic"),))

    @classmethod
    def byol(
        cls,
        size: int = 224,
        scale: tuple[float, float] = (0.08, 1.0),
        interpolation: str = "bicubic",
    ) -> AugmentConfig:
        """BYOL's unequal pair: blurred always / seldom, solarised never / sometimes.

        Source: arXiv:2006.07733, appendix B, table 6.
        """
        return cls(_unequal_pair(size, scale, interpolation))

    @classmethod
    def supervised(
        cls,
        size: int = 224,
        rand_augment: str | None = "rand-m9-mstd0.5-inc1",
        color_jitter: float = 0.4,
        erase_prob: float = 0.25,
        scale: tuple[float, float] = (0.08, 1.0),
    ) -> AugmentConfig:
        """The recipe of DeiT and ConViT; RandAugment takes the place of the jitter.

        Source: arXiv:2012.12877, Table 9, and the released ConViT code.
        """
        jitter = (color_jitter, color_jitter, color_jitter, 0.0)
        crop = CropConfig(size, scale=scale, jitter=jitter, jitter_prob=1.0)
        return cls((crop,), rand_augment=rand_augment, erase_prob=erase_prob)

    @classmethod
    def crop_and_flip(
        cls, size: int = 224, scale: tuple[float, float] = (0.08, 1.0)
    ) -> AugmentConfig:
        """One crop and flip, as linear probes are trained with.

        Source: facebookresearch/dinov2, dinov2/data/transforms.py,
        ``make_classification_train_transform``. (DINO's eval_linear.py, line 86, is bilinear.)
        """
        return cls((CropConfig(size, scale=scale),))


def _unequal_pair(
    size: int, scale: tuple[float, float], interpolation: str
) -> tuple[CropConfig, CropConfig]:
    """BYOL's two views: blurred always / seldom, solarised never / sometimes.

    Source: arXiv:2006.07733, appendix B, table 6.
    """
    base = CropConfig(
        size,
        scale=scale,
        interpolation=interpolation,
        jitter=BYOL_JITTER,
        jitter_prob=0.8,
        grey_prob=0.2,
    )
    return replace(base, blur_prob=1.0), replace(base, blur_prob=0.1, solarize_prob=0.2)


def _contrastive_crop(
    size: int, scale: tuple[float, float], strength: float, interpolation: str
) -> CropConfig:
    """SimCLR's crop, twice."""
    brightness, contrast, saturation, hue = (strength * value for value in SIMCLR_JITTER)
    return CropConfig(
        size,
        count=2,
        scale=scale,
        interpolation=interpolation,
        jitter=(brightness, contrast, saturation, hue),
        jitter_prob=0.8,
        grey_prob=0.2,
        blur_prob=0.5,
    )


def build_augmentation(
    config: AugmentConfig, pipeline: str = "fast"
) -> FastAugmentation | PilAugmentation | TimmAugmentation | DeviceCanvas | ChannelAugmentation:
    """The transform of :class:`convit_ssl.data.ImageFiles` for one of the three pipelines.

    With one crop per image it returns that crop, otherwise the list of crops: normalised
    float from ``pil``, uint8 from ``fast`` (apply :class:`Normalize` on the device); from
    ``device`` what :class:`DeviceAugmentation` takes. RandAugment and erasing are timm's,
    on Pillow images, for every pipeline.

    Raises:
        UserError: unknown pipeline.
    """
    if pipeline not in PIPELINES:
        raise UserError(f"augment={pipeline} is unknown; choose from {', '.join(PIPELINES)}")
    check_own(config.own, "RandAugment of timm's" if config.timm else pipeline)
    if config.channels:
        from convit_ssl.data.augment.channels import ChannelAugmentation

        return ChannelAugmentation(config)
    if config.timm:
        from convit_ssl.data.augment.pil import TimmAugmentation

        return TimmAugmentation(config)
    if pipeline == "pil":
        from convit_ssl.data.augment.pil import PilAugmentation

        return PilAugmentation(config)
    if pipeline == "fast":
        from convit_ssl.data.augment.fast import FastAugmentation

        return FastAugmentation(config)
    from convit_ssl.data.augment.device import DeviceCanvas

    return DeviceCanvas(config)
