"""What a method is, and the registry that all other code asks.

A method is one class in one file. Class attributes and class methods describe it: options, views,
head, what a small collection wants. An instance is the loss of one run, with the calls that the
train step makes around it. `docs/examples/own_method.py` is a complete one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from convit_ssl.data.augment.spec import AugmentConfig
from convit_ssl.errors import UserError
from convit_ssl.methods.choices import Chooser
from convit_ssl.methods.ema import build_teacher, update_teacher
from convit_ssl.methods.multicrop import forward_packed
from convit_ssl.methods.scale_tables import CollectionRule, PublishedRun, SmallRun
from convit_ssl.methods.schedules import CosineSchedule
from convit_ssl.options import MethodOptions, option

# What options of labelled methods mean.
TEST_EVERY = (
    "Epochs between two tests on val; there is always one after the last epoch. By default tests "
    "take a tenth of the time of training at most."
)
CLASSES = "Number of classes; by default that of the data."


@dataclass
class LabelledOptions(MethodOptions):
    """Options of a method that learns labels."""

    num_classes: int | None = option(None, CLASSES, unit="classes", least=2)
    test_every: int | None = option(None, TEST_EVERY, unit="epochs", least=1)


@dataclass
class TeacherOptions(MethodOptions):
    """Options of a method with a momentum teacher; a cosine leads from the one to the other."""

    momentum: float = option(0.996, "Momentum of the teacher at the start.", least=0, most=1)
    momentum_end: float = option(1.0, "Momentum of the teacher at the end.", least=0, most=1)


Own = TypeVar("Own", bound=MethodOptions)


@dataclass(frozen=True)
class Crops:
    """The crops of an image: sides in pixels, ranges of their area as a share of the image's."""

    global_size: int = 224
    global_scale: tuple[float, float] = (0.08, 1.0)
    local_size: int = 96
    local_count: int = 0
    local_scale: tuple[float, float] = (0.05, 0.4)


@dataclass(frozen=True)
class Run:
    """What a method may know of the run that it is part of.

    Attributes:
        global_crops: large crops of an image, which come first.
        local_crops: small ones.
        epochs: of the whole run.
        num_classes: of the images.
        num_images: that are learned from; 0 where it is not known.
        load_classifier: reads a network from a checkpoint.
        load_teacher: opens a frozen network by its name.
    """

    global_crops: int = 2
    local_crops: int = 0
    epochs: int | float = 100
    num_classes: int = 0
    num_images: int = 0
    load_classifier: Callable[[str], nn.Module] | None = field(default=None, compare=False)
    load_teacher: Callable[[str], nn.Module] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Progress:
    """Where training is: optimiser steps done, and steps in an epoch."""

    step: int
    steps_per_epoch: int

    @property
    def epoch(self) -> float:
        """Epochs done, with fractions."""
        return self.step / self.steps_per_epoch


class Method(nn.Module, Generic[Own]):
    """A method: its class is the description, an instance the loss of one run.

    A subclass sets ``name`` and ``Options``, writes `views`, `head`, ``__init__`` and ``forward``,
    and is registered by `register_method`.

    Attributes:
        name: as in ``method=NAME``.
        Options: dataclass with a default and a sentence for each option.
        labelled: it learns from labels, and val is tested.
        frozen_trunk: only the head learns.
        has_teacher: a second network is run on the global crops.
        global_crops: how many large crops it compares.
        local_crops: how many small ones it is published with; 0 for a method without.
        smallest_share: of the image's area in a global crop, as published.
        published: length and batch from 200,000 images up.
        small: rate and batch under 200,000 images.
        experiment: sections ``optim``, ``crops`` and ``trunk`` of ``config=convit_NAME``, where
            there is no YAML file of that name: what differs from the defaults.
        pairs: the loss compares each row with every other one, which takes memory.
        by_number: targets are the numbers of the images, from 0, in place of their classes.
        all_tokens: the head gets (rows, 1 + patches, width), the image's feature first, in place of
            that feature alone.
        hides_patches: the trunk gets a token that stands for a hidden patch, and `on_views` says
            which are hidden (``trunk.hidden_patches``).
        spreads_features: the loss keeps features from using few directions.
        teacher: the momentum copy of the student, None where the method has none.
        stats: detached figures of the last step, for the log.
        parts: in how many parts a teacher sees a batch, as the student does.
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    labelled: ClassVar[bool] = False
    frozen_trunk: ClassVar[bool] = False
    has_teacher: ClassVar[bool] = False
    global_crops: ClassVar[int] = 2
    local_crops: ClassVar[int] = 0
    smallest_share: ClassVar[float] = 0.08
    published: ClassVar[PublishedRun] = PublishedRun(300, 1024, 10, "unless published otherwise")
    small: ClassVar[SmallRun] = SmallRun(2e-3, 128)
    experiment: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    pairs: ClassVar[bool] = False
    by_number: ClassVar[bool] = False
    all_tokens: ClassVar[bool] = False
    hides_patches: ClassVar[bool] = False
    spreads_features: ClassVar[bool] = False

    def __init__(self, options: Own, run: Run) -> None:
        super().__init__()
        self.teacher: nn.Module | None = None
        self.stats: dict[str, Tensor | float] = {}
        self.parts = 1

    @classmethod
    def views(cls, options: Own, crops: Crops) -> AugmentConfig:
        """How the crops of an image are made."""
        raise TypeError(f"{cls.__name__} has no views: define a class method views(options, crops)")

    @classmethod
    def head(cls, options: Own, width: int, run: Run) -> nn.Module:
        """The head behind features of a width; it sees all crops at once, crop-major."""
        raise TypeError(f"{cls.__name__} has no head: define head(options, width, run)")

    @classmethod
    def scale(cls, choose: Chooser, rule: CollectionRule, width: int, small: bool) -> None:
        """Choose options by the size of the collection and the trunk's width.

        Args:
            choose: takes names of options with values and reasons.
            rule: the row of the collection.
            width: channels of the trunk.
            small: under 200,000 images, where published sizes do not fit.
        """

    @classmethod
    def loss_floats(cls, options: Own) -> int:
        """Floats that the loss holds whatever the batch, for the estimate of memory."""
        return 0

    @classmethod
    def loss_floats_per_row(cls, options: Own) -> int:
        """Floats that the loss holds for each view of an image, beyond the head's outputs."""
        return 0

    @classmethod
    def softmax_width(cls, options: Own) -> int | None:
        """Outputs of a softmax whose uniformity is a collapse; None for other losses."""
        return None

    def attach(self, student: nn.Module) -> None:
        """See the student (``trunk`` and ``heads``) once it is built, before a checkpoint loads."""

    def prepare(self, whole_features: Callable[[str], Tensor]) -> None:
        """Take a named network's features of all whole images, by number, if they are wanted."""

    def on_views(self, student: nn.Module, views: Any, progress: Progress) -> None:
        """Decide what the student sees of the step's images, before its forward pass."""

    def observe(self, inputs: Any, progress: Progress) -> None:
        """See the step's images before the loss is computed."""

    def on_gradients(self, student: nn.Module, progress: Progress) -> None:
        """Change gradients before the optimiser's step."""

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Follow the student after the optimiser's step."""


