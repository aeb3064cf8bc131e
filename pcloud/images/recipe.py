"""Recipes: `templates/images/*.yaml` -> a chain of layers with one hash.

A recipe may stand on another one (`base`), which comes first with its packages, files and
commands. The hash covers every layer, the content of every file a layer brings from beside
its recipe, and the version of the builder: equal hash, nothing to build.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from pcloud.document import load_model, read_file
from pcloud.errors import BadInput
from pcloud.model import Frozen
from pcloud.values import Argv, Name

BUILDER_VERSION = 1
"""Raised when the builder makes something else of the same recipe."""

MAX_LAYERS = 8
LARGEST_SOURCE = 1 << 30
"""Bytes of one file beside a recipe."""


def _inside(path: str) -> str:
    if ".." in path.split("/"):
        raise ValueError("the path must not contain ..")
    return path


InImage = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._@:+/\\-]{1,240}$"), AfterValidator(_inside)]
DebianPackage = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]{1,80}(=[A-Za-z0-9.+:~-]{1,60})?$")]
PypiPackage = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\[\],-]{0,80}([=<>!~]=?[A-Za-z0-9.*,<>=!~-]{1,60})?$")
]
Mode = Annotated[str, StringConstraints(pattern=r"^[0-7]{4}$")]
Owner = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}:[a-z_][a-z0-9_-]{0,31}$")]
Beside = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._][A-Za-z0-9._/-]{0,200}$")]
Unit = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9@._:\\-]{1,100}\.(service|socket|timer|mount|automount|path|target|swap|slice)$"
    ),
]
Pattern = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._/*?!\[\]@+-]{1,200}$"), AfterValidator(_inside)]
Module = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,60}$")]
CommandLine = Annotated[str, StringConstraints(pattern=r"^[ -~]{0,1000}$")]


class Pypi(Frozen):
    """Python packages, put in `target` by this machine's pip and byte-compiled there."""

    target: InImage
    packages: Annotated[tuple[PypiPackage, ...], Field(min_length=1, max_length=200)]


class File(Frozen):
    """One file, folder or link of the image. `source` is relative to the recipe's folder."""

    path: InImage
    content: Annotated[str, StringConstraints(max_length=500_000)] | None = None
    source: Beside | None = None
    link: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    mode: Mode | None = None
    owner: Owner = "root:root"
    exclude: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = ("__pycache__", "*.pyc")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.content, self.source, self.link)) != 1:
            raise ValueError("say where the file comes from: content, source or link, one of the three")
        return self


class Kernel(Frozen):
    """What the initrd holds, and the kernel's command line; a layer adds to its base's."""

    init: Beside | None = None
    modules: tuple[Module, ...] = ()
    cmdline: CommandLine = ""


class Recipe(Frozen):
    """One file of `templates/images`. It names no mirror: the machine's own sources are used."""

    recipe: Name
    base: Name | None = None
    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,20}$")] | None = None
    packages: Annotated[tuple[DebianPackage, ...], Field(max_length=500)] = ()
    pypi: Pypi | None = None
    files: Annotated[tuple[File, ...], Field(max_length=500)] = ()
    commands: Annotated[tuple[Argv, ...], Field(max_length=200)] = ()
    mask: Annotated[tuple[Unit, ...], Field(max_length=500)] = ()
    remove: Annotated[tuple[Pattern, ...], Field(max_length=500)] = ()
    size_gib: Annotated[int, Field(ge=1, le=2048)] | None = None
    kernel: Kernel = Kernel()


@dataclass(frozen=True)
class Layer:
    """One recipe of a chain. `digest` covers it and everything below it."""

    recipe: Recipe
    folder: Path
    digest: str


