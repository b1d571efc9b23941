"""Every field of the public SDK's create models is declared, renamed or refused with a reason."""

from __future__ import annotations

import warnings

import pytest

from mixpeek_operator.core.spec import SpecModel
from mixpeek_operator.generate.files import kind_schemas

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mixpeek import models

SCHEMAS = kind_schemas()
CREATE = {
    "namespace": models.CreateNamespaceRequest,
    "bucket": models.BucketCreateRequest,
    "collection": models.CreateCollectionRequest,
    "retriever": models.CreateRetrieverRequest,
    "taxonomy": models.CreateTaxonomyRequest,
    "cluster": models.CreateClusterRequest,
}


@pytest.mark.parametrize("kind", CREATE)
def test_every_field_of_the_create_model_is_known(kind: str) -> None:
    spec = SCHEMAS[kind].spec
    assert issubclass(spec, SpecModel)
    known = {*spec.model_fields, *spec.aliases, *spec.refused}
    wanted = {field.alias or name for name, field in CREATE[kind].model_fields.items()}
    assert wanted - known == set()
