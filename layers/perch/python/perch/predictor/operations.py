"""What a revision answers to each route, and how an outcome becomes an HTTP answer.

An outcome is *bare* when its body is another protocol's and nothing may be added to it; model version and request id
then stand in headers. Bytes behind the JSON make the answer binary, which goes to API Gateway in base64.

Lambda gives back at most 6 MB. An answer that would be larger is refused here, because there it would be an error of
the function, and count against the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pybase64

from perch.domain.formats import FORMATS

from . import protocol, server
from .answer import Answer
from .body import body_of
from .decode import decode
from .encode import encode
from .errors import RequestRefused
from .infer import Inferred, infer
from .loading import Served
from .records import decode_invocation, decode_records
from .routes import INFERENCE, Route
from .telemetry import Found
from .variants import Variants

if TYPE_CHECKING:
    from .cache import Memo

MAX_ANSWER = 6_000_000
"""Characters of an answer's body; Lambda takes 6,291,556 bytes with everything around it."""

CACHE = "x-perch-cache"
_JSON = "application/json"


class Outcome(NamedTuple):
    """What one request came to.

    `error` is the sentence of the body if any; `features` the rows that a matrix model was given; `answer` what was
    predicted, if the model's outputs can be read so; `tail` the bytes behind the JSON; `cache` whether the outputs come
    from the cache; `id` the client's own name for the request, if the protocol's body has one.
    """

    status: int
    body: Any
    rows: int = 0
    error: str | None = None
    allow: str | None = None
    features: Any = None
    answer: Answer | None = None
    bare: bool = False
    tail: protocol.Tail | None = None
    cache: Found | None = None
    id: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What it adds to the headers of the answer."""
        allow = {"allow": self.allow} if self.allow else {}
        return allow if self.cache is None else {**allow, CACHE: self.cache}


class Call(NamedTuple):
    """What a prediction needs beside the request: for whom it is logged, and where answers are kept (None: nowhere)."""

    endpoint: str
    request_id: str
    memo: Memo | None = None


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an endpoint: its models, or the reason why it has none."""

    endpoint: str
    runtime: str
    variants: Variants | None
    reason: str

    @property
    def versions(self) -> list[str]:
        """The model versions that it serves: one, or those of an experiment's variants."""
        if self.variants is None:
            return []
        return list(dict.fromkeys(served.pointer.version for served in self.variants.served.values()))

    def answer(
        self, route: Route, event: Mapping[str, Any], served: Served | None, request_id: str, memo: Memo | None = None
    ) -> Outcome:
        """Answer one request.

        Args:
            route: what it asks for.
            event: the whole of it.
            served: the model that answers, None if there is none.
            request_id: for the log.
            memo: the cache, if the request takes part in it.

        Raises:
            RequestRefused: the request is at fault.
            PredictionFailed: the model is.
        """
        operation = route.operation
        if served is not None and operation in INFERENCE:
            return _ANSWERS[operation](served, event, Call(self.endpoint, request_id, memo))
        if (always := self._always(operation)) is not None:
            return Outcome(200, always, bare=True)
        if served is None or self.variants is None:
            return refusal(503, self.reason, bare=operation in _BARE)
        if operation == "described":
            return Outcome(200, self._description(self.variants))
        if operation == "metadata":
            return Outcome(200, self._metadata(self.variants, route.version), bare=True)
        return Outcome(
            200, {"name": self.endpoint, "ready": True} if operation == "ready" else server.ready(), bare=True
        )

    def _always(self, operation: str) -> Any:
        """What is answered whether there is a model or not; None for all other operations."""
        if operation == "server":
            return server.server_metadata()
        if operation == "live":
            return server.live()
        if operation == "version":
            return {"version": server.VERSION}
        if operation == "models":
            return {"models": [self.endpoint]}
        if operation == "openapi":
            from .openapi import of_predictor  # noqa: PLC0415 - asked for now and then, by people

            champion = self.variants.champion if self.variants else None
            return of_predictor(self.endpoint, self.versions, champion.interface if champion else None)
        return self._index() if operation == "index" else None

    def _index(self) -> list[dict[str, str]]:
        if self.variants is None:
            return [{"name": self.endpoint, "state": "UNAVAILABLE", "reason": self.reason}]
        return [
            {"name": self.endpoint, "version": version, "state": "READY", "reason": ""} for version in self.versions
        ]

    def _metadata(self, variants: Variants, version: str | None) -> dict[str, Any]:
        models = variants.served.values()
        served = next((one for one in models if one.pointer.version == version), variants.champion)
        platform = FORMATS[served.pointer.format].platform
        return protocol.metadata(served.interface, name=self.endpoint, versions=self.versions, platform=platform)

    def _description(self, variants: Variants) -> dict[str, Any]:
        served = variants.champion
        pointer = served.pointer
        return {
            "endpoint": self.endpoint,
            "runtime": self.runtime,
            "format": pointer.format,
            "sha256": pointer.sha256,
            "size": pointer.size,
            "signature": served.model.signature.to_json(),
            **variants.describe(),
        }


def refusal(status: int, sentence: str, *, rows: int = 0, allow: str | None = None, bare: bool = False) -> Outcome:
    """Return the outcome of a request that is not answered."""
    return Outcome(status, {"error": sentence}, rows, sentence, allow, bare=bare)


