"""Set what depends on the size of the collection, unless the user set it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, cast

from omegaconf import OmegaConf

from convit_ssl.engines.launch.placement import Placement, place
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.first_start import Begun
from convit_ssl.engines.options.trunks import least_side, patch_size
from convit_ssl.methods import Choice, Method, get_method, is_classifier, scale_to_data
from convit_ssl.methods.choices import Value
from convit_ssl.methods.scale import Budget
from convit_ssl.methods.scale_tables import (
    ENOUGH_EPOCHS,
    FEW_TOKENS_CROPS,
    LARGEST_GLOBAL_CROP,
    MEASURED_WIDTH,
    Labels,
)
from convit_ssl.models import VARIANTS, ConViTConfig, create_config
from convit_ssl.models.trunks import (
    AnyConfig,
    TrunkConfig,
    UncountedError,
    is_other,
    operations_of,
)

if TYPE_CHECKING:
    from convit_ssl.engines.options.plan import Plan

# Name in methods/scale.py -> options that it sets.
OPTIONS: dict[str, tuple[str, ...]] = {
    "epochs": ("optim.epochs",),
    "warmup_epochs": ("optim.warmup_epochs",),
    "batch_size": ("optim.batch_size",),
    "patch_size": ("trunk.patch_size",),
    "global_crop_size": ("crops.global_size",),
    "global_crop_scale": ("crops.global_scale",),
    "num_local_crops": ("crops.local_count",),
    "local_crop_size": ("crops.local_size",),
    "local_crop_scale": ("crops.local_scale",),
    "optimizer": ("optim.name",),
    "lr": ("optim.lr",),
    "hidden_dim": ("method.hidden_dim",),
    "use_bn": ("method.use_bn",),
    "bottleneck_dim": ("method.bottleneck_dim",),
    "koleo_weight": ("method.koleo_weight",),
    "weight_decay_end": ("optim.weight_decay_end",),
    "drop_path_rate": ("trunk.drop_path_rate",),
    "momentum": ("method.momentum",),
    "out_dim": ("method.out_dim",),
    "teacher_temperature": ("method.teacher_temperature", "method.warmup_teacher_temperature"),
    "num_prototypes": ("method.prototypes",),
    "jitter_strength": ("method.jitter_strength",),
    "epsilon": ("method.epsilon",),
    "mixup": ("method.mixup",),
    "cutmix": ("method.cutmix",),
    "erasing": ("method.erasing",),
    "rand_augment": ("method.rand_augment",),
    "repeats": ("method.repeats",),
}
# From so many images on, an experiment keeps the length, batch and head that it was published with.
PUBLISHED_FROM = 200_000
# A run on a processor ends within half an hour, unless the user sets its length.
CPU_MINUTES = 24.0
FEWEST_EPOCHS = 10
# Of one core, and its share where two work together; measured with convit_nano, data and optimiser
# left out. In bf16 where the processor multiplies in it.
CORE_FLOPS = {"fp32": 50e9, "bf16": 85e9}
SHARED_CORE = 0.75
CROP_SECONDS = 2e-4
STEP_SECONDS = 0.02
MUON_ITERATIONS = 5  # as adapters/muon.py has it, which imports timm
LOOKS = 21
WHOLE = (1.0, 1.0)
SIZE_OF_IMAGE = ("patch_size", "global_crop_size", "local_crop_size", "num_local_crops")


def scale(
    tree: Draft,
    explicit: frozenset[str],
    images: int,
    size: tuple[int, int],
    begun: Begun | None = None,
    tested: float = 0.0,
) -> tuple[dict[str, Choice], Budget | None]:
    """Change the options in place; returns what was chosen, with reasons, and what a CPU allows.

    Args:
        tree: the experiment.
        explicit: dotted keys that the user set; they win.
        images: number of training images.
        size: typical (height, width) in pixels.
        begun: what the resumed run began with; None for a new one.
        tested: images of val that are tested per epoch, in the mean.
    """
    labels = _labels(tree)
    method = get_method(tree.method.name)
    is_convit = tree.trunk.variant in VARIANTS
    given = _given_values(tree, explicit, labels)
    width = _network(tree, 1).embed_dim if is_convit else MEASURED_WIDTH
    budget = None
    if begun is not None:
        budget = begun.budget
    elif images < PUBLISHED_FROM and (is_convit or labels == "none"):
        # The operations of a network of another library cannot always be counted.
        with contextlib.suppress(UncountedError):
            budget = _budget(tree, method, images, size, given, labels, tested)
    # How long a run is decides which settings there are.
    length = {name: value for name, value in given.items() if name == "epochs"}
    rules = scale_to_data(images, size, method.name, length, width, budget, labels)
    overrides = {name: value for name, value in given.items() if name in rules}
    choices = scale_to_data(images, size, method.name, overrides, width, budget, labels)
    chosen: dict[str, Choice] = {}
    for name, choice in choices.items():
        if _stays(name, tree, images, labels):
            continue
        chosen[name] = choice
        if name not in overrides:
            for key in OPTIONS.get(name, (f"method.{name}",)):
                OmegaConf.update(tree, key, _plain(choice.value))
    _enlarge_crops(tree, explicit, chosen)
    whole = method.frozen_trunk and tree.augmentation.min_crop_scale is not None
    if whole and "crops.global_scale" not in explicit:
        # Parts as small as pretraining takes cost a frozen trunk 4 points on digits.
        reason = "things that are told apart by their whole shape; probes see them as val does"
        chosen["global_crop_scale"] = Choice(WHOLE, reason)
        OmegaConf.update(tree, "crops.global_scale", list(WHOLE))
    return chosen, budget


def _given_values(tree: Draft, explicit: frozenset[str], labels: Labels) -> dict[str, Value]:
    """What is not to be chosen, by the names of methods/scale.py: set, or not the collection's."""
    if tree.weights and tree.trunk.patch_size:
        explicit = explicit | {"trunk.patch_size"}
    if _keeps_rate(tree, labels):
        explicit = explicit | {"optim.lr"}
    if "optim" in explicit or tree.optim.name != "adamw":
        explicit = explicit | {"optim.name"}
    given: dict[str, Value] = {
        name: _given(tree, keys) for name, keys in OPTIONS.items() if explicit & set(keys)
    }
    known = {key for keys in OPTIONS.values() for key in keys}
    own = (key for key in explicit - known if key.startswith("method."))
    given |= {key.removeprefix("method."): _given(tree, (key,)) for key in own}
    if tree.trunk.variant not in VARIANTS and (patch := patch_size(tree, explicit)) > 1:
        given["patch_size"] = patch  # it is what it is, and crops are multiples of it
    return given