@dataclass(frozen=True)
class Chain:
    """A recipe with everything it stands on, base first. Never empty."""

    layers: tuple[Layer, ...]

    @property
    def name(self) -> str:
        return self.layers[-1].recipe.recipe

    @property
    def digest(self) -> str:
        return self.layers[-1].digest

    @property
    def base(self) -> Chain | None:
        return Chain(self.layers[:-1]) if len(self.layers) > 1 else None

    @property
    def suite(self) -> str:
        return next(layer.recipe.suite for layer in reversed(self.layers) if layer.recipe.suite)

    @property
    def size_gib(self) -> int:
        return next((layer.recipe.size_gib for layer in reversed(self.layers) if layer.recipe.size_gib), 2)

    @property
    def init(self) -> Path:
        """The script that the initrd starts as its first program."""
        named = ((layer.folder, layer.recipe.kernel.init) for layer in reversed(self.layers))
        return next(folder / init for folder, init in named if init)

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m for layer in self.layers for m in layer.recipe.kernel.modules))

    @property
    def cmdline(self) -> str:
        return " ".join(layer.recipe.kernel.cmdline for layer in self.layers if layer.recipe.kernel.cmdline)

    @property
    def masked(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(unit for layer in self.layers for unit in layer.recipe.mask))

    @property
    def removed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pattern for layer in self.layers for pattern in layer.recipe.remove))


def load_recipe(path: Path) -> Chain:
    """The recipe of a file with its chain of bases. Raises `BadInput` or `BadDocument`."""
    found: list[tuple[Recipe, Path]] = []
    following: Path | None = path
    while following is not None:
        document, recipe = load_model(following, Recipe)
        where = document.name
        if recipe.recipe != following.stem:
            what = f"the recipe calls itself {recipe.recipe}"
            raise BadInput(what, where=where, next=f"say recipe: {following.stem}")
        if any(recipe.recipe == above.recipe for above, _ in found) or len(found) >= MAX_LAYERS:
            names = " -> ".join([*(above.recipe for above, _ in found), recipe.recipe])
            raise BadInput(f"the bases run in a circle: {names}", where=where, next="take one base: out")
        found.append((recipe, following.parent))
        following = following.parent / f"{recipe.base}.yaml" if recipe.base else None
    return _chain(list(reversed(found)), str(path))


def find_recipes(folder: Path) -> dict[str, Path]:
    """Every recipe file of a folder by its name, sorted."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_leaves(recipes: dict[str, Path]) -> dict[str, Path]:
    """The recipes that no other one stands on: what a plain `image build` makes."""
    bases = {layer.recipe.recipe for path in recipes.values() for layer in load_recipe(path).layers[:-1]}
    return {name: path for name, path in recipes.items() if name not in bases}


def walk_source(source: Path, exclude: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Files, links and folders below a folder, as (relative path, path), in a fixed order."""
    for path in sorted(source.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in exclude):
            continue
        yield path.name, path
        if path.is_dir() and not path.is_symlink():
            for name, below in walk_source(path, exclude):
                yield f"{path.name}/{name}", below


def _chain(found: list[tuple[Recipe, Path]], where: str) -> Chain:
    layers: list[Layer] = []
    digest = f"builder {BUILDER_VERSION}"
    for recipe, folder in found:
        digest = _layer_digest(recipe, folder, digest)
        layers.append(Layer(recipe, folder, digest))
    chain = Chain(tuple(layers))
    if not any(recipe.suite for recipe, _ in found):
        raise BadInput("neither the recipe nor its base names a suite", where=where, next="add suite: bookworm")
    if not any(recipe.kernel.init for recipe, _ in found):
        raise BadInput("neither the recipe nor its base names the initrd's script", where=where, next="add base: base")
    return chain


def _layer_digest(recipe: Recipe, folder: Path, below: str) -> str:
    whole = hashlib.sha256(below.encode())
    whole.update(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode())
    for file in recipe.files:
        if file.source is not None:
            _hash_source(whole, folder / file.source, file.exclude)
    if recipe.kernel.init is not None:
        _hash_source(whole, folder / recipe.kernel.init, ())
    return whole.hexdigest()


def _hash_source(whole: hashlib._Hash, source: Path, exclude: tuple[str, ...]) -> None:
    if not source.exists():
        raise BadInput("there is no such file or folder beside the recipe", where=str(source), next="correct `source`")
    entries = walk_source(source, exclude) if source.is_dir() else [(source.name, source)]
    for name, path in entries:
        if path.is_symlink():
            whole.update(f"\0link {name} {path.readlink()}".encode())
        elif not path.is_dir():
            data, status = read_file(path, LARGEST_SOURCE)
            executable = bool(status.st_mode & stat.S_IXUSR)
            whole.update(f"\0file {name} {executable} {hashlib.sha256(data).hexdigest()}".encode())
        else:
            whole.update(f"\0folder {name}".encode())
