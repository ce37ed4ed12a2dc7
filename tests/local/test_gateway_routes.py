"""A request finds its route by API Gateway's rules."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.local.gateway.router import Router
from perch.local.ports import Route


def routes(*keys):
    return tuple(
        Route(
            route_key=key,
            method=key.split(" ")[0] if " " in key else "",
            path=key.split(" ")[1] if " " in key else "",
            function="f",
        )
        for key in keys
    )


# The table of the service's own documentation, and more of the kind.
PETS = (
    "GET /pets/dog/1",
    "GET /pets/dog/{id}",
    "GET /pets/{proxy+}",
    "ANY /pets",
    "GET /pets",
    "ANY /{proxy+}",
    "POST /models/{endpoint}/predict",
    "POST /models/digits/predict",
    "GET /models/{proxy+}",
    "$default",
)


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/pets/dog/1", "GET /pets/dog/1", {}),
        ("GET", "/pets/dog/2", "GET /pets/dog/{id}", {"id": "2"}),
        ("GET", "/pets/cat/1", "GET /pets/{proxy+}", {"proxy": "cat/1"}),
        ("POST", "/test/5", "ANY /{proxy+}", {"proxy": "test/5"}),
        ("POST", "/pets/dog/1", "ANY /{proxy+}", {"proxy": "pets/dog/1"}),
        ("GET", "/pets", "GET /pets", {}),
        ("DELETE", "/pets", "ANY /pets", {}),
        ("GET", "/pets/", "ANY /{proxy+}", {"proxy": "pets/"}),
        ("GET", "/Pets", "ANY /{proxy+}", {"proxy": "Pets"}),
        ("POST", "/models/digits/predict", "POST /models/digits/predict", {}),
        ("POST", "/models/faces/predict", "POST /models/{endpoint}/predict", {"endpoint": "faces"}),
        ("POST", "/models/a%20b/predict", "POST /models/{endpoint}/predict", {"endpoint": "a b"}),
        ("POST", "/models/%64igits/predict", "POST /models/digits/predict", {}),
        ("POST", "/models//predict", "ANY /{proxy+}", {"proxy": "models//predict"}),
        ("GET", "/models/digits/versions/3", "GET /models/{proxy+}", {"proxy": "digits/versions/3"}),
        ("GET", "/", "$default", {}),
    ],
)
def test_the_most_specific_route_wins(method, path, key, parameters):
    """Full match, then greedy, then default; the method's own route before ANY."""
    match = Router(routes(*PETS)).match(method, path)

    assert match is not None
    assert (match.route.route_key, match.parameters) == (key, parameters)


def test_the_order_of_declaration_does_not_matter():
    """Routes are ranked by what they are."""
    some = ("GET /a/{x}", "GET /a/b", "ANY /a/b", "GET /{proxy+}", "GET /a/{proxy+}")
    for order in permutations(some):
        router = Router(routes(*order))
        found = [router.match("GET", path).route.route_key for path in ("/a/b", "/a/c", "/a/b/c", "/z")]
        assert found == ["GET /a/b", "GET /a/{x}", "GET /a/{proxy+}", "GET /{proxy+}"]


def test_no_route_is_no_match():
    """Neither path nor method, and there is no default."""
    router = Router(routes("GET /pets"))

    assert router.match("GET", "/dogs") is None
    assert router.match("POST", "/pets") is None
    assert Router(()).match("GET", "/") is None


@given(path=st.text(alphabet="ab{}/%+.0", max_size=12).map("/".__add__))
def test_any_path_finds_one_route_or_the_default(path):
    """However odd, it is matched and never raises."""
    match = Router(routes("GET /a/{x}", "GET /a/{proxy+}", "$default")).match("GET", path)

    assert match is not None
    assert all(match.parameters.values())