def _keeps_rate(tree: Draft, labels: Labels) -> bool:
    """Whether the learning rate is the experiment's own: none was measured for its optimiser."""
    is_convit = tree.trunk.variant in VARIANTS
    measured = tree.optim.name in ("adamw", "muon") and (is_convit or labels == "none")
    return not measured or labels == "probe"


def _stays(name: str, tree: Draft, images: int, labels: Labels) -> bool:
    """Whether an experiment keeps what it has, although there is a choice for this collection."""
    is_convit = tree.trunk.variant in VARIANTS
    if images >= PUBLISHED_FROM and name not in SIZE_OF_IMAGE:
        return True
    if name in ("global_crop_scale", "hidden_dim"):
        return labels != "none"
    if name == "lr":
        return _keeps_rate(tree, labels)
    if name == "optimizer":
        return bool(tree.run.fsdp) or not is_convit
    if name == "patch_size":
        return not is_convit
    # Probes start at their rate, and their features do not move.
    return name == "warmup_epochs" and not tree.optim.warmup_epochs


def _enlarge_crops(tree: Draft, explicit: frozenset[str], chosen: dict[str, Choice]) -> None:
    """Crops at least as large as the network takes."""
    least = 1 if tree.trunk.variant in VARIANTS else least_side(tree)
    for name, key in (("global_crop_size", "global_size"), ("local_crop_size", "local_size")):
        if name in chosen and f"crops.{key}" not in explicit and getattr(tree.crops, key) < least:
            chosen[name] = Choice(least, "smaller maps of this network have no position left")
            setattr(tree.crops, key, least)


