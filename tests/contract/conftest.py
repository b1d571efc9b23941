"""Real servers for the suites that run on them."""

from __future__ import annotations

from tests.servers.kubernetes.fixtures import control_plane as control_plane
from tests.servers.kubernetes.fixtures import kubernetes_namespace as kubernetes_namespace
