"""`perch predict`: ask an endpoint, as any client would, over its HTTP API.

The request is signed (Signature Version 4) whenever there are credentials; an open API does not mind.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import monotonic
from typing import Annotated, Any
from urllib.parse import quote

import typer

from perch.cli.context import Context
from perch.cli.show import Json, emit, say, tell
from perch.domain.errors import Invalid, Refused


def predict(
    ctx: typer.Context,
    endpoint: Annotated[str, typer.Argument(help="Name of an endpoint.")],
    body: Annotated[
        str,
        typer.Argument(help='JSON such as {"features": [[1, 2]]} or just the rows, @FILE, or - for standard input.'),
    ] = "-",
    user: Annotated[
        str | None, typer.Option(help="Id of a user, who has a variant of his own in an experiment.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Ask this variant of an experiment, whoever the user is.")] = None,
    as_json: Json = False,
) -> None:
    """Send rows of features to an endpoint and print its answer."""
    place: Context = ctx.obj
    data = _body(body)
    url = f"{place.output('serving', 'ApiUrl').rstrip('/')}/models/{quote(endpoint, safe='')}/predict"
    began = monotonic()
    headers = {"x-perch-user": user, "x-perch-variant": variant}
    status, answer = _post(place, url, data, {name: value for name, value in headers.items() if value})
    say(f"{status} in {1000 * (monotonic() - began):.0f} ms")
    if status != 200:
        raise Refused(_why(status, answer))
    if as_json:
        emit(answer)
    else:
        tell(json.dumps(answer, ensure_ascii=False))


def _body(text: str) -> bytes:
    """Return the request's body; a bare list is rows of features."""
    if text == "-":
        if sys.stdin.isatty():
            say("reading the features from the keyboard; end with Ctrl-D")
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text("utf-8")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise Invalid(f'the body is not JSON ({error}); send {{"features": [[…]]}} or just the rows') from error
    return json.dumps({"features": document} if isinstance(document, list) else document).encode()


def _post(place: Context, url: str, data: bytes, headers: dict[str, str]) -> tuple[int, Any]:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.httpsession import URLLib3Session

    request = AWSRequest(method="POST", url=url, data=data, headers={"Content-Type": "application/json", **headers})
    credentials = place.session.get_credentials()
    if credentials:
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", place.session.region_name).add_auth(request)
    answer = URLLib3Session(timeout=35).send(request.prepare())
    try:
        return answer.status_code, json.loads(answer.content)
    except ValueError:
        return answer.status_code, answer.content.decode("utf-8", "replace")[:500]


def _why(status: int, answer: Any) -> str:
    """Return the API's own sentence; API Gateway's terse ones are put into words."""
    told = answer.get("error") or answer.get("message") if isinstance(answer, dict) else answer
    if status == 403:
        return f"the API refused the request ({told}): it takes signed requests of callers that may execute-api:Invoke"
    return f"{told or 'the API gave no reason'} (status {status})"