class TeacherMethod(Method[Own]):
    """A method with a momentum teacher, whose momentum rises by a cosine over the run."""

    has_teacher = True

    def __init__(self, options: Own, run: Run) -> None:
        super().__init__(options, run)
        assert isinstance(options, TeacherOptions)
        self.momentum = CosineSchedule(options.momentum, options.momentum_end, run.epochs)

    def attach(self, student: nn.Module) -> None:
        """Copy the student."""
        self.teacher = build_teacher(student)
        self.train(self.training)

    def teacher_features(self, views: Sequence[Tensor]) -> Tensor:
        """The teacher's features of some views, view-major, without a graph."""
        teacher: Any = self.teacher
        return forward_packed(teacher.trunk, views).detach()

    def on_update(self, student: nn.Module, progress: Progress) -> None:
        """Move the teacher towards the student."""
        assert self.teacher is not None
        momentum = self.momentum.value(progress.step, progress.steps_per_epoch)
        self.stats["momentum"] = momentum
        update_teacher(student, self.teacher, momentum)

    def train(self, mode: bool = True) -> TeacherMethod[Own]:
        """The teacher stays in eval mode, but for batch normalisation in its head.

        That uses the statistics of the batch, as published: running ones lag behind a student
        that changes quickly, and a teacher with wrong ones says the same of every image.
        """
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
            for module in self.teacher.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(mode)
        return self


def hold_trunk(student: nn.Module) -> None:
    """Keep the trunk's weights in this step: an optimiser skips what has no gradient."""
    for parameter in student.get_submodule("trunk").parameters():
        parameter.grad = None


METHODS: dict[str, type[Method[Any]]] = {}
Kind = TypeVar("Kind", bound=type[Method[Any]])


def register_method(method: Kind) -> Kind:
    """Make a method known by its name, as a class decorator.

    Raises:
        UserError: it lacks a part, or another method has its name.
    """
    for part in ("name", "Options", "views", "head", "forward"):
        if getattr(method, part, None) in (None, getattr(Method, part, None)):
            raise UserError(f"method {method.__name__} defines no {part}; see CONTRIBUTING.md")
    known = METHODS.get(method.name)
    if known is not None and known.__module__ != method.__module__:
        raise UserError(
            f"there are two methods named {method.name!r}, in {known.__module__} and "
            f"{method.__module__}; rename one"
        )
    METHODS[method.name] = method
    return method


def get_method(name: object) -> type[Method[Any]]:
    """The method of a name.

    Raises:
        UserError: there is none.
    """
    if str(name) not in METHODS:
        from convit_ssl import plugins

        near = difflib.get_close_matches(str(name), METHODS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(
            f"unknown method.name {name!r}{hint} (available: {', '.join(METHODS)})"
            f"{plugins.advice()}"
        )
    return METHODS[str(name)]


def options_of(section: MethodOptions | Mapping[str, Any]) -> MethodOptions:
    """The typed options of a method from its section, ``name`` among them."""
    if isinstance(section, MethodOptions):
        return section
    kind = get_method(section["name"]).Options
    known = {entry.name for entry in fields(kind)}
    return kind(**{key: _plain(value) for key, value in section.items() if key in known})


def _plain(value: Any) -> Any:
    """A list of a configuration, which has a type of its own, as a list."""
    return [*value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def test_every(section: MethodOptions | Mapping[str, Any]) -> int:
    """Epochs between two tests on val, of any method's options; 1 where no labels are learned."""
    options = options_of(section)
    return (options.test_every or 1) if isinstance(options, LabelledOptions) else 1


def is_classifier(name: object) -> bool:
    """Whether a checkpoint of this method holds a classifier behind its trunk."""
    method = METHODS.get(str(name))
    return method is not None and method.labelled and not method.frozen_trunk


def self_supervised() -> tuple[str, ...]:
    """Names of the methods that need no labels."""
    return tuple(name for name, method in METHODS.items() if not method.labelled)
