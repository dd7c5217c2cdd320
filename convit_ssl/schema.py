"""Every option of an experiment, with its type, default, unit, range and meaning.

The YAML files under configs/ change these; a key that is not here stops the run. Options that
are None are set from the data (`scale_to_data`), from the machine, or by the chosen variant.
`convit-ssl options` prints them, and docs/OPTIONS.md is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from convit_ssl.options import (
    Channels,
    Length,
    MethodOptions,
    Pretrained,
    Ranges,
    Scales,
    Window,
    option,
    section,
)
from convit_ssl.schema_auto import AutoOptions
from convit_ssl.schema_run import OptimOptions, RunOptions, WatchOptions
from convit_ssl.schema_views import AugmentationOptions, CropOptions
from convit_ssl.weights_settings import WeightsSettings

__all__ = [
    "AugmentationOptions",
    "AutoOptions",
    "CropOptions",
    "DataOptions",
    "Experiment",
    "OptimOptions",
    "RunOptions",
    "TrunkOptions",
    "WatchOptions",
]


@dataclass
class DataOptions:
    """Which images, and how files become pixels."""

    name: str = option(
        "imagenet",
        "The data set. folder, list, shards and table are for your own images, in data_dir.",
        form="digits, mnist5k, fashion_mnist, textures, elpv, openclipart, imagenet, folder, list, "
        "shards or table",
    )
    subset: str | None = option(
        None,
        "Use only part of the training images, chosen as `convit-ssl subset` does.",
        form="fraction=0.1,seed=0 · per_class=10 · list=FILE · classes=first:100",
    )
    holdout: float | None = option(
        None,
        "Fraction of the images to hold out and test on at the end. Nothing is learned from them "
        "or chosen on them, and no val folder is needed.",
        unit="fraction of the images", above=0, most=1, form="a fraction such as 0.2",
    )  # fmt: skip
    folds: int | None = option(
        None, "Number of folds of a k-fold split; data.fold is tested on.", unit="folds", least=2
    )
    fold: int | None = option(
        None, "Number of the fold to test on; the first is 0.", unit="fold", least=0
    )
    group_by: str | None = option(
        None,
        "Which images must stay on the same side of every split, such as those of one patient.",
        form="folder:1, column:NAME (of data.labels, or of the table itself) or name:REGEX",
    )
    labels: str | None = option(
        None,
        "Where labels come from; by default from class folders.",
        form="table.csv:file,label,... (or .parquet), folder:N or name:REGEX",
    )
    split: str | None = option(
        None,
        "A split file written earlier, instead of holdout and folds.",
        form="a path, such as split.csv",
    )
    split_seed: int | None = option(
        None, "Random seed of the split; null is 0.", unit="seed", least=0
    )
    max_corrupt: float = option(
        0.01,
        "The run stops if more than this fraction of the images cannot be read.",
        unit="fraction of the images", least=0,
    )  # fmt: skip
    white_level: int | None = option(
        None,
        "The value that becomes white in unsigned images of more than 8 bits. By default it is "
        "taken from the starting weights, or chosen to fit all training images.",
        unit="pixel value", least=0,
    )  # fmt: skip
    signed_range: list[float] | None = option(
        None,
        "The values that become black and white in signed images (CT, elevation). Default as for "
        "white_level.",
        unit="pixel value", form="[black, white], such as [-1000,400]",
    )  # fmt: skip
    float_range: list[float] | None = option(
        None,
        "The values that become black and white in floating-point images. Default as for "
        "white_level.",
        unit="pixel value", form="[black, white], such as [0,1]",
    )  # fmt: skip
    exif_rotation: bool = option(
        False,
        "Rotate photographs upright by their EXIF orientation. Off by default, as in torchvision's "
        "ImageFolder and timm.",
    )
    depth: str | None = option(
        None,
        "native keeps 16-bit and floating-point values, reads all channels and computes views in "
        "floating point; by default every image becomes 8-bit RGB.",
        form="8bit or native",
    )
    channels: Channels = option(
        None,
        "The channels to read from each file, without rounding to 8 bits; trunk.in_chans follows. "
        "By default every image becomes RGB.",
        form="all, numbers from 1 on such as [1,2,4], or names such as [red,nir]",
    )
    window: Window = option(
        None,
        "The values that become black and white in images of more than 8 bits; values outside are "
        "cut off. file takes the window that each DICOM file suggests.",
        unit="pixel value", form="-1000:400 or file",
    )  # fmt: skip
    file_channels: int | None = option(
        None,
        "Number of channels that every file must have. With data.channels=all the default is the "
        "number found in the files.",
        unit="channels", least=0,
    )  # fmt: skip
    channel_ranges: Ranges = option(
        None,
        "The values of each channel that become 0 and 1. By default taken from the starting "
        "weights or from the training images.",
        unit="pixel value", form="[[low, high], ...]",
    )  # fmt: skip
    mean: list[float] | None = option(
        None,
        "Mean of each channel after scaling its range to 0..1. Default as for channel_ranges.",
        unit="fraction of the range",
        form="one number for each channel",
    )
    std: list[float] | None = option(
        None,
        "Standard deviation of each channel after scaling its range to 0..1. Default as for "
        "channel_ranges.",
        unit="fraction of the range", above=0, form="one number for each channel",
    )  # fmt: skip
    parts: str | None = option(
        None,
        "Which images to read from files that hold several. By default all slices and frames, one "
        "frame per second of video, and the first page of a TIFF.",
        form="axial:4 (every fourth slice), coronal, sagittal, frame:10, second:0.5, all, z:2, t, "
        "page, z:channels, level:1 or first",
    )
    reader: str | None = option(
        None,
        "The reader of docs/FORMATS.md; by default chosen by the content of each file.",
        form="auto or a reader's name",
    )
    tiles: int | None = option(
        None,
        "Read large images as tiles of this side length. Each tile of a grid counts as an image; "
        "in training it is shifted at random by up to half its side. By default only slides are "
        "read as tiles, of 256 pixels.",
        unit="pixels", least=8,
    )  # fmt: skip
    tile_scales: Scales = option(
        None,
        "Downsampling factors of tiles: one is drawn at random each time in training, the first is "
        "used in evaluation. By default tiles have full resolution.",
        unit="image pixels per tile pixel", form="whole numbers, such as 2 or [1,2,4]",
    )  # fmt: skip
    tile_rotation: bool = option(
        False,
        "Rotate tiles by a random angle in training; corners show the surrounding image.",
    )
    tile_share: float | None = option(
        None,
        "Tiles with less tissue (slides) or data (GeoTIFF) than this are left out; null is 0.1.",
        unit="fraction of the tile", least=0, most=1,
    )  # fmt: skip
    pixel_size: Length = option(
        None,
        "Size of a pixel for crops.physical; overrides what the files say.",
        form="a length, such as 0.5um or 10m",
    )
    physical: float | None = option(None, "Set from crops.physical.", unit="mm", above=0)
    workers: int | None = option(
        None,
        "Loader processes per training process. By default as many as the machine allows; 0 loads "
        "in the training process.",
        unit="processes", least=0,
    )  # fmt: skip


@dataclass
class TrunkOptions:
    """The network: a variant of `convit_ssl.models`, and changes to it (null: the variant's)."""

    variant: str = option(
        "convit_small",
        "The network. For one that is not a ConViT, only drop rates, global_pool, in_chans and "
        "freeze_patch_embed can be set.",
        form="convit_nano, convit_tiny, convit_small, convit_base (each also _plus), deit_nano, "
        "deit_tiny, deit_small, deit_base, resnet50, any timm:NAME, or a plugin's trunk",
    )
    patch_size: int | None = option(
        None, "Side of a patch.", unit="pixels", least=1
    )  # fmt: skip
    in_chans: int = option(
        3, "Channels of the image; follows data.channels.", unit="channels", least=1, most=64
    )
    embed_dim: int | None = option(
        None, "Width of a token, over all heads.", unit="channels", least=1
    )
    depth: int | None = option(None, "Number of layers.", unit="layers", least=1)
    num_heads: int | None = option(
        None,
        "Attention heads per layer; a square number if local_init is on.",
        unit="heads", least=1,
    )  # fmt: skip
    num_gpsa_layers: int | None = option(
        None,
        "How many of the first layers are GPSA; 0 gives the plain ViT (DeiT) of the paper.",
        unit="layers", least=0,
    )  # fmt: skip
    locality_strength: float | None = option(
        None,
        "Inverse squared width of the positional attention at the start; a larger value attends "
        "to a smaller neighbourhood.",
        unit="1/patches²", above=0,
    )  # fmt: skip
    pos_embed_std: float | None = option(
        None,
        "Standard deviation of the position embeddings at the start. 3 helps if objects are in the "
        "same place in every image.",
        least=0,
    )
    mlp_ratio: float | None = option(
        None, "Hidden width of the MLPs divided by embed_dim.", above=0
    )
    qkv_bias: bool = option(
        False, "Give queries, keys and values a bias, which most ViTs have and ConViT does not."
    )
    drop_rate: float = option(
        0.0, "Dropout after each projection.", unit="probability", least=0, most=1
    )
    attn_drop_rate: float = option(
        0.0, "Dropout on attention maps.", unit="probability", least=0, most=1
    )
    drop_path_rate: float = option(
        0.0,
        "Stochastic depth of the last layer, growing linearly from 0 at the first.",
        unit="probability", least=0, most=1,
    )  # fmt: skip
    local_init: bool = option(
        True, "Start the GPSA layers as convolutions (the paper's convolutional init)."
    )
    gate_start: float | None = option(
        None,
        "Fraction of each head's attention that is positional at the start; the rest is content. "
        "null is 0.73 as released, and 0.1 if the run starts from a plain ViT's weights.",
        unit="fraction", above=0, most=0.999,
    )  # fmt: skip
    impulses: bool = option(
        False,
        "Start each head of a GPSA layer at one patch, drawn from the nine around a token, in "
        "place of the paper's kernel (random impulse filters, arXiv:2505.19985).",
    )
    use_gating: bool = option(
        True, "Gate each head between content and positional attention; false adds the two."
    )
    use_pos_embed: bool = option(
        True,
        "Add a learned position embedding to each patch; false leaves position to the GPSA layers.",
    )
    global_pool: str = option(
        "token",
        "Features of an image: the class token, or the mean of the patch tokens.",
        choices=("token", "avg"),
    )
    freeze_patch_embed: bool = option(
        False, "Freeze the patch projection at its initial weights, as MoCo v3 does for stability."
    )
    pretrained: Pretrained = option(
        None,
        "Pretrained weights for timm:NAME: true downloads those that timm publishes, a path reads "
        "a file of timm's weights. weights=PATH starts any trunk from a checkpoint.",
        form="true or a path",
    )
    freeze_position: bool = option(
        False, "Freeze the positional attention at its initial weights (an ablation)."
    )


@dataclass
class Experiment:
    """One experiment, as the engine sees it."""

    experiment: str = option("???", "Name of the experiment; names the run folder.", form="a name")
    data_dir: str | None = option(
        None, "Folder or URL of your images.", form="a path, or a URL of lists or shards"
    )
    augment: str = option(
        "fast",
        "How views are computed: fast by OpenCV, pil by torchvision on Pillow images as published "
        "(slower), or device in batches on the GPU.",
        choices=("fast", "pil", "device"),
    )
    scale_to_data: bool = option(
        True,
        "Adapt epochs, batch size, patch and crop sizes and heads to the number and size of your "
        "images. Options you set yourself are kept; false keeps the published settings.",
    )
    weights: str | None = option(
        None,
        "Weights to start from; null is random init.",
        form="a checkpoint, a run folder, or weights of another project",
    )
    weights_from: str = option(
        "teacher",
        "Which weights of a checkpoint to take. Methods without a teacher have a student only.",
        form="teacher, student, ema, or a part of the path in the file",
    )
    plugins: list[str] = option(
        [],
        "Your own code that registers methods, data sets, augmentations or trunks.",
        form="a list of modules or Python files, such as [my_module]",
    )
    seed: int = option(0, "Random seed of initial weights, image order and augmentation.", least=0)
    weights_settings: WeightsSettings = section(WeightsSettings)
    teacher_settings: WeightsSettings = section(WeightsSettings)
    data: DataOptions = section(DataOptions)
    trunk: TrunkOptions = section(TrunkOptions)
    crops: CropOptions = section(CropOptions)
    augmentation: AugmentationOptions = section(AugmentationOptions)
    method: MethodOptions = section(MethodOptions)
    optim: OptimOptions = section(OptimOptions)
    run: RunOptions = section(RunOptions)
    watch: WatchOptions = section(WatchOptions)
    auto: AutoOptions = section(AutoOptions)
