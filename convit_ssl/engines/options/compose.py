"""Compose an experiment from files and command line, and refuse what does not exist.

Hydra finds the files and resolves the groups, over VISSL's own defaults. Values on the command
line are then laid over the schema one by one, so that an unknown key is answered with the nearest
valid one.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convit_ssl import plugins
from convit_ssl.compat import require_vissl
from convit_ssl.data.sources.registered import REGISTERED
from convit_ssl.engines.auto.words import EXPERIMENT, is_auto, provisional, refuse_without_race
from convit_ssl.engines.options.draft import Draft
from convit_ssl.engines.options.files import OwnFiles, own_files, refuse_hidden
from convit_ssl.engines.options.method_configs import named_experiment, offer_methods
from convit_ssl.engines.options.sources import check_own_files, keys_of_own_files, order_sources
from convit_ssl.engines.options.words import dotted_keys, hint
from convit_ssl.errors import UserError
from convit_ssl.methods import METHODS, get_method, self_supervised
from convit_ssl.models.trunks import TRUNKS, is_other
from convit_ssl.schema import Experiment

# Options that may be written without their section.
SHORT = {"teacher": "method.teacher"}
GROUPS = ("config", "data", "trunk", "method", "optim", "run")
# Parts of VISSL's tree that hold free keys: options of whatever is named beside them.
FREE_PARTS = (
    "config.LOSS.",
    "config.METERS.",
    "config.MODEL.TRUNK.",
    "config.OPTIMIZER.param_schedulers.",
    "config.DATA.TRAIN.COLLATE_FUNCTION_PARAMS",
    "config.SLURM.ADDITIONAL_PARAMETERS",
)


@dataclass
class Composed:
    """An experiment as written, before the data and the machine are looked at.

    Attributes:
        tree: everything, interpolations unresolved; `tree.config` is VISSL's part.
        explicit: dotted keys that the user gave and that nothing may change.
        is_ours: False for VISSL's own configurations, which have no options of ours.
        arguments: of the command line it was composed from.
        auto: the method is yet to be chosen by a race; `tree` has the first candidate's.
        race: what a race found, where one chose the method.
    """

    tree: Draft
    explicit: frozenset[str]
    is_ours: bool
    arguments: tuple[str, ...] = ()
    auto: bool = False
    race: Mapping[str, Any] | None = None


def experiments_dir() -> Path:
    """Where the experiments lie: configs/ beside the package, or inside an installed wheel."""
    package = Path(__file__).resolve().parents[2]
    checkout = package.parent / "configs"
    if (checkout / "config" / "convit_dino.yaml").is_file():
        return checkout
    return package / "experiments"


def vissl_dir() -> Path:
    """The folder of the installed VISSL package, found without importing it."""
    require_vissl()
    spec = importlib.util.find_spec("vissl")
    assert spec is not None and spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def compose_experiment(arguments: Sequence[str]) -> Composed:
    """Compose an experiment from command-line arguments such as ``config=convit_dino data=digits``.

    Raises:
        UserError: an experiment, group choice, key or value that does not exist or fit.
    """
    with own_files(arguments, GROUPS) as files:
        choices, values = _split(files.arguments)
        loaded = plugins.load(values.get("plugins", []))
        choices, values = _with_registered_data(choices, values)
        choices, values = _with_other_trunk(choices, values)
        auto = is_auto(choices)
        if auto:
            choices = provisional(choices, values)
        else:
            refuse_without_race(values)
        choices = named_experiment(choices)
        tree, own = _compose_groups(choices, files)
        if "experiment" not in tree:
            _refuse_without_header(tree, choices)
            return _compose_vissl(files)
    if files.experiment:
        tree.experiment = files.experiment
    if auto:
        tree.experiment = EXPERIMENT
    if named := loaded or plugins.load(tree.get("plugins") or []):
        values["plugins"] = named
    _check_experiment_keys(tree)
    tree = _with_schema(tree)
    valid = dotted_keys(tree)
    values = {
        SHORT.get(key, key) if SHORT.get(key) in valid else key: v for key, v in values.items()
    }
    for key, value in values.items():
        _apply(tree, key, value, valid)
    explicit = _explicit(choices, values) | own
    return Composed(
        cast("Draft", tree), explicit, is_ours=True, arguments=tuple(arguments), auto=auto
    )


def _with_registered_data(
    choices: list[str], values: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """``data=NAME`` of a plugin's data set: images of the user's own, listed by that name."""
    found = {f"data={name}": name for name in REGISTERED}
    kept = ["data=folder" if choice in found else choice for choice in choices]
    named = [found[choice] for choice in choices if choice in found]
    return kept, {"data.name": named[-1], **values} if named else values


def _with_other_trunk(
    choices: list[str], values: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """``trunk=timm:NAME`` and ``trunk=NAME`` of a plugin, which have no file."""
    files = {path.stem for path in (experiments_dir() / "trunk").glob("*.yaml")}
    named = [choice.partition("=")[2] for choice in choices if choice.startswith("trunk=")]
    found = [name for name in named if is_other(name) and name not in files]
    kept = [choice for choice in choices if choice not in {f"trunk={name}" for name in found}]
    return kept, {"trunk.variant": found[-1], **values} if found else values


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Group choices as written, and the values of all other options."""
    choices: list[str] = []
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.strip():
            raise UserError(
                f"cannot read {argument!r}: options are written key=value, "
                "for example optim.epochs=20"
            )
        if key in GROUPS or key[0] in "+~" or "/" in key:
            choices.append(argument)
        elif key == "plugins":
            values[key] = [word.strip() for word in text.strip("[] ").split(",") if word.strip()]
        else:
            values[key] = _value(argument, text)
    if not any(choice.startswith("config=") for choice in choices):
        raise UserError(
            "no experiment given; write config=NAME, for example config=convit_dino "
            f"(available: {', '.join(group_names('config'))})"
        )
    return choices, values


