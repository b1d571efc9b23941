"""`python -m tests.e2e.images STAGE=TAG… --out DIR`: build our Dockerfile's stages without a daemon or a registry.

A stage is a folder: the base comes from debootstrap, RUN happens in a chroot, COPY copies, and the result is packed as
a docker-archive (`ctr images import`, `docker load`). Needs root and debootstrap. A stage whose instructions and files
are those of an earlier build is taken from there.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
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
_DEBIAN = "debian:bookworm-slim"
_PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_LENT = ("/etc/resolv.conf", _CERTIFICATES, "/etc/pip.conf", "/etc/apt/apt.conf.d/99-machine")


@dataclass(slots=True)
class Image:
    """A built stage: its files, and how a container of it starts."""

    root: Path
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
        image = Image(self.work / "debian.root", hashlib.sha256(name.encode()).hexdigest())
        if not (self.work / "debian.made").exists():
            shutil.rmtree(image.root, ignore_errors=True)
            mirror = _debian_mirror()
            _run("debootstrap", "--variant=minbase", "bookworm", image.root, *([mirror] if mirror else []))
            (self.work / "debian.made").touch()
        image.environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return image

    def _stage(self, stage: Stage) -> Image:
        below = self.build(stage.base)
        image = Image(
            self.work / stage.name,
            self._digest(stage, below),
            dict(below.environment),
            below.folder,
            below.user,
            list(below.entrypoint),
            list(below.command),
        )
        done = self.work / f"{stage.name}.done"
        fresh = not done.exists() or done.read_text() != image.digest
        if fresh:
            done.unlink(missing_ok=True)
            shutil.rmtree(image.root, ignore_errors=True)
            _run("cp", "-a", "--reflink=auto", below.root, image.root)
        began = time.monotonic()
        for item in stage.instructions:
            text = item.text
            match item.word:
                case "ENV":
                    set_now = assignments(text)
                    image.environment |= {name: expand(value, image.environment) for name, value in set_now.items()}
                case "WORKDIR":
                    image.folder = text
                    (image.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    image.user = text
                case "ENTRYPOINT":
                    image.entrypoint, image.command = words(text), []
                case "CMD":
                    image.command = words(text)
                case "COPY" if fresh:
                    self._copy(text, image)
                case "RUN" if fresh:
                    _chroot(image, text)
        if fresh:
            done.write_text(image.digest)
            print(f"{stage.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        return image

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

    def _copy(self, text: str, image: Image) -> None:
        other, sources, target = _parts(text)
        place = image.root / (Path(image.folder) / target).as_posix().lstrip("/")
        for source in sources:
            if other:
                place.parent.mkdir(parents=True, exist_ok=True)
                _run("cp", "-a", self.build(other).root / source.lstrip("/"), place)
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
    """Write the image as a docker-archive of one layer."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        layer = Path(folder, "layer.tar")
        _run("tar", "-C", image.root, "--numeric-owner", "--sort=name", "--mtime=@0", "-cf", layer, ".")
        with layer.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": image.config(),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        Path(folder, "config.json").write_text(json.dumps(config))
        manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
        Path(folder, "manifest.json").write_text(json.dumps(manifest))
        part = out.with_suffix(".part")
        with tarfile.open(part, "w") as archive:
            for name in ("manifest.json", "config.json", "layer.tar"):
                archive.add(Path(folder, name), name)
        part.replace(out)


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
    """What a build sees and an image does not hold: /proc, the machine's resolver, certificates and pip settings."""
    proc = root / "proc"
    kept = {file: file.read_bytes() for name in _LENT if (file := root / name.lstrip("/")).exists()}
    _run("mount", "-t", "proc", "proc", proc)
    try:
        for name in _LENT:
            if Path(name).exists():
                (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, root / name.lstrip("/"))
        yield
    finally:
        _run("umount", proc)
        for name in _LENT:
            file = root / name.lstrip("/")
            # What the step itself has put there stays.
            if file.exists() and Path(name).exists() and file.read_bytes() == Path(name).read_bytes():
                file.unlink()
                if file in kept:
                    file.write_bytes(kept[file])


def _chroot(image: Image, script: str) -> None:
    environment = dict(image.environment)
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"), _CERTIFICATES)
    environment |= {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    with _lent(image.root):
        command = f"cd {shlex.quote(image.folder)} && {script}"
        _run("chroot", image.root, "/bin/sh", "-ec", command, env=environment)


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
    builder = Builder(work)
    for entry in options.images:
        name, _, tag = entry.partition("=")
        image = builder.build(name)
        archive, stamp = options.out / f"{name}.tar", options.out / f"{name}.digest"
        if not archive.exists() or not stamp.exists() or stamp.read_text() != f"{tag} {image.digest}":
            pack(image, tag, archive)
            stamp.write_text(f"{tag} {image.digest}")
        print(archive)


if __name__ == "__main__":
    main()
