"""Whatever the description of the service allows is answered as it says, and what it forbids is refused."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from semsearch import Document, build_index
from semsearch.server.service import Service
from semsearch.server.settings import Settings
from tests.serving import LOOPBACK, allow_loopback, served
from tests.toy import ToyEmbedder

N_EXAMPLES = 25
ROUTES = (
    "GET /search",
    "POST /search",
    "GET /documents/{chunk_id}",
    "GET /similar/{chunk_id}",
    "GET /facets",
    "GET /index",
    "POST /index/documents",
    "DELETE /index/documents",
    "POST /index/sync",
    "GET /health",
    "GET /metrics",
)
# Which filters and fields make sense, and whether its model can rerank.
ONLY_THE_INDEX_KNOWS = {"where", "facet", "key", "paths", "queries", "rerank"}
WORDS = ["harbour", "lighthouse", "keeper", "trims", "the", "lamp", "at", "dusk", "while", "gulls", "cry"]


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    index = tmp_path_factory.mktemp("described") / "index"
    documents = [
        Document(f"d{n}", " ".join(WORDS[n % 7 :] + WORDS[: n % 7]), metadata={"kind": n % 3, "lang": "en"})
        for n in range(20)
    ]
    build_index(documents, index=index, embedder=ToyEmbedder())
    service = Service(index, embedder=ToyEmbedder(), writable=True)
    with pytest.MonkeyPatch.context() as patch, served(service, Settings(writable=True)) as port:
        allow_loopback(patch)
        yield schemathesis.openapi.from_url(f"http://{LOOPBACK}:{port}/openapi.json")
    service.close()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    allow_loopback(monkeypatch)


def test_all_routes_are_described(described):
    found = {f"{result.ok().method.upper()} {result.ok().path}" for result in described.get_all_operations()}
    assert found == set(ROUTES)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route", ROUTES)
def test_answers_are_as_described(described, route, mode):
    method, path = route.split()
    operation = described[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=N_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def answers(case):
        response = case.call()
        asked = {*(case.query or {}), *(case.body if isinstance(case.body, dict) else {})}
        is_about_the_index = response.status_code == 400 and asked & ONLY_THE_INDEX_KNOWS
        case.validate_response(response, excluded_checks=[positive_data_acceptance] if is_about_the_index else [])

    try:
        answers()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE  # there is nothing to get wrong: the route takes nothing
