"""What the OpenAPI document promises to those who generate clients from it."""

import json
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

MAX_BYTES = 80_000


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict[str, object]:
    description: dict[str, object] = client.get("/openapi.json").json()
    return description


def references(value: object) -> Iterator[str]:
    """Every reference in a part of the document."""
    if isinstance(value, dict):
        yield from (reference for key, reference in value.items() if key == "$ref")
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_reference_leads_to_a_schema_of_the_document(document: dict[str, dict[str, dict[str, object]]]) -> None:
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert "#/components/schemas/Problem" in set(references(document))
    assert set(references(document)) <= schemas


def test_the_document_stays_small_however_many_experiments_there_are(document: dict[str, object]) -> None:
    assert len(json.dumps(document, separators=(",", ":"))) < MAX_BYTES


def test_every_call_is_described(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
    for calls in document["paths"].values():
        for call in calls.values():
            assert call["summary"]
            assert call["description"]