def respond(
    outcome: Outcome,
    *,
    names: Mapping[str, str],
    revision: str,
    request_id: str,
    client_id: str | None = None,
    raw: bool = False,
) -> tuple[Outcome, dict[str, Any]]:
    """Make an HTTP answer (payload format 2.0) of an outcome.

    Args:
        outcome: what the request came to.
        names: the model that answered, its version, the variant.
        revision: Lambda version.
        request_id: Lambda's.
        client_id: the client's own name for the request, which comes back to it.
        raw: whether a body of bytes may stay so, as it may not where the answer goes on in JSON.

    Returns:
        The outcome, another one if its answer cannot be sent, and the answer.
    """
    headers = {"content-type": _JSON, "x-request-id": client_id or request_id}
    if client_id is not None:
        headers["x-perch-request-id"] = request_id
    headers |= outcome.headers
    if outcome.bare:
        headers["x-perch-revision"] = revision
        if (version := names.get("version")) is not None:
            headers["x-perch-version"] = version
    body = _named(outcome, names, revision, request_id)
    try:
        text: str | bytes = ""
        if outcome.tail is None:
            text = encode(body)
        else:
            data, more = protocol.with_tail(body, outcome.tail)
            text = data if raw else pybase64.b64encode_as_string(data)
            headers.update(more)
    except ValueError:  # a text that is no Unicode
        failed = refusal(500, "the model gave a text that is no Unicode", rows=outcome.rows, bare=outcome.bare)
        return respond(failed, names=names, revision=revision, request_id=request_id, client_id=client_id)
    if len(text) > MAX_ANSWER // 6 and _on_the_wire(text, outcome) > MAX_ANSWER:
        large = refusal(
            413,
            f"the answer is over {MAX_ANSWER:,} bytes; ask for fewer rows or outputs at once",
            rows=outcome.rows,
            bare=outcome.bare,
        )
        return respond(large, names=names, revision=revision, request_id=request_id, client_id=client_id)
    answer: dict[str, Any] = {"statusCode": outcome.status, "headers": headers, "body": text}
    if outcome.tail is not None and not raw:
        answer["isBase64Encoded"] = True
    return outcome, answer


def _named(outcome: Outcome, names: Mapping[str, str], revision: str, request_id: str) -> dict[str, Any]:
    """The body, and in it who answers; in a protocol's own bodies, only a failure of the model is named."""
    if outcome.bare:
        failed = outcome.status == 500
        return {"error": f"{outcome.error} (request {request_id})"} if failed else outcome.body
    if outcome.error is None:
        return {**names, "revision": revision, **outcome.body, "request_id": request_id}
    return {**outcome.body, "request_id": request_id}


def _on_the_wire(text: str | bytes, outcome: Outcome) -> int:
    """How long a body becomes inside the JSON that the function returns."""
    return len(text) if outcome.tail is not None else len(json.dumps(text))


def _predict(served: Served, event: Mapping[str, Any], call: Call) -> Outcome:
    model, matrix = served.model, served.interface.matrix
    if matrix is not None:
        inputs = {matrix.name: decode(event, model.features, model.dtype, missing=matrix.missing)}
    elif served.interface.is_columns:
        inputs = decode_records(body_of(event), served.interface)
    else:
        raise RequestRefused(400, "this model takes no rows of features; ask POST /v2/models/…/infer")
    return _told(served, inputs, infer(served, inputs, call.request_id, call.memo))


def _invoke(served: Served, event: Mapping[str, Any], call: Call) -> Outcome:
    inputs = decode_invocation(body_of(event), served.interface, served.model.dtype)
    outcome = _told(served, inputs, infer(served, inputs, call.request_id, call.memo))
    if outcome.answer is None:
        return outcome._replace(body={"predictions": outcome.body["outputs"]})
    return outcome


def _told(served: Served, inputs: Mapping[str, Any], inferred: Inferred) -> Outcome:
    """Our own answer: predictions and probabilities, or outputs by name where nothing can be read as a prediction."""
    answer, matrix = inferred.answer, served.interface.matrix
    if answer is None:
        outputs = {
            name: protocol.finite(name, inferred.outputs[position], inferred.rows)
            for name, (position, _) in served.interface.outputs.items()
        }
        return Outcome(200, {"outputs": outputs}, inferred.rows, cache=inferred.cache)
    features = None if matrix is None else inputs[matrix.name]
    return Outcome(200, answer.to_json(), inferred.rows, features=features, answer=answer, cache=inferred.cache)


def _infer(served: Served, event: Mapping[str, Any], call: Call) -> Outcome:
    interface = served.interface
    asked = protocol.decode_request(event, interface)
    inferred = infer(served, asked.inputs, call.request_id, call.memo)
    body, tail = protocol.encode_answer(asked, inferred, interface, name=call.endpoint, version=served.pointer.version)
    features = None if interface.matrix is None else asked.inputs[interface.matrix.name]
    return Outcome(
        200,
        body,
        inferred.rows,
        features=features,
        answer=inferred.answer,
        bare=True,
        tail=tail,
        cache=inferred.cache,
        id=asked.id,
    )


_ANSWERS = {"predict": _predict, "invocations": _invoke, "infer": _infer}
_BARE = frozenset({"infer", "metadata", "ready", "server_ready"})
