"""Tables of settings by the size of a collection; `scale` reads them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Labels: TypeAlias = Literal["none", "scratch", "fine-tuning", "probe"]


@dataclass(frozen=True)
class CollectionRule:
    """What a collection of fewer than ``below`` images wants."""

    below: int | float
    epochs: int
    batch_size: int
    dino_out_dim: int
    teacher_temperature: int | float
    momentum: int | float
    num_prototypes: int
    why: str


# Smallest first; the first row with more than the number of images is taken.
# Under 20,000: out_dim and momentum are lightly-train's defaults, the teacher's temperature was
# measured, with features spread by KoLeo (results/textures_cpu_2026-11-25, on the first version
# of the textures, whose val overlapped train).
COLLECTION_RULES = (
    CollectionRule(2_000, 400, 64, 1024, 0.03, 0.99, 128, "under 2,000 images"),
    CollectionRule(20_000, 200, 128, 1024, 0.03, 0.99, 512, "under 20,000 images"),
    CollectionRule(200_000, 200, 256, 4096, 0.04, 0.996, 1024, "under 200,000 images"),
    CollectionRule(float("inf"), 100, 512, 65536, 0.04, 0.996, 3000, "the published recipe"),
)


@dataclass(frozen=True)
class PublishedRun:
    """Length and batch of a method from 200,000 images up, in place of its row above.

    The batch is that of all processes together.
    """

    epochs: int
    batch_size: int
    warmup_epochs: int
    why: str


# (shorter side at least, patch): 7 to 14 patches a side from 7 up to 224 pixels.
PATCH_RULES = ((112, 16), (56, 8), (28, 4), (14, 2), (1, 1))

# For few tokens: the largest that leaves 4 patches a side, but no larger than was tried.
FEW_TOKENS_PATCHES = (16, 8, 7, 4, 2, 1)
FEW_TOKENS_SIDE = 4
# Largest crops to choose from, in this order, where time goes with the tokens and larger ones leave
# too few epochs (results/crops_openclipart_cpu_2026-11-30).
FEW_TOKENS_CROPS = (128, 96, 64)
ENOUGH_EPOCHS = 100

# (shorter side at least, local crops)
LOCAL_CROP_RULES = ((96, 8), (48, 6), (24, 4), (1, 2))

LARGEST_GLOBAL_CROP = 224
LOCAL_SHARE = 96 / 224  # of the global crop's side, as published
FEWEST_LOCAL_PATCHES = 3
SMALLEST_LOCAL_SIDE = 12  # pixels of the original image that a local crop should show
WARMUP_SHARE = 0.1  # of the epochs, up to what is published
STEPS_PER_EPOCH = 16  # or the batch is halved, down to the smallest
SMALLEST_LABELLED = 16  # batch that labels are learned with
# Losses over a batch, and normalisation in the heads, need others in it
# (results/smallest_collections_cpu_2026-11-26).
SMALLEST_UNLABELLED = 32


@dataclass(frozen=True)
class SmallRun:
    """What a method wants under 200,000 images and for a network of `MEASURED_WIDTH` channels.

    Measured on the first version of the textures, whose val overlapped train
    (results/textures_cpu_2026-11-25), and on digits
    (results/digits_methods_cpu_2026-11-26); the published rates, for wide networks and large
    batches, left them where they began.

    Attributes:
        rate: AdamW's learning rate of a step, whatever the batch.
        batch_size: at most.
        optimizer: AdamW, or Muon with AdamW's rate.
    """

    rate: float
    batch_size: int
    optimizer: str = "adamw"


# AdamW's rate of a step, of labels: the published ones, per 256 images, hardly move a network in
# batches of 16 (results/smallest_collections_cpu_2026-11-26). The second is for layer decay.
LABELLED_RATES: dict[Labels, float] = {"scratch": 1e-3, "fine-tuning": 2e-3}
# How few images with labels are shown: cropped, mirrored, their colours changed. The published
# mixtures and distortions are for hundreds of epochs of a million images; in runs of this size a
# network learns little else than to see through them (results/labels_recipe_cpu_2026-11-27).
PLAIN_RECIPE: dict[str, float | None] = {
    "mixup": 0.0,
    "cutmix": 0.0,
    "erasing": 0.0,
    "rand_augment": None,
    "repeats": 1,
}
PLAIN_BELOW = 20_000  # images, or a run that a budget cuts short
MEASURED_WIDTH = 128
# From so many tokens in a step per channel of the network on, Muon takes at most a third of the
# step's operations: a layer costs it 290 width^3, and the step 72 tokens width^2. convit_nano has
# 16 with 64 images in a batch and 16 tokens in an image, and gave a sixth of its time; ConViT-small
# has 5 there, gave half, and learned less by Muon than by AdamW in the same time.
TOKENS_PER_CHANNEL = 12
