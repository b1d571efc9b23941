"""`python -m tests.e2e.images STAGE=TAG… --work DIR`: build our Dockerfile's stages without a daemon or a registry.

A stage is a layer: the base comes from debootstrap, RUN happens in a chroot of an overlay, COPY copies. With
`--archive` the images go to standard output as one docker-archive (`ctr images import -`, `docker load`). Needs root
and debootstrap. A stage whose instructions and files are those of an earlier build is taken from there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import fnmatch
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.archive import Image, pack
from tests.e2e.dockerfile import Stage, assignments, expand, read, words

REPOSITORY = Path(__file__).parents[2]
_CLONE_NEWNS = 0x00020000
_DEBIAN = "debian:bookworm-slim"
_PASSED_ON = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX"),
    *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"),
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LENT = ("/etc/resolv.conf", _CERTIFICATES, "/etc/pip.conf", "/etc/apt/apt.conf.d/99-machine")


class Builder:
    """Builds stages of one Dockerfile below `work`."""

    def __init__(self, work: Path, dockerfile: Path = REPOSITORY / "Dockerfile") -> None:
        self.work = work
        self.context = dockerfile.parent
        self.stages = read(dockerfile)
        self._built: dict[str, Image] = {}
        ignore = self.context / ".dockerignore"
        self._ignored = ignore.read_text().split() if ignore.exists() else []

    def build(self, name: str) -> Image:
        """Return the built stage, or the base image of that name."""
        if name not in self._built:
            stage = self.stages.get(name)
            self._built[name] = self._base(name) if stage is None else self._stage(stage)
        return self._built[name]

    def _base(self, name: str) -> Image:
        if name != _DEBIAN:
            raise ValueError(f"the base {name} cannot be made here; {_DEBIAN} can")
        layer = self.work / "debian"
        if not (self.work / "debian.done").exists():
            shutil.rmtree(layer, ignore_errors=True)
            mirror = _debian_mirror()
            layer.mkdir(mode=0o755)
            with (
                tempfile.TemporaryDirectory(dir=self.work, prefix="mount-") as nothing,
                _mounted([Path(nothing)], layer) as root,
            ):
                _run("debootstrap", "--variant=minbase", "bookworm", root, *([mirror] if mirror else []))
            (self.work / "debian.done").touch()
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return Image([layer], hashlib.sha256(name.encode()).hexdigest(), {"PATH": path})

    def _stage(self, stage: Stage) -> Image:
        below = self.build(stage.base)
        layer = self.work / stage.name
        image = Image(
            [*below.layers, layer],
            self._digest(stage, below),
            dict(below.environment),
            below.folder,
            below.user,
            list(below.entrypoint),
            list(below.command),
        )
        done = self.work / f"{stage.name}.done"
        if done.exists() and done.read_text() == image.digest:
            self._follow(stage, image, None)
            return image
        done.unlink(missing_ok=True)
        shutil.rmtree(layer, ignore_errors=True)
        layer.mkdir(mode=0o755)
        began = time.monotonic()
        with _mounted(below.layers, layer) as root:
            self._follow(stage, image, root)
        done.write_text(image.digest)
        print(f"{stage.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        return image

    def _follow(self, stage: Stage, image: Image, root: Path | None) -> None:
        """Do what the stage says; without a root only what it says of the image itself."""
        for item in stage.instructions:
            text = item.text
            match item.word:
                case "ENV":
                    set_now = assignments(text)
                    image.environment |= {name: expand(value, image.environment) for name, value in set_now.items()}
                case "WORKDIR":
                    image.folder = text
                    if root is not None:
                        (root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    image.user = text
                case "ENTRYPOINT":
                    image.entrypoint, image.command = words(text), []
                case "CMD":
                    image.command = words(text)
                case "COPY" if root is not None:
                    self._copy(text, image, root)
                case "RUN" if root is not None:
                    self._run_in(image, root, text)

    def _digest(self, stage: Stage, below: Image) -> str:
        found = hashlib.sha256(below.digest.encode())
        for item in stage.instructions:
            found.update(f"{item.word} {item.text}\n".encode())
            if item.word == "RUN":
                for mount in mounts(item.text)[0]:
                    if "from" in mount:
                        found.update(self.build(mount["from"]).digest.encode())
            if item.word == "COPY":
                other, sources, _target = _parts(item.text)
                if other:
                    found.update(self.build(other).digest.encode())
                else:
                    for source in sources:
                        for file in self._files(source):
                            found.update(f"{file}\n".encode() + (self.context / file).read_bytes())
        return found.hexdigest()

    def _run_in(self, image: Image, root: Path, text: str) -> None:
        """Run a command with what it mounts: another stage, or the user's own cache of the same name."""
        wanted, script = mounts(text)
        with contextlib.ExitStack() as opened:
            bound: list[Path] = []
            for mount in wanted:
                if "from" in mount:
                    there = opened.enter_context(_mounted(self.build(mount["from"]).layers))
                    source = there / mount.get("source", "/").lstrip("/")
                else:
                    source = Path.home() / Path(mount["target"]).relative_to("/root")
                    source.mkdir(parents=True, exist_ok=True)
                place = root / mount["target"].lstrip("/")
                place.mkdir(parents=True, exist_ok=True)
                bound += [source, place]
            _chroot(image, root, script, bound)

    def _copy(self, text: str, image: Image, root: Path) -> None:
        other, sources, target = _parts(text)
        place = root / (Path(image.folder) / target).as_posix().lstrip("/")
        for source in sources:
            if other:
                place.parent.mkdir(parents=True, exist_ok=True)
                with _mounted(self.build(other).layers) as there:
                    _run("cp", "-aT", there / source.lstrip("/"), place)
                continue
            for file in self._files(source):
                inside = Path(file).relative_to(source) if (self.context / source).is_dir() else Path(Path(file).name)
                to = place / inside if text.endswith("/") else place
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.context / file, to)
                os.chown(to, 0, 0)

    def _files(self, source: str) -> Iterator[str]:
        """Yield the files of the context that the source names, without the ignored ones, in order."""
        start = self.context / source
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            relative = path.relative_to(self.context).as_posix()
            if path.is_file() and not self._is_ignored(relative):
                yield relative

    def _is_ignored(self, path: str) -> bool:
        """As .dockerignore says: the last pattern that fits a path, or a folder above it, decides."""
        parts = path.split("/")
        ways = ["/".join(parts[: end + 1]) for end in range(len(parts))]
        ignored = False
        for pattern in self._ignored:
            keep, pattern = pattern.startswith("!"), pattern.lstrip("!")
            tails = parts if pattern.startswith("**/") else ways
            if any(fnmatch.fnmatchcase(way, pattern.removeprefix("**/")) for way in tails):
                ignored = not keep
        return ignored