def _labels(tree: Draft) -> Labels:
    """How an experiment learns labels."""
    if get_method(tree.method.name).frozen_trunk:
        return "probe"
    if is_classifier(tree.method.name):
        return "fine-tuning" if tree.weights else "scratch"
    return "none"


def _budget(
    tree: Draft,
    method: type[Method[Any]],
    images: int,
    size: tuple[int, int],
    given: dict[str, Value],
    labels: Labels,
    tested: float,
) -> Budget | None:
    """How many epochs fit into `CPU_MINUTES`; None for runs on GPUs."""
    placement = place(tree.run, tree.data.workers)
    if placement.device != "cpu":
        return None
    rules = scale_to_data(images, size, method.name, labels=labels)
    # A network does not change with the epochs that it is trained for.
    sizes = {name: value for name, value in given.items() if name in rules and name != "epochs"}

    def fitting(few_tokens: bool, crop: int = LARGEST_GLOBAL_CROP) -> Budget:
        least = Budget(FEWEST_EPOCHS, few_tokens, "", crop)
        choices = scale_to_data(images, size, method.name, sizes, budget=least, labels=labels)
        found = _fitting(tree, placement, method, images, choices, labels, few_tokens, tested)
        return dataclasses.replace(found, largest_crop=crop)

    if labels != "none":
        whole = fitting(False)
        if whole.epochs >= cast(int, rules["epochs"].value):
            return whole
        return fitting(True)
    found = fitting(True)
    # Weights that are there were made for the crops that they were trained with.
    if tree.weights or tree.trunk.variant not in VARIANTS or "global_crop_size" in sizes:
        return found
    for crop in FEW_TOKENS_CROPS:
        if found.epochs < ENOUGH_EPOCHS and crop < min(*size, LARGEST_GLOBAL_CROP):
            found = fitting(True, crop)
    return found


def _fitting(
    tree: Draft,
    placement: Placement,
    method: type[Method[Any]],
    images: int,
    choices: dict[str, Choice],
    labels: Labels,
    few_tokens: bool,
    tested: float,
) -> Budget:
    """The epochs, of crops and patches as chosen, that fit into `CPU_MINUTES`."""
    cores = placement.threads * placement.processes
    values = {
        name: choice.value for name, choice in choices.items() if isinstance(choice.value, int)
    }
    network = _network(tree, values["patch_size"])
    flops = CORE_FLOPS.get(tree.run.precision, CORE_FLOPS["fp32"])
    muon = _takes_muon(tree, choices, images, labels)
    work = cpu_seconds(network, method, images, values, flops, labels, tested, muon)
    speed = _speed(placement)
    epoch, looks = (part / speed for part in work)
    epochs = max(int((CPU_MINUTES * 60 - looks) / epoch), FEWEST_EPOCHS)
    minutes = (epochs * epoch + looks) / 60
    why = (
        f"about {minutes:.0f} minutes at {epoch:.1f} s an epoch on {cores} CPU threads, "
        "by the operations of this network"
    )
    return Budget(epochs, few_tokens, why)


def _takes_muon(tree: Draft, choices: dict[str, Choice], images: int, labels: Labels) -> bool:
    if "optimizer" in choices and not _stays("optimizer", tree, images, labels):
        return choices["optimizer"].value == "muon"
    return bool(tree.optim.name == "muon")


def planned_seconds(plan: Plan) -> float | None:
    """About how long a self-supervised run takes on a processor; None where nobody can tell.

    Args:
        plan: of the run.
    """
    placement, options = plan.placement, plan.settings
    if placement.device != "cpu":
        return None
    sizes = {
        "batch_size": options.optim.batch_size,
        "global_crop_size": options.crops.global_size,
        "local_crop_size": options.crops.local_size,
        "num_local_crops": options.crops.local_count,
    }
    flops = CORE_FLOPS.get(options.run.precision, CORE_FLOPS["fp32"])
    method, images = get_method(options.method.name), int(plan.facts["images"])
    try:
        muon = options.optim.name == "muon"
        epoch, looks = cpu_seconds(plan.trunk, method, images, sizes, flops, muon=muon)
    except UncountedError:
        return None
    return (options.optim.epochs * epoch + looks) / _speed(placement)


