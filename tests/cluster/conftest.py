"""A real control plane for every test here."""

from __future__ import annotations

from tests.servers.kubernetes.fixtures import control_plane as control_plane
from tests.servers.kubernetes.fixtures import kubernetes_namespace as kubernetes_namespace
from tests.servers.kubernetes.fixtures import private_control_plane as private_control_plane
