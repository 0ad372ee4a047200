"""Codes and places are what clients switch on, so they are pinned here."""

import inspect

import pytest

from service import errors
from service.api.errors import _RESPONSES
from service.errors import Place, ServiceError

CODES = {
    "bad_backup",
    "bad_request",
    "broken_model",
    "conflict",
    "context_length_exceeded",
    "deadline_exceeded",
    "fingerprint_mismatch",
    "insufficient_scope",
    "invalid_api_key",
    "invalid_configuration",
    "invalid_cursor",
    "invalid_document",
    "invalid_filter",
    "invalid_index",
    "invalid_input",
    "invalid_name",
    "invalid_vector",
    "keywords_unavailable",
    "missing_api_key",
    "model_not_found",
    "name_conflict",
    "no_space",
    "no_store",
    "not_found",
    "rate_limit_exceeded",
    "reindex_running",
    "request_too_large",
    "store_unavailable",
    "superseded",
    "token_quota_exceeded",
    "unavailable",
    "unsupported_task",
    "unusable_checkpoint",
}


def kinds() -> list[type[ServiceError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, ServiceError)]


def test_each_kind_of_error_has_its_own_code_and_the_codes_stay():
    codes = [kind.code for kind in kinds() if "code" in vars(kind)]  # one without is of its base's kind
    assert len(codes) == len(set(codes))
    assert set(codes) == CODES


def test_every_answer_is_to_a_code_that_exists():
    assert _RESPONSES.keys() <= CODES


@pytest.mark.parametrize(
    ("place", "spelled", "parts"),
    [
        (Place("model"), "model", {"field": "model"}),
        (Place("inputs", 3), "inputs[3]", {"field": "inputs", "index": 3}),
        (Place("spans", 1, 2), "spans[1][2]", {"field": "spans", "index": 1, "span": 2}),
        (Place("spans", span=2), "spans[2]", {"field": "spans", "span": 2}),
        (Place("documents", 0, name="a").at_span(4), "a, span 4", {"field": "documents", "index": 0, "span": 4}),
    ],
)
def test_a_place_is_spelled_for_people_and_in_parts_for_programs(place, spelled, parts):
    assert (str(place), place.to_json()) == (spelled, parts)
