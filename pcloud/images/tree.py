"""A recipe's chain -> a folder that holds a whole Debian system.

The lowest layer is made by mmdebstrap; every further layer's packages are installed by this
machine's apt with dpkg in the tree (`DPkg::Chroot-Directory`, as mmdebstrap itself does), so
proxies, certificates and keys of the machine hold there too. No service starts: the tree has
a `policy-rc.d` that says no while it is being made.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pcloud.errors import ImageError
from pcloud.images.recipe import Chain, File, Layer, Pypi, walk_source
from pcloud.images.sandbox import Sandbox
from pcloud.images.sources import find_sources, read_apt_options

Say = Callable[[str], None]

_NO_DOCS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/bug/*",
)
_POLICY = Path("usr/sbin/policy-rc.d")
# What a build leaves, and what must not be the same on two servers.
_LEFTOVERS = (
    "/etc/hostname",
    "/etc/ssh/ssh_host_*",
    "/tmp/*",  # noqa: S108 - the image's
    "/var/cache/apt/*",
    "/var/cache/debconf/*-old",
    "/var/lib/apt/lists/*",
    "/var/lib/dpkg/*-old",
    "/var/log/*.log",
    "/var/log/apt",
)
# The kernel's package would spend seconds on an initrd of its own; ours is made elsewhere.
_ENV = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "INITRD": "No",
}
_PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "TMPDIR")


def make_lowest(chain: Chain, tree: Path, sandbox: Sandbox, say: Say) -> None:
    """The chain's first layer, in a folder that does not exist yet."""
    layer = chain.layers[0]
    say("system packages")
    sources = tree.with_suffix(".sources")
    sources.write_text(find_sources(chain.suite))
    argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--skip=check/empty"]
    argv += ["--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", f"--include={','.join(layer.recipe.packages)}"]
    argv += [f"--aptopt={option}" for option in (*read_apt_options(), 'APT::Install-Recommends "false";')]
    argv += [f"--dpkgopt={option}" for option in (*_NO_DOCS, "force-unsafe-io", "force-confold")]
    sandbox.run([*argv, chain.suite, str(tree), str(sources)], env=_environment(), timeout_s=3600)
    sources.unlink()
    (tree / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)
    (tree / _POLICY).write_text("#!/bin/sh\n# no service starts while the image is being made\nexit 101\n")
    (tree / _POLICY).chmod(0o755)
    _add_rest(layer, tree, sandbox, say)


def add_layer(layer: Layer, tree: Path, cache: Path, sandbox: Sandbox, say: Say) -> None:
    """One further layer on a tree that has everything below it. `cache` keeps apt's files."""
    if layer.recipe.packages:
        say("packages")
        _install(layer, tree, cache, sandbox)
    _add_rest(layer, tree, sandbox, say)


def finish(chain: Chain, tree: Path) -> None:
    """Mask units, delete what no server needs, and what must never be the same on two servers."""
    for unit in chain.masked:
        mask = tree / "etc/systemd/system" / unit
        mask.parent.mkdir(parents=True, exist_ok=True)
        _remove(mask)
        mask.symlink_to("/dev/null")
    for pattern in (*chain.removed, *_LEFTOVERS, f"/{_POLICY}"):
        for found in list(tree.glob(pattern.lstrip("/"))):
            _remove(_inside(tree, found))
    # systemd takes an empty file for "no identity yet" and makes one up for this boot only.
    (tree / "etc/machine-id").write_text("")


def list_packages(tree: Path) -> dict[str, str]:
    """Installed Debian packages and their versions, from the tree's dpkg status."""
    found: dict[str, str] = {}
    for paragraph in (tree / "var/lib/dpkg/status").read_text(errors="replace").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if ": " in line and not line.startswith(" ")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields.get("Status", "").endswith(" installed"):
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))


def list_pypi(chain: Chain, tree: Path) -> dict[str, str]:
    """Python packages that the chain's recipes put into the tree, and their versions."""
    found: dict[str, str] = {}
    for layer in chain.layers:
        if layer.recipe.pypi is not None:
            for info in (tree / layer.recipe.pypi.target.lstrip("/")).glob("*.dist-info"):
                name, _, version = info.name.removesuffix(".dist-info").partition("-")
                found[name] = version
    return dict(sorted(found.items()))


def _add_rest(layer: Layer, tree: Path, sandbox: Sandbox, say: Say) -> None:
    if layer.recipe.pypi is not None:
        say("Python packages")
        _add_pypi(layer.recipe.pypi, tree, sandbox)
    if layer.recipe.files:
        say("files")
        for file in layer.recipe.files:
            _add_file(file, layer.folder, tree)
    for number, command in enumerate(layer.recipe.commands, 1):
        say(f"command {number} of {len(layer.recipe.commands)}")
        sandbox.run_in(tree, command)


