"""Writes images as a docker-archive, piece by piece: gigabytes that are never on disk a second time."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


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


class _Writer(io.RawIOBase):
    """A file that only grows and counts."""

    def __init__(self, take: Callable[[bytes], object]) -> None:
        super().__init__()
        self._take, self._size = take, 0

    def write(self, data: bytes, /) -> int:
        self._take(data)
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size


def pack(images: Mapping[str, Image], out: BinaryIO) -> None:
    """Write the images, by tag, as one docker-archive; what they share is in it once."""
    folders = dict.fromkeys(folder for image in images.values() for folder in image.layers)
    layers = {folder: _layer(folder) for folder in folders}
    manifest = []
    for tag, image in images.items():
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": image.config(),
                "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layers[folder][0]}" for folder in image.layers]},
            }
        ).encode()
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        _write(out, name, config)
        names = [f"{layers[folder][0]}.tar" for folder in image.layers]
        manifest.append({"Config": name, "RepoTags": [tag], "Layers": names})
    _write(out, "manifest.json", json.dumps(manifest).encode())
    for folder, (digest, size) in layers.items():
        out.write(_header(f"{digest}.tar", size))
        _tar(folder, out.write)  # whole blocks
    out.write(bytes(2 * tarfile.BLOCKSIZE))
    out.flush()


def _write(out: BinaryIO, name: str, data: bytes) -> None:
    out.write(_header(name, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE))


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf()


def _layer(folder: Path) -> tuple[str, int]:
    """Return digest and size in bytes of a layer as images hold it, kept until the folder is built anew."""
    stamp, built = folder.with_name(f"{folder.name}.digest"), folder.with_name(f"{folder.name}.done")
    if stamp.exists() and stamp.stat().st_mtime_ns > built.stat().st_mtime_ns:
        digest, size = stamp.read_text().split()
        return digest, int(size)
    found = hashlib.sha256()
    written = _tar(folder, found.update)
    stamp.write_text(f"{found.hexdigest()} {written}")
    return found.hexdigest(), written


def _tar(folder: Path, take: Callable[[bytes], object]) -> int:
    """Hand out a layer piece by piece, always the same way, and return its size in bytes."""
    out = _Writer(take)
    with tarfile.open(fileobj=out, mode="w", copybufsize=1 << 20) as archive:
        for place, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted((*folders, *files)):
                _add(archive, folder, Path(place, name))
    return out.tell()


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