def _value(argument: str, text: str) -> Any:
    """A value by Hydra's grammar, or as it is written where that cannot read it.

    Paths and lists of subsets with commas are such values.
    """
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return text
    return text if override.is_sweep_override() else override.value()


def group_names(group: str, folders: Sequence[Path] = ()) -> list[str]:
    """What can be chosen from a group of configs/ and of folders of the user's own, sorted."""
    places = (experiments_dir(), *folders)
    names = {path.stem for place in places for path in (place / group).glob("*.yaml")}
    if group == "data":
        names |= {*REGISTERED}
    if group == "method":
        names |= {*METHODS}
    if group == "trunk":
        names |= {*TRUNKS}
    if group == "config":
        names |= {EXPERIMENT, *(f"convit_{name}" for name in self_supervised())}
    return sorted(names)


def _compose_groups(overrides: Sequence[str], files: OwnFiles) -> tuple[DictConfig, frozenset[str]]:
    """The composed tree, and the keys that files of the user's own set in it."""
    try:
        with (
            warnings.catch_warnings(),
            initialize_config_dir(str(vissl_dir() / "config"), version_base="1.3"),
        ):
            # Not every folder of the search path need be there.
            warnings.simplefilter("ignore")
            refuse_hidden(overrides, files.named, experiments_dir())
            order_sources(experiments_dir(), files.folders)
            check_own_files(overrides, files.folders)
            offer_methods(experiments_dir(), *files.folders)
            tree = compose("defaults", overrides=list(overrides))
            return tree, keys_of_own_files(overrides)
    except MissingConfigException as error:
        _refuse_missing(str(error.missing_cfg_file or ""), files.named)
        _refuse_choice(overrides, error, files.named)
    except yaml.YAMLError as error:
        raise UserError(f"an experiment file cannot be read: {_first_lines(error)}") from None
    except (ConfigCompositionException, HydraException, ValueError) as error:
        _refuse_choice(overrides, error, files.named)
    raise AssertionError("unreachable")


def _refuse_missing(file: str, folders: Sequence[Path]) -> None:
    """Name what a file's defaults list asks for in vain."""
    group, _, name = file.strip("/").rpartition("/")
    if group in GROUPS:
        names = group_names(group, folders)
        if name in names or name.startswith("file_"):
            return
        raise UserError(
            f"unknown {_word(group)} {name!r}{hint(name, names)} (available: {', '.join(names)})"
        ) from None


def _word(group: str) -> str:
    return "experiment" if group == "config" else group


def _refuse_choice(overrides: Sequence[str], error: Exception, folders: Sequence[Path]) -> None:
    """Name the group whose choice is missing, and what there is to choose."""
    for override in overrides:
        group, _, name = override.lstrip("+").partition("=")
        known = group not in GROUPS or name in group_names(group, folders)
        if not known and "/" not in name and not name.startswith("file_"):
            _refuse_missing(f"{group}/{name}", folders)
        if not known and name.endswith(".yaml"):
            raise UserError(
                f"{override}: not found, neither here nor in VISSL's configurations"
            ) from None
    raise UserError(_first_lines(error)) from None