def _install(layer: Layer, tree: Path, cache: Path, sandbox: Sandbox) -> None:
    name = layer.recipe.recipe
    lists, kept, archives = cache / "lists", cache / f"archives-{name}", tree / "var/cache/apt/archives"
    for folder in (lists / "partial", archives / "partial", kept):
        folder.mkdir(parents=True, exist_ok=True)
    # dpkg, in the tree, must see the archives there; links cost nothing and keep the cache outside.
    for archive in kept.glob("*.deb"):
        (archives / archive.name).hardlink_to(archive)
    config = tree.with_suffix(".apt.conf")
    options = [
        f'Dir "{tree}/";',
        f'Dir::State::lists "{lists}/";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        f'DPkg::Chroot-Directory "{tree}";',
        'APT::Install-Recommends "false";',
        'APT::Sandbox::User "root";',
        'APT::Keep-Downloaded-Packages "true";',
        'APT::Get::Assume-Yes "true";',
        'Dpkg::Use-Pty "false";',
        'DPkg::Options { "--force-unsafe-io"; "--force-confold"; };',
        *read_apt_options(),
    ]
    config.write_text("\n".join(options) + "\n")
    env = _environment() | {"APT_CONFIG": str(config)}
    with _locked(cache / "lists.lock"):
        sandbox.run_beside(tree, ["apt-get", "update"], env=env, timeout_s=600)
    sandbox.run_beside(tree, ["apt-get", "install", *layer.recipe.packages], env=env)
    config.unlink()
    installed = tuple(f"{package}_{version.replace(':', '%3a')}_" for package, version in list_packages(tree).items())
    for archive in kept.glob("*.deb"):
        archive.unlink()
    for archive in archives.glob("*.deb"):
        if archive.name.startswith(installed):
            archive.rename(kept / archive.name)


def _add_pypi(pypi: Pypi, tree: Path, sandbox: Sandbox) -> None:
    ours, theirs = f"python{sys.version_info[0]}.{sys.version_info[1]}", tree / "usr/bin/python3"
    if not theirs.is_symlink() or theirs.readlink().name != ours:
        has = theirs.readlink().name if theirs.is_symlink() else "no Python"
        raise ImageError(
            f"this machine's {ours} cannot fetch Python packages for an image with {has}",
            where=f"recipe {sandbox.recipe}",
            next="add python3-minimal to its packages, or run pcloud with the image's Python version",
        )
    target = _inside(tree, tree / pypi.target.lstrip("/"))
    pip = [_find_pip(), "-m", "pip", "install", "--no-input", "--no-compile", "--no-warn-script-location"]
    env = pip_environment(os.environ)
    sandbox.run([*pip, "--target", str(target), *pypi.packages], env=env)
    # Hashes instead of dates: valid after copying, and never compared at the guest's expense.
    compileall = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    sandbox.run([*compileall, "-s", str(tree), "-p", "/", str(target)], env=env)


def pip_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What pip is given: a package's build script is a stranger's program, and sees no secret."""
    inherited = {k: v for k, v in ours.items() if k != "PIP_USER" and not k.startswith("PCLOUD_SECRET_")}
    return {**inherited, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _find_pip() -> str:
    """A Python of this very version that has pip: our own, or the system's."""
    for python in (Path(sys.executable), Path(f"/usr/bin/python3.{sys.version_info[1]}")):
        lib = f"python3.{sys.version_info[1]}"
        homes = (python.parent.parent / "lib" / lib / "site-packages", Path("/usr/lib/python3/dist-packages"))
        if python.exists() and any((home / "pip").is_dir() for home in homes):
            return str(python)
    raise ImageError("this machine's Python has no pip", next="apt-get install python3-pip")


def _add_file(file: File, folder: Path, tree: Path) -> None:
    path = _inside(tree, tree / file.path.lstrip("/"))
    path.parent.mkdir(parents=True, exist_ok=True)
    owner, group = _ids(tree, file.owner)
    if file.link is not None:
        _remove(path)
        path.symlink_to(file.link)
    elif file.content is not None:
        _remove(path)
        path.write_text(file.content)
        _give(path, int(file.mode or "0644", 8), owner, group)
    elif file.source is not None and (folder / file.source).is_dir():
        path.mkdir(exist_ok=True)
        _give(path, int(file.mode or "0755", 8), owner, group)
        for name, source in walk_source(folder / file.source, file.exclude):
            _copy(source, _inside(tree, path / name), None, owner, group)
    elif file.source is not None:
        _copy(folder / file.source, path, file.mode, owner, group)


def _inside(tree: Path, path: Path) -> Path:
    """`path`, when no link on the way to it leads out of the tree, onto this machine's own files."""
    if not path.parent.resolve().is_relative_to(tree.resolve()):
        shown = str(path).removeprefix(str(tree))
        raise ImageError(f"{shown} leads out of the image through a link", next="name the real folder in the recipe")
    return path


def _copy(source: Path, path: Path, mode: str | None, owner: int, group: int) -> None:
    if source.is_symlink():
        _remove(path)
        path.symlink_to(source.readlink())
    elif source.is_dir():
        if path.is_symlink():
            raise ImageError(f"{path.name} is a link in the image and a folder in the recipe", next="rename the folder")
        path.mkdir(exist_ok=True)
        _give(path, 0o755, owner, group)
    else:
        _remove(path)
        shutil.copyfile(source, path)
        default = 0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644
        _give(path, int(mode, 8) if mode else default, owner, group)


def _give(path: Path, mode: int, owner: int, group: int) -> None:
    os.chown(path, owner, group)
    path.chmod(mode)


def _ids(tree: Path, owner: str) -> tuple[int, int]:
    user, _, group = owner.partition(":")
    return _id(tree / "etc/passwd", user), _id(tree / "etc/group", group)


def _id(table: Path, name: str) -> int:
    for line in table.read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2])
    raise ImageError(f"no {name} in the image's {table.name} yet", next="add its package, or chown in a command")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    return _ENV | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
