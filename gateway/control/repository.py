"""Finds models in a directory: which there are, in which versions, with which settings.

Three layouts, side by side in one repository::

    MODELS/<name>/<version>/model.onnx     Triton's; a version is digits, or any text such as v10
    MODELS/<name>/model.onnx               one version, "1"
    MODELS/<name>.onnx                     one version, "1"; no settings

Settings (``model.toml``, ``config.pbtxt``), sample rows (``warmup.npz``) and golden requests
(``golden/``) lie in ``MODELS/<name>``. Names that begin with a dot are not looked at.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from gateway.errors import ConfigError, StartupError
from gateway.serving.model_config import TOML_NAME, TRITON_NAME, read_settings
from gateway.serving.onnx.graph import files_beside
from gateway.serving.settings import ModelSettings, VersionPolicy

#: The version of a model that is not in a version's directory.
ONLY_VERSION: Final = "1"

#: Sample rows under this name are used although no setting names them.
SAMPLES_NAME: Final = "warmup.npz"

#: What identifies the files of a version: name, size and modification time of each.
Fingerprint: TypeAlias = tuple[tuple[str, int, int], ...]

#: Files beside a model that say how it is watched: the monitors follow them by themselves, and the
#: model is not loaded again for them.
WATCHING: Final = frozenset({"monitor.toml", "profile.json", "labels.npz"})

#: The directory of golden requests, of a model and of a version.
GOLDEN_NAME: Final = "golden"

_LIKE_VERSION: Final = re.compile(r"v?\d", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What a repository holds of one model.

    Attributes:
        name: the model's name.
        path: its directory, or its file in the bare layout.
        versions: model file by version, of the versions that the policy loads, lowest first; empty
            where the model cannot be served, and then ``problems`` says why.
        found: model file by version, of every version that is there, lowest first.
        settings: its settings; the defaults where the file of them is wrong.
        problems: sentences, each about a part of the model that cannot be served.
    """

    name: str
    path: Path
    versions: dict[str, Path]
    found: dict[str, Path] = field(default_factory=dict)
    settings: ModelSettings = field(default_factory=ModelSettings)
    problems: tuple[str, ...] = ()


class Repository:
    """One directory of models. Reads the file system at every call and keeps nothing."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path

    def scan(self) -> dict[str, ModelSource]:
        """Every model in the directory, by name, in the names' order; blocks.

        What is wrong with one model is told in its ``problems`` and harms no other.

        Raises:
            ConfigError: the repository is not a directory that can be read.
        """
        try:
            entries = sorted(self.path.iterdir())
        except OSError as error:
            raise ConfigError(
                f"the model repository {self.path} cannot be read: {error.strerror}"
            ) from error
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        folders = {entry.name: _read_folder(entry) for entry in visible if entry.is_dir()}
        files = {
            entry.stem: ModelSource(entry.stem, entry, {ONLY_VERSION: entry}, {ONLY_VERSION: entry})
            for entry in visible
            if entry.suffix == ".onnx" and entry.is_file()
        }
        return _merged([folders, files])


def scan_repositories(paths: Iterable[Path]) -> dict[str, ModelSource]:
    """The models of several repositories; a name that two of them hold is the first one's.

    Raises:
        ConfigError: a repository is not a directory that can be read.
    """
    return _merged([Repository(path).scan() for path in paths])


def find_version(folder: Path) -> tuple[str, str, Path, ModelSettings]:
    """Name, version, model file and settings of a version.

    Args:
        folder: ``MODELS/NAME/VERSION``; ``MODELS/NAME`` where the model has no directories of
            versions, or only one; a bare ``.onnx`` file.

    Raises:
        ConfigError: there is no such version; the message says what was expected.
    """
    # A directory with a model in it is a version, or a model that has but one: what is around it
    # tells.
    is_version = folder.is_dir() and (
        _LIKE_VERSION.match(folder.name) is not None
        or any((folder.parent / name).is_file() for name in (TOML_NAME, TRITON_NAME))
    )
    owner = folder.parent if is_version else folder
    source = Repository(owner.parent).scan().get(owner.name if owner.is_dir() else owner.stem)
    if source is not None and is_version and folder.name in source.found:
        return source.name, folder.name, source.found[folder.name], source.settings
    if source is not None and not is_version and len(source.found) == 1:
        (version, path), *_ = source.found.items()
        return source.name, version, path, source.settings
    raise ConfigError(
        f"there is no model version at {folder}: expected MODELS/NAME/VERSION, or MODELS/NAME "
        "where it has one version"
    )


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions as people count: 9 before 10, v9 before v10, plain numbers before names."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", version)
        if part
    )


def chosen_versions(
    found: Iterable[str], policy: VersionPolicy
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The versions that the policy loads, lowest first, and those it names that are not there."""
    there = sorted(found, key=version_key)
    if policy.specific:
        missing = tuple(version for version in policy.specific if version not in there)
        return tuple(version for version in there if version in policy.specific), missing
    return tuple(there if policy.latest is None else there[-policy.latest :]), ()


