"""Every lesson with values that its controls allow, and values just outside: it replies or refuses, and never fails."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic.json_schema import JsonSchemaValue

from app.experiments.base import experiments
from app.settings import Settings
from tests.conftest import serve

IS_LONG = "FUZZ_EXAMPLES" in os.environ  # a long run, started by hand, draws new examples every time
N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))  # per lesson, with three calls each
TEXTS = ("the fat cat sat", "the the", "a", "猫 👍", "", " ", "x\n\ny")
EDITS = ("", "scale:0.1:0", "cut:1.0:2>1", "nomask:*.*", "steer:1:golden:2", "bend")
SMALL_INDICES = st.integers(0, 5)  # of layers, heads and tokens; small models and texts do not have all of them


@pytest.fixture(scope="module")
def client(tiny_gpt2: Path, settings: Settings) -> Iterator[TestClient]:
    """The app with a tiny GPT-2 with 3 layers and 4 heads, which fits every lesson."""
    yield from serve(Settings(model=str(tiny_gpt2), weights_dir=settings.weights_dir))


def values(schema: JsonSchemaValue) -> st.SearchStrategy[object]:
    """Values for a field, by its JSON schema: its bounds, values between them, and values just outside."""
    match schema:
        case {"anyOf": [*schemas]}:
            return st.one_of(*map(values, schemas))
        case {"enum": [*names]}:
            return st.sampled_from([*names, "no such name"])
        case {"type": "null"}:
            return st.none()
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            low, high = schema.get("minimum", 0), schema.get("maximum", 99)
            return st.one_of(SMALL_INDICES, st.integers(low, high), st.sampled_from([low - 1, low, high, high + 1]))
        case {"type": "number", "minimum": low, "maximum": high}:
            return st.one_of(st.floats(low, high), st.sampled_from([low, 0.0, high, high + 1]))
        case {"type": "string"}:
            return st.one_of(st.sampled_from(TEXTS), st.text(max_size=8))
        case {"type": "array", "items": items}:
            return st.lists(values(items), min_size=schema.get("minItems", 0), max_size=min(5, schema["maxItems"]))
    raise AssertionError(schema)


def requests(slug: str) -> st.SearchStrategy[dict[str, object]]:
    """Requests of a lesson, each with a few of its fields."""
    fields = {
        name: values(schema)
        for name, schema in experiments()[slug].controls.model_json_schema()["properties"].items()
        if name not in ("text", "model", "ids", "edits", "directions")
    }
    fields["edits"] = st.sampled_from(EDITS)
    return st.fixed_dictionaries({"text": st.sampled_from(TEXTS)}, optional=fields)


def query_string(fields: Mapping[str, object]) -> dict[str, str]:
    """A request as the query string of a page."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in fields.items()
        if value is not None
    }


@pytest.mark.parametrize("slug", experiments())
def test_a_lesson_replies_or_refuses_for_any_values_of_its_controls(client: TestClient, slug: str) -> None:
    @hypothesis_settings(
        max_examples=N_EXAMPLES, derandomize=not IS_LONG, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(requests(slug))
    def run(fields: dict[str, object]) -> None:
        page = client.get(experiments()[slug].page, params=query_string(fields) | {"prove": "1"})
        result = client.post(f"/api/v1/experiments/{slug}", json=fields)
        checks = client.post(f"/api/v1/experiments/{slug}/checks", json=fields)
        for reply in (page, result, checks):
            assert reply.status_code in (200, 404, 413, 422), reply.text
        if checks.status_code == 200 and not fields.get("broken") and not fields.get("edits"):
            assert [check for check in checks.json()["checks"] if check["passed"] is False] == []

    run()
