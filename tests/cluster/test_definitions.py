"""Our CustomResourceDefinitions on a real API server."""

from __future__ import annotations

from tests.servers.kubernetes.control_plane import ControlPlane


def test_one_category_lists_every_kind(control_plane: ControlPlane) -> None:
    listed = control_plane.kubectl("api-resources", "--categories=mixpeek", "-o", "name")
    assert listed is not None
    assert len(listed.split()) == 7