def fingerprint(source: ModelSource, path: Path) -> Fingerprint:
    """The files of the version at ``path``: with those beside it, which may hold its weights.

    A bare model shares its directory with others; of what lies there it has its external data.
    Golden requests are none of a version's files: they decide whether it may serve, not what it is.
    """
    if not source.path.is_dir():
        return _marks([path, *files_beside(path)])
    golden = path.parent / GOLDEN_NAME
    return _marks(f for f in sorted(path.parent.rglob("*")) if not f.is_relative_to(golden))


def golden_fingerprint(source: ModelSource) -> Fingerprint:
    """The golden requests of a model and of all its versions; blocks."""
    if not source.path.is_dir():
        return ()
    folders = dict.fromkeys((source.path, *(path.parent for path in source.found.values())))
    return _marks(file for folder in folders for file in sorted((folder / GOLDEN_NAME).rglob("*")))


def _marks(files: Iterable[Path]) -> Fingerprint:
    marks = [(file, file.stat()) for file in files if file.is_file() and file.name not in WATCHING]
    return tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in marks)


def _read_folder(folder: Path) -> ModelSource:
    problems: list[str] = []
    settings = ModelSettings()
    try:
        settings = read_settings(folder)
        files = _version_files(folder, settings.model_filename, problems)
    except StartupError as error:
        return ModelSource(folder.name, folder, {}, problems=(str(error),))
    except OSError as error:
        reason = f"{folder} cannot be read: {error.strerror}"
        return ModelSource(folder.name, folder, {}, problems=(reason,))
    if settings.warmup is None and (folder / SAMPLES_NAME).is_file():
        settings = replace(settings, warmup=folder / SAMPLES_NAME)
    settings = replace(settings, golden=folder / GOLDEN_NAME)
    chosen, missing = chosen_versions(files, settings.version_policy)
    problems += [
        f"version {version}, which the version policy names, is not there" for version in missing
    ]
    if not files and not problems:
        problems.append(
            f"{folder} holds no model: expected <version>/{settings.model_filename} or"
            f" {settings.model_filename} in it"
        )
    return ModelSource(
        folder.name,
        folder,
        {version: files[version] for version in chosen},
        {version: files[version] for version in sorted(files, key=version_key)},
        settings,
        tuple(problems),
    )


def _version_files(folder: Path, filename: str, problems: list[str]) -> dict[str, Path]:
    """The model file of each version in a model's directory; adds to ``problems``."""
    files: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        file = _model_file(entry, filename)
        if file is not None:
            files[entry.name] = file
        elif _LIKE_VERSION.match(entry.name):
            # Any other directory may hold labels, tokenizers and the like.
            problems.append(f"version {entry.name} holds no {filename}")
    own = _model_file(folder, filename)
    if own is not None and files:
        problems.append(
            f"{own.name} is not served: the model has directories of versions beside it"
        )
    elif own is not None:
        files[ONLY_VERSION] = own
    return files


def _model_file(folder: Path, filename: str) -> Path | None:
    """The named file, or the only ``.onnx`` file that there is."""
    if (folder / filename).is_file():
        return folder / filename
    others = [file for file in folder.glob("*.onnx") if not file.name.startswith(".")]
    return others[0] if len(others) == 1 and others[0].is_file() else None


def _merged(scans: Iterable[dict[str, ModelSource]]) -> dict[str, ModelSource]:
    merged: dict[str, ModelSource] = {}
    for scan in scans:
        for name, source in scan.items():
            if name not in merged:
                merged[name] = source
                continue
            first = merged[name]
            clash = f"{source.path} is not served: {first.path} has the same name"
            merged[name] = replace(first, problems=(*first.problems, clash))
    return dict(sorted(merged.items()))
