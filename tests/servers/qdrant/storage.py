"""Collections and aliases on disk, each collection an Edge shard with its configuration beside it."""

from __future__ import annotations

import json
import shutil
import tarfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from tests.servers.qdrant.conditions import Unsupported, index_of, only

HIDDEN = "~"
"""Sparse vector that every shard has, as Edge wants at least one at creation."""


class Missing(Exception):
    """No such collection, snapshot or alias."""


class Taken(Exception):
    """The name is in use."""


class Wrong(Exception):
    """The request contradicts what is there."""


class Collection:
    """One open collection."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config: dict[str, Any] = json.loads((directory / "config.json").read_text())
        self.edge = edge.EdgeShard.load(str(directory / "shard"))

    @classmethod
    def create(cls, directory: Path, body: Mapping[str, Any]) -> Collection:
        only(body, "vectors", "sparse_vectors", "metadata")
        config = {"vectors": {}, "sparse_vectors": {}, "indexes": {}, "metadata": body.get("metadata") or {}}
        making = directory.with_name(f".new-{uuid.uuid4().hex}")
        (making / "shard").mkdir(parents=True)
        edge.EdgeShard.create(
            str(making / "shard"), edge.EdgeConfig(sparse_vectors={HIDDEN: edge.EdgeSparseVectorParams()})
        ).close()
        (making / "config.json").write_text(json.dumps(config))
        making.rename(directory)
        made = cls(directory)
        for name, params in (body.get("vectors") or {}).items():
            only(params, "size", "distance")
            made.add_vector(name, {"dense": params})
        for name, params in (body.get("sparse_vectors") or {}).items():
            only(params, "modifier")
            made.add_vector(name, {"sparse": params})
        return made

    @property
    def names(self) -> set[str]:
        return set(self.config["vectors"]) | set(self.config["sparse_vectors"])

    def save(self) -> None:
        making = self.directory / "config.json.new"
        making.write_text(json.dumps(self.config))
        making.replace(self.directory / "config.json")

    def add_vector(self, name: str, body: Mapping[str, Any]) -> None:
        if name in self.names:
            raise Wrong(f"Wrong input: Vector name {name} already exists")
        only(body, "dense", "sparse")
        if body.get("dense"):
            params = body["dense"]
            only(params, "size", "distance")
            distance = getattr(edge.Distance, params["distance"])
            self.edge.update(edge.UpdateOperation.create_dense_vector(name, params["size"], distance))
            self.config["vectors"][name] = dict(params)
        else:
            params = body.get("sparse") or {}
            only(params, "modifier")
            if params.get("modifier") not in (None, "none", "idf"):
                raise Unsupported(f"modifier {params['modifier']}")
            modifier = edge.Modifier.Idf if params.get("modifier") == "idf" else None
            self.edge.update(edge.UpdateOperation.create_sparse_vector(name, modifier))
            self.config["sparse_vectors"][name] = {key: value for key, value in params.items() if value}
        self.save()

    def delete_vector(self, name: str) -> None:
        if name not in self.names:
            raise Wrong(f"Wrong input: Not existing vector name error: {name}")
        self.config["vectors"].pop(name, None)
        self.config["sparse_vectors"].pop(name, None)
        self.save()
        self.edge.update(edge.UpdateOperation.delete_vector_name(name))

    def create_index(self, field: str, schema: Any) -> None:
        self.edge.update(edge.UpdateOperation.create_field_index(field, index_of(schema)))
        self.config["indexes"][field] = schema
        self.save()

    def delete_index(self, field: str) -> None:
        self.edge.update(edge.UpdateOperation.delete_field_index(field))
        self.config["indexes"].pop(field, None)
        self.save()

    def merge(self, metadata: Mapping[str, Any]) -> None:
        for key, value in metadata.items():
            if value is None:
                self.config["metadata"].pop(key, None)
            else:
                self.config["metadata"][key] = value
        self.save()

    def close(self) -> None:
        self.edge.flush()
        self.edge.close()


class Storage:
    """Everything a server holds."""

    def __init__(self, root: Path) -> None:
        self._root = root / "collections"
        self._root.mkdir(parents=True, exist_ok=True)
        self._snapshots = root / "snapshots"
        self._aliases = root / "aliases.json"
        self.aliases: dict[str, str] = json.loads(self._aliases.read_text()) if self._aliases.exists() else {}
        for left in self._root.glob(".new-*"):
            shutil.rmtree(left)
        self.collections = {found.name: Collection(found) for found in self._root.iterdir()}

    def get(self, name: str) -> Collection:
        """The collection behind a name or an alias."""
        found = self.collections.get(self.aliases.get(name, name))
        if found is None:
            raise Missing(f"Not found: Collection `{name}` doesn't exist!")
        return found

    def really(self, name: str) -> Collection:
        """The collection with this very name."""
        if name not in self.collections:
            raise Missing(f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def create(self, name: str, body: Mapping[str, Any]) -> None:
        if name in self.collections or name in self.aliases:
            raise Taken(f"Wrong input: Collection `{name}` already exists!")
        self.collections[name] = Collection.create(self._root / name, body)

    def delete(self, name: str) -> bool:
        found = self.collections.pop(name, None)
        if found is None:
            return False
        self.save_aliases({alias: to for alias, to in self.aliases.items() if to != name})
        found.close()
        shutil.rmtree(found.directory)
        return True

    def save_aliases(self, aliases: dict[str, str]) -> None:
        making = self._aliases.with_suffix(".new")
        making.write_text(json.dumps(aliases))
        making.replace(self._aliases)
        self.aliases = aliases

    def change_aliases(self, actions: list[Mapping[str, Any]]) -> None:
        """All or nothing."""
        changed = dict(self.aliases)
        for action in actions:
            if "create_alias" in action:
                one = action["create_alias"]
                self.really(one["collection_name"])
                if one["alias_name"] in self.collections:
                    raise Taken(f"Wrong input: Collection `{one['alias_name']}` already exists!")
                changed[one["alias_name"]] = one["collection_name"]
            elif "delete_alias" in action:
                changed.pop(action["delete_alias"]["alias_name"], None)
            else:
                raise Unsupported("renaming an alias")
        self.save_aliases(changed)

    def snapshot(self, name: str) -> Path:
        found = self.get(name)
        found.edge.flush()
        folder = self._snapshots / found.directory.name
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{found.directory.name}-{uuid.uuid4().hex}.snapshot"
        with tarfile.open(target, "w") as archive:
            archive.add(found.directory, "collection")
        return target

    def snapshots(self, name: str) -> list[Path]:
        return sorted((self._snapshots / self.get(name).directory.name).glob("*.snapshot"))

    def find_snapshot(self, name: str, snapshot: str) -> Path:
        for path in self.snapshots(name):
            if path.name == snapshot:
                return path
        raise Missing(f"Not found: Snapshot {snapshot} not found")

    def recover(self, name: str, source: Path) -> None:
        """Make a collection of a snapshot, or replace it."""
        making = self._root / f".new-{uuid.uuid4().hex}"
        making.mkdir()
        try:
            with tarfile.open(source) as archive:
                archive.extractall(making, filter="data")
            if name in self.collections:
                kept = self.aliases
                self.delete(name)
                self.save_aliases(kept)
            (making / "collection").rename(self._root / name)
        except (tarfile.TarError, OSError) as error:
            raise Wrong(f"Wrong input: failed to open snapshot archive: {error}") from error
        finally:
            shutil.rmtree(making, ignore_errors=True)
        self.collections[name] = Collection(self._root / name)
