"""Who asks, in the words of the client: its own id of a request, and the user on whose behalf it comes.

    x-request-id    comes back in the answer's header, and stands in the log line beside Lambda's own id, if it is 1 to
                    128 printable characters without spaces; otherwise it is as if it were not there. So does the `id`
                    of the Open Inference Protocol, which goes back in the body.
    x-perch-user    decides the variant in an experiment, and is never written down. Only the line of a captured
                    request, which holds what was asked anyway, has a pseudonym of it, so that lines of the same user
                    can be told.

A pseudonym is a hash salted with the store's and the endpoint's names: another deployment has others. It is no
anonymity: who has the log and a list of all users can find out who is who.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from .variants import USER

REQUEST = "x-request-id"
_WELL_FORMED = re.compile(r"[!-~]{1,128}").fullmatch


def client_id(event: Mapping[str, Any]) -> str | None:
    """Return the id that a client gave its request in a header, None if there is none that is well formed."""
    headers = event.get("headers")
    return well_formed(headers.get(REQUEST)) if headers else None


def well_formed(text: str | None) -> str | None:
    """Return an id that is fit for a header and a log line, None for any other."""
    return text if text and _WELL_FORMED(text) else None


def pseudonym(event: Mapping[str, Any], salt: str) -> str | None:
    """Return 16 hexadecimal digits that stand for the user of a request, None if it names none."""
    headers = event.get("headers")
    user = headers.get(USER) if headers else None
    if not user:
        return None
    return blake2b(user.encode("utf-8", "replace"), key=salt.encode()[:64], digest_size=8).hexdigest()