def _speed(placement: Placement) -> float:
    """Of all cores of a run, in those of one."""
    cores = placement.threads * placement.processes
    return (cores if cores == 1 else cores * SHARED_CORE) * placement.nodes


def cpu_seconds(
    network: AnyConfig,
    method: type[Method[Any]],
    images: int,
    sizes: dict[str, int],
    flops: float = CORE_FLOPS["fp32"],
    labels: Labels = "none",
    tested: float = 0.0,
    muon: bool = False,
) -> tuple[float, float]:
    """Core-seconds of an epoch, and of all evaluations of the features.

    Args:
        network: with the patch size of the run.
        method: whose teacher costs a forward pass of the global crops.
        images: number of training images.
        sizes: ``global_crop_size, batch_size`` and, of multi-crop methods, ``local_crop_size,
            num_local_crops``.
        flops: floating-point operations that a core does in a second.
        labels: where they are learned an image is seen once, and nothing looks at its features.
        tested: images of val that are tested per epoch, in the mean, where labels are learned.
        muon: whether Muon steps the matrices of a ConViT.
    """
    whole = operations(network, sizes["global_crop_size"])
    optimizer = muon_operations(network) / flops if muon else 0.0
    steps = images / sizes["batch_size"] * (STEP_SECONDS + optimizer)
    if labels != "none":
        passes = 1 if labels == "probe" else 3
        test = tested * (whole / flops + CROP_SECONDS)
        return images * (passes * whole / flops + CROP_SECONDS) + steps + test, 0.0
    locals_ = sizes.get("num_local_crops", 0)
    small = operations(network, sizes["local_crop_size"]) if locals_ else 0
    globals_ = method.global_crops
    student = 3 * (globals_ * whole + locals_ * small)
    teacher = globals_ * whole if method.has_teacher else 0
    crop = (globals_ + locals_) * CROP_SECONDS
    epoch = images * ((student + teacher) / flops + crop) + steps
    return epoch, LOOKS * images * whole / flops


def operations(network: AnyConfig, side: int) -> int:
    """Floating-point operations of the forward pass of one image, products and sums apart."""
    if isinstance(network, TrunkConfig):
        return operations_of(dataclasses.replace(network, img_size=side), side)
    tokens = (side // network.patch_size) ** 2
    dim = network.embed_dim
    linear = tokens * dim * dim * (4 + 2 * network.mlp_ratio)
    attention = 2 * tokens * tokens * dim
    embedding = tokens * dim * network.in_chans * network.patch_size**2
    return int(2 * (network.depth * (linear + attention) + embedding))


def muon_operations(network: AnyConfig) -> int:
    """Floating-point operations of Muon in a step; 0 for other networks than ConViT."""
    if isinstance(network, TrunkConfig):
        return 0
    dim, hidden = network.embed_dim, int(network.embed_dim * network.mlp_ratio)
    # Query and key, value, projection, MLP: the longer sides; the shorter one is dim.
    longer = (2 * dim, dim, dim, hidden, hidden)
    return network.depth * MUON_ITERATIONS * sum(4 * dim**2 * n + 2 * dim**3 for n in longer)


def _network(tree: Draft, patch: int) -> AnyConfig:
    """The trunk as given, for its sizes alone."""
    if is_other(tree.trunk.variant):
        return TrunkConfig(str(tree.trunk.variant), in_chans=int(tree.trunk.in_chans))
    names = ("in_chans", "embed_dim", "depth", "mlp_ratio")
    changes = {
        name: getattr(tree.trunk, name) for name in names if getattr(tree.trunk, name) is not None
    }
    base = dataclasses.asdict(create_config(tree.trunk.variant))
    # Not what must fit together, such as heads and width: the plan checks the network itself.
    free = {"local_init": False, "num_heads": 1, "num_gpsa_layers": 0}
    sizes = {"img_size": patch, "patch_size": patch}
    return ConViTConfig(**{**base, **changes, **free, **sizes})


def _given(tree: Draft, keys: tuple[str, ...]) -> Any:
    value = OmegaConf.select(tree, keys[0])
    return tuple(value) if OmegaConf.is_list(value) else value


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value
