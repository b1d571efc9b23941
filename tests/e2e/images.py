"""`python -m tests.e2e.images STAGE=TAG… --out DIR`: build our Dockerfile's stages without a daemon or a registry.

A stage is a layer: the base comes from debootstrap, RUN happens in a chroot of an overlay, COPY copies, and the layers
become a docker-archive (`ctr images import`, `docker load`). Needs root and debootstrap. A stage whose instructions and
files are those of an earlier build is taken from there.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fnmatch
import hashlib
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.dockerfile import Stage, assignments, expand, read, words

REPOSITORY = Path(__file__).parents[2]
_CLONE_NEWNS = 0x00020000
_DEBIAN = "debian:bookworm-slim"
_PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LENT = ("/etc/resolv.conf", _CERTIFICATES, "/etc/pip.conf", "/etc/apt/apt.conf.d/99-machine")


@dataclass(slots=True)
class Image:
    """A built stage: its layers, the lowest first, and how a container of it starts."""

    layers: list[Path]
    digest: str
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def config(self) -> dict[str, object]:
        """Return the configuration as images hold it."""
        return {
            "Env": [f"{name}={value}" for name, value in self.environment.items()],
            "WorkingDir": self.folder,
            "User": self.user,
            "Entrypoint": self.entrypoint,
            "Cmd": self.command,
        }


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
            _run("debootstrap", "--variant=minbase", "bookworm", layer, *([mirror] if mirror else []))
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
                    _chroot(image, root, text)

    def _digest(self, stage: Stage, below: Image) -> str:
        found = hashlib.sha256(below.digest.encode())
        for item in stage.instructions:
            found.update(f"{item.word} {item.text}\n".encode())
            if item.word == "COPY":
                other, sources, _target = _parts(item.text)
                if other:
                    found.update(self.build(other).digest.encode())
                else:
                    for source in sources:
                        for file in self._files(source):
                            found.update(f"{file}\n".encode() + (self.context / file).read_bytes())
        return found.hexdigest()

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


def pack(image: Image, tag: str, out: Path) -> None:
    """Write the image as a docker-archive; the archive of each layer stays beside the layer."""
    layers = [_layer(folder) for folder in image.layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": image.config(),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
    }
    names = [f"{digest}.tar" for _, digest in layers]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    with tarfile.open(part, "w") as archive:
        for name, content in (("manifest.json", manifest), ("config.json", config)):
            data = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for name, (file, _) in zip(names, layers, strict=True):
            archive.add(file, name)
    part.replace(out)


def _layer(folder: Path) -> tuple[Path, str]:
    """Return a layer as images hold it, and its digest; made when the folder was built anew."""
    out, stamp, built = (folder.with_name(folder.name + end) for end in (".tar", ".digest", ".done"))
    if stamp.exists() and stamp.stat().st_mtime_ns > built.stat().st_mtime_ns:
        return out, stamp.read_text()
    with tarfile.open(out, "w", copybufsize=1 << 20) as archive:
        for place, folders, files in os.walk(folder):
            for name in sorted(folders) + sorted(files):
                _add(archive, folder, Path(place, name))
            folders.sort()
    with out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    stamp.write_text(digest)
    return out, digest


def _add(archive: tarfile.TarFile, folder: Path, path: Path) -> None:
    """Add one entry of an overlay's upper folder; what is gone there is a file `.wh.<name>` in an image."""
    name = path.relative_to(folder)
    entry = archive.gettarinfo(path, name.as_posix())
    if entry is None:  # a socket
        return
    entry.mtime, entry.uname, entry.gname = 0, "", ""
    if entry.ischr() and (entry.devmajor, entry.devminor) == (0, 0):
        archive.addfile(_empty(name.with_name(f".wh.{name.name}")))
    elif entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)
    if entry.isdir() and "trusted.overlay.opaque" in os.listxattr(path):
        archive.addfile(_empty(name / ".wh..wh..opq"))


def _empty(name: Path) -> tarfile.TarInfo:
    return tarfile.TarInfo(name.as_posix())


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
            options += f",upperdir={upper},workdir={scratch}"
        _run("mount", "-t", "overlay", "overlay", "-o", options, root)
        try:
            yield root
        finally:
            _run("umount", root)


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


def _chroot(image: Image, root: Path, script: str) -> None:
    environment = dict(image.environment)
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), _CERTIFICATES)
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    # In namespaces of its own: no process outlives a build that is killed.
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec")
    enter = 'mount -t proc proc "$1/proc" && exec chroot "$1" /bin/sh -ec "$2"'
    with _lent(root):
        _run(*alone, enter, "sh", root, f"cd {shlex.quote(image.folder)} && {script}", env=environment)


def _debian_mirror() -> str:
    """Return the mirror that this machine uses, "" for debootstrap's own."""
    listing = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Release: bookworm")
    found = subprocess.run(listing, capture_output=True, text=True).stdout.split()
    return next((url for url in found if "security" not in url), "")


def _run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))[:400]} failed:\n{done.stdout[-6000:]}")


def main() -> None:
    """Build what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.images", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="STAGE=TAG")
    parser.add_argument("--out", type=Path, required=True, help="folder of the archives; STAGE.tar is written")
    options = parser.parse_args()
    work = options.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    _keep_mounts_to_ourselves()
    builder = Builder(work)
    for entry in options.images:
        name, _, tag = entry.partition("=")
        image = builder.build(name)
        archive, stamp = options.out / f"{name}.tar", options.out / f"{name}.digest"
        if not archive.exists() or not stamp.exists() or stamp.read_text() != f"{tag} {image.digest}":
            began = time.monotonic()
            pack(image, tag, archive)
            stamp.write_text(f"{tag} {image.digest}")
            size = archive.stat().st_size >> 20
            print(f"{archive.name}: {time.monotonic() - began:.0f} s, {size} MiB", file=sys.stderr, flush=True)
        print(archive)


def _keep_mounts_to_ourselves() -> None:
    """Enter a mount namespace of our own: no mount outlives us, and none of ours is seen elsewhere."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace needs root")
    _run("mount", "--make-rprivate", "/")


if __name__ == "__main__":
    main()