@contextlib.contextmanager
def _mounted(layers: list[Path], upper: Path | None = None) -> Iterator[Path]:
    """Yield what the layers are together; changes go to `upper`."""
    if upper is None and len(layers) == 1:
        yield layers[0]
        return
    place = (upper or layers[-1]).parent
    with tempfile.TemporaryDirectory(dir=place, prefix="mount-") as folder:
        root, scratch = Path(folder, "root"), Path(folder, "work")
        root.mkdir(), scratch.mkdir()
        options = "lowerdir=" + ":".join(str(layer) for layer in reversed(layers))
        if upper is not None:
            # Volatile: dpkg wants every file on disk at once, and what was cut off is built anew.
            options += f",upperdir={upper},workdir={scratch},volatile"
        _run("mount", "-t", "overlay", "overlay", "-o", options, root)
        try:
            yield root
        finally:
            _run("umount", root)


def mounts(text: str) -> tuple[list[dict[str, str]], str]:
    """Return the mounts of a RUN, and its command. Raises ValueError for a mount of another kind."""
    found = []
    while option := re.match(r"--mount=(\S+)\s+", text):
        mount = dict(part.partition("=")[::2] for part in option[1].split(","))
        if "from" not in mount and mount.get("type") != "cache":
            raise ValueError(f"RUN --mount={option[1]} is not understood")
        found.append(mount)
        text = text[option.end() :]
    return found, text


def _parts(text: str) -> tuple[str, list[str], str]:
    """Return (other stage or "", sources, target) of a COPY."""
    items = shlex.split(text)
    other = ""
    while items[0].startswith("--"):
        name, _, value = items.pop(0).partition("=")
        if name != "--from":
            raise ValueError(f"COPY {name} is not understood")
        other = value
    return other, items[:-1], items[-1]


@contextlib.contextmanager
def _lent(root: Path) -> Iterator[None]:
    """What a build sees and an image does not hold: the machine's resolver, certificates and pip settings."""
    kept = {file: file.read_bytes() for name in _LENT if (file := root / name.lstrip("/")).exists()}
    try:
        for name in _LENT:
            if Path(name).exists():
                (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, root / name.lstrip("/"))
        yield
    finally:
        for name in _LENT:
            file = root / name.lstrip("/")
            # What the step itself has put there stays.
            if file.exists() and Path(name).exists() and file.read_bytes() == Path(name).read_bytes():
                file.unlink()
                if file in kept:
                    file.write_bytes(kept[file])


def _chroot(image: Image, root: Path, script: str, bound: list[Path]) -> None:
    environment = dict(image.environment)
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), _CERTIFICATES)
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    # In namespaces of its own: no process outlives a build that is killed.
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec")
    enter = (
        'root=$1 script=$2; shift 2; mount -t proc proc "$root/proc"\n'
        'while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done\n'
        'exec chroot "$root" /bin/sh -ec "$script"'
    )
    with _lent(root):
        _run(*alone, enter, "sh", root, f"cd {shlex.quote(image.folder)} && {script}", *bound, env=environment)


def _debian_mirror() -> str:
    """Return the mirror that this machine uses, "" for debootstrap's own."""
    listing = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Release: bookworm")
    found = subprocess.run(listing, capture_output=True, text=True).stdout.split()
    return next((url for url in found if "security" not in url), "")


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    # Whatever ends us ends what we started.
    command = ("setpriv", "--pdeathsig", "KILL", *command)
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))[:400]} failed:\n{done.stdout[-6000:]}")


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.images", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="STAGE=TAG")
    parser.add_argument("--work", type=Path, required=True, help="folder of the built stages")
    parser.add_argument("--archive", action="store_true", help="write the images to standard output")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with (options.work / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in options.work.glob("mount-*"):  # by a build that was killed
            shutil.rmtree(left)
        _keep_mounts_to_ourselves()
        builder = Builder(options.work)
        images = {tag: builder.build(name) for name, _, tag in (item.partition("=") for item in options.images)}
        if options.archive:
            pack(images, sys.stdout.buffer)


def _keep_mounts_to_ourselves() -> None:
    """Enter a mount namespace of our own: no mount outlives us, and none of ours is seen elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace needs root")
    _run("mount", "--make-rprivate", "/")


if __name__ == "__main__":
    main()