def _refuse_without_header(tree: DictConfig, choices: Sequence[str]) -> None:
    """An experiment of ours whose keys landed among VISSL's."""
    if OmegaConf.select(tree, "config.experiment") is not None:
        named = next((word for word in choices if word.startswith("config=")), "this experiment")
        raise UserError(f"{named}: its file must begin with the line `# @package _global_`")


def _compose_vissl(files: OwnFiles) -> Composed:
    """One of VISSL's own configurations: its rules, with our words for a wrong key."""
    choices = [word for word in files.arguments if word.lstrip("+").startswith("config")]
    tree, _ = _compose_groups(choices, files)
    return Composed(cast("Draft", tree), frozenset(), is_ours=False)


def _with_schema(tree: DictConfig) -> DictConfig:
    """Lay the composed files over the typed schema."""
    method = str(OmegaConf.select(tree, "method.name"))
    schema = OmegaConf.structured(Experiment)
    schema.method = _method_schema(method)
    names = {field.name for field in fields(Experiment)}
    own = {str(key): tree._get_node(key) for key in tree if key in names}
    try:
        merged = OmegaConf.merge(schema, OmegaConf.create(own))
    except OmegaConfBaseException as error:
        raise UserError(f"in the experiment's files: {_first_lines(error)}") from None
    assert isinstance(merged, DictConfig)
    result = OmegaConf.create({str(key): merged._get_node(key) for key in merged})
    OmegaConf.set_struct(result, False)
    result.config = tree.config
    return result


def _check_experiment_keys(tree: DictConfig) -> None:
    """Refuse keys in YAML files that neither the schema nor VISSL knows."""
    schema = OmegaConf.structured(Experiment)
    method = OmegaConf.select(tree, "method.name")
    schema.method = _method_schema(method)
    valid = {*dotted_keys(schema), *_vissl_keys(), "config"}
    for key in dotted_keys(tree):
        if key not in valid and not key.startswith(FREE_PARTS):
            raise UserError(
                f"unknown key {key!r} in the files of experiment "
                f"{tree.experiment!r}{hint(key, valid)}"
            )


@functools.cache
def _vissl_keys() -> frozenset[str]:
    """Dotted keys of VISSL's defaults, read in C where PyYAML can: the file is long."""
    text = (vissl_dir() / "config" / "defaults.yaml").read_text(encoding="utf-8")
    return frozenset(dotted_keys(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))


def _method_schema(name: object) -> DictConfig:
    """The options of a method at their defaults."""
    kind = get_method(name)
    schema = OmegaConf.structured(kind.Options(name=kind.name))
    assert isinstance(schema, DictConfig)
    return schema


def _apply(tree: DictConfig, key: str, value: Any, valid: list[str]) -> None:
    if key not in valid and not key.startswith(FREE_PARTS):
        raise UserError(f"unknown option {key!r}{hint(key, valid)}")
    parent, leaf = _parent(tree, key)
    current = parent._get_node(leaf) if leaf in parent else None
    if key.startswith("config.") and current is not None and current._is_interpolation():
        source = str(current._value()).removeprefix("${").removesuffix("}")
        if not source.startswith("derived."):
            raise UserError(f"{key} is filled from {source}; set {source}=... instead")
        raise UserError(f"{key} is computed from the experiment's options and cannot be set")
    if isinstance(current, DictConfig) and not isinstance(value, dict):
        raise UserError(
            f"{key} is a section, not a value; set one of its keys: "
            f"{', '.join(f'{key}.{child!s}' for child in current)}"
        )
    try:
        OmegaConf.update(tree, key, value, force_add=key.startswith(FREE_PARTS))
    except OmegaConfBaseException as error:
        raise UserError(f"{key}={value!r}: {_first_lines(error)}") from None


def _parent(tree: DictConfig, key: str) -> tuple[DictConfig, str]:
    *path, leaf = key.split(".")
    node: Any = tree
    for name in path:
        child = node._get_node(name) if name in node else None
        if not isinstance(child, DictConfig):
            return OmegaConf.create({}), leaf
        node = child
    return node, leaf


def _explicit(choices: Sequence[str], values: dict[str, Any]) -> frozenset[str]:
    """The keys and the groups that the command line names."""
    return frozenset(values) | {choice.partition("=")[0] for choice in choices}


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2]) if lines else type(error).__name__
