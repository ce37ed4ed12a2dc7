"""One HTTP connection: whatever a client sends, however slowly, in whatever pieces."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perch.http.answer import write_answer
from perch.http.connection import Connection, Limits, Request, joined

LIMITS = Limits(head=1000, body=5000, receive_s=10, idle_s=60)
GET = b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@dataclass
class Client:
    """A transport that keeps what is written, and a service that answers each request with its path and body."""

    patient: bool = False
    """Answers only when told to."""
    at: float = 0.0
    sent: bytes = b""
    requests: list[Request] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    state: str = "open"
    reading: bool = True

    def __post_init__(self) -> None:
        self.connection = Connection(self, LIMITS, lambda: self.at)
        self.connection.connection_made(self)

    # The service

    def opened(self, connection): ...

    def closed(self, connection): ...

    def handle(self, request):
        self.requests.append(request)
        if not self.patient:
            self.answer(request)

    def answer(self, request):
        body = request.target + b" " + request.body
        data = write_answer(request, 200, [], body, date="now", keep_alive=request.keep_alive)
        self.connection.send(data, keep_alive=request.keep_alive)

    def refuse(self, request, status, sentence):
        self.refused.append((status, sentence))
        return write_answer(request, status, [], b"", date="now", keep_alive=False)

    # The transport

    def get_extra_info(self, name):
        return ("10.0.0.1", 1) if name == "peername" else None

    def write(self, data):
        self.sent += data

    def is_closing(self):
        return self.state in {"closed", "aborted"}

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.state = "half closed"

    def close(self):
        self.state = "closed"

    def abort(self):
        self.state = "aborted"

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    # The client

    def send(self, *pieces: bytes) -> Client:
        for piece in pieces:
            self.connection.data_received(piece)
        return self

    def wait(self, seconds: float) -> Client:
        self.at += seconds
        self.connection.overdue()
        return self


bodies = st.binary(max_size=40)


@st.composite
def requests(draw):
    """A request on the wire, and what it says."""
    body = draw(bodies)
    target = b"/" + draw(st.text("abc%?=", max_size=8)).encode()
    if draw(st.booleans()):
        cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=4)) | {0, len(body)})
        chunks = [body[start:end] for start, end in pairwise(cuts)]
        text = b"transfer-encoding: chunked\r\n\r\n"
        text += b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        text = b"content-length: %d\r\n\r\n%s" % (len(body), body)
    return b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n" + text, (target, body)


@given(st.lists(requests(), min_size=1, max_size=6), st.data())
def test_requests_are_the_same_however_they_are_cut(sent, data):
    """Byte by byte or all at once, ahead or not: same requests, answered once each and in order."""
    wire = b"".join(one for one, _ in sent)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=20)) | {0, len(wire)})
    client = Client().send(*(wire[start:end] for start, end in pairwise(cuts)))
    assert [(one.target, one.body) for one in client.requests] == [said for _, said in sent]
    answers = [target + b" " + body for _, (target, body) in sent]
    assert client.sent == b"".join(
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: %d\r\n\r\n%s" % (len(one), one) for one in answers
    )


@given(st.binary(max_size=3000), st.data())
def test_bytes_of_any_kind_end_in_requests_or_in_one_refusal(wire, data):
    """Nothing is raised, and nothing is served after a refusal."""
    cut = data.draw(st.integers(0, len(wire)))
    client = Client().send(GET, wire[:cut], wire[cut:])
    assert len(client.refused) <= 1
    before = len(client.requests)
    if client.refused:
        assert len(client.send(GET).requests) == before


def test_headers_keep_order_and_case_and_join_by_name():
    """Who signs needs them as they were, who looks one up does not."""
    client = Client().send(b"GET / HTTP/1.1\r\nX-B: 1\r\nHost: x\r\nX-A: 2\r\nx-b: 3\r\n\r\n")
    headers = client.requests[0].headers
    assert headers == [(b"X-B", b"1"), (b"Host", b"x"), (b"X-A", b"2"), (b"x-b", b"3")]
    assert joined(headers) == {"x-b": "1,3", "host": "x", "x-a": "2"}
    assert client.connection.client == "10.0.0.1"


def test_what_follows_a_chunked_body_is_no_header():
    """It has passed by whoever sets or takes away headers before us; and countless ones take no memory."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    client = Client().send(head, b"x-perch-user: me\r\n" * 100, b"\r\n", GET)
    assert [(one.body, one.headers[1:]) for one in client.requests] == [
        (b"{}", [(b"transfer-encoding", b"chunked")]),
        (b"", []),
    ]


def test_one_request_is_served_at_a_time_and_a_hasty_client_is_not_read():
    """Reading stops a few requests ahead, and goes on when they are answered."""
    client = Client(patient=True).send(GET * 40)
    assert (len(client.requests), client.reading) == (1, False)
    for number in range(40):
        client.answer(client.requests[number])
    assert (len(client.requests), client.reading) == (40, True)


POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
REFUSED = {
    "no HTTP": (b"HELO mail.example.org\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", 400),
    "a header without a colon": (b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
    "two lengths": (POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\n", 400),
    "length and chunks": (POST + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "length after chunks": (POST + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
    "a length that is no number": (POST + b"content-length: 3e9\r\n\r\n", 400),
    "a body announced too large": (POST + b"content-length: 5001\r\n\r\n", 413),
    "a body too large in chunks": (CHUNKED + b"1000\r\n" + b"a" * 0x1000 + b"\r\n1000\r\n" + b"a" * 0x1000, 413),
    "a target too long": (b"GET /" + b"a" * 1000 + b" HTTP/1.1\r\n\r\n", 431),
    "headers too long": (b"GET / HTTP/1.1\r\nx: " + b"a" * 1000 + b"\r\n\r\n", 431),
    "a header without an end": (b"GET / HTTP/1.1\r\nx: " + b"a" * 20_000, 431),
    "a chunk extension without an end": (CHUNKED + b"1;" + b"a" * 60_000, 431),
    "a trailer without an end": (CHUNKED + b"1\r\na\r\n0\r\nx: " + b"a" * 20_000, 431),
    "trailers without an end": (CHUNKED + b"1\r\na\r\n0\r\n" + b"x: y\r\n" * 5_000, 431),
    "another version": (b"GET / HTTP/2.0\r\nhost: x\r\n\r\n", 505),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "no host, and the target has one": (b"GET http://x/ HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
    "two hosts in HTTP/1.0": (b"GET / HTTP/1.0\r\nhost: x\r\nHost: y\r\n\r\n", 400),
    "a host that is a path": (b"GET / HTTP/1.1\r\nhost: x/y\r\n\r\n", 400),
    "a host that is two": (b"GET / HTTP/1.1\r\nhost: x y\r\n\r\n", 400),
    "a coding that is not undone here": (POST + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "the same on two lines": (POST + b"transfer-encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "a coding without a name": (POST + b"transfer-encoding: ,chunked\r\n\r\n0\r\n\r\n", 501),
    "a coding that nobody knows": (POST + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "a body without chunks": (POST + b"transfer-encoding: gzip\r\n\r\nbody", 400),
    "chunks that are no longer the last coding": (POST + b"transfer-encoding: chunked, gzip\r\n\r\nbody", 400),
    "chunks in chunks": (POST + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks with a parameter": (POST + b"transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("step", [1, 9000])
def test_what_cannot_be_read_is_refused_after_what_came_before_it(case, step):
    """Once, with the status that fits; then the connection ends."""
    data, status = REFUSED[case]
    wire = GET + data
    client = Client().send(*(wire[start : start + step] for start in range(0, len(wire), step)))
    assert [found for found, _ in client.refused] == [status]
    assert (len(client.requests), client.sent.count(b"HTTP/1.1 "), client.state) == (1, 2, "half closed")
    assert client.sent.endswith(b"connection: close\r\n\r\n")


def test_a_head_is_taken_however_it_is_cut():
    """What is allowed in one piece is allowed in many."""
    wire = (
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"".join(b"h%03d: %s\r\n" % (one, b"a" * 95) for one in range(10)) + b"\r\n"
    )
    assert len(wire) > LIMITS.head  # with what stands between names and values
    assert len(Client().send(wire).requests) == 1
    assert len(Client().send(*(bytes([one]) for one in wire)).requests) == 1


def test_a_client_that_asks_first_is_told_to_go_on():
    """Expect: 100-continue; not if its body would be refused."""
    head = POST + b"expect: 100-Continue\r\ncontent-length: %d\r\n\r\n"
    client = Client().send(head % 4)
    assert client.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.send(b"body").requests[0].body == b"body"
    assert Client().send(head % 6000).sent.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("head", "ends", "told"),
    [
        (GET, False, b""),
        (GET[:-2] + b"connection: close\r\n\r\n", True, b"connection: close"),
        (b"GET / HTTP/1.0\r\n\r\n", True, b"connection: close"),
        (b"GET http://x.example/ HTTP/1.1\r\nhost: [::1]:8080\r\n\r\n", False, b""),
        (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", False, b""),
        (CHUNKED.replace(b": chunked", b":\t Chunked ") + b"0\r\n\r\n", False, b""),
        (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", False, b"connection: keep-alive"),
        (GET[:-2] + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", True, b"connection: close"),
        (b"CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n", True, b"connection: close"),
    ],
)
def test_a_connection_is_kept_as_its_client_expects(head, ends, told):
    """An upgrade is served as if it had not been asked for, and what follows it is not read as HTTP."""
    client = Client().send(head + (b"\x81\x05hello" if b"upgrade" in head else b""))
    assert (client.state == "half closed", len(client.requests)) == (ends, 1)
    assert told in client.sent
    assert (b"connection:" in client.sent) is bool(told)


@pytest.mark.parametrize("pieces", [(b"G",), (GET[:-1],), (CHUNKED, b"3\r\nab"), (GET, b"GET")])
def test_a_request_that_is_never_whole_is_refused(pieces):
    """After `receive_s` from its first byte, however many bytes came since."""
    client = Client().send(*pieces).wait(LIMITS.receive_s - 1)
    assert client.refused == []
    assert client.wait(2).refused == [(408, "the request was not whole after 10 s")]


def test_a_connection_that_asks_nothing_is_closed():
    """After `idle_s`; not while its request is served, however long that takes."""
    assert Client().wait(LIMITS.idle_s + 1).state == "closed"
    client = Client(patient=True).send(GET).wait(1000)
    assert client.state == "open"
    client.answer(client.requests[0])
    assert client.wait(LIMITS.idle_s - 1).state == "open"
    assert client.wait(2).state == "closed"


def test_a_client_that_does_not_read_is_served_nothing_more():
    """Until it reads; after `receive_s` it is cut off."""
    client = Client().send(GET)
    client.connection.pause_writing()
    client.send(GET)
    assert len(client.requests) == 1
    client.connection.resume_writing()
    assert len(client.requests) == 2
    client.connection.pause_writing()
    assert client.wait(LIMITS.receive_s - 1).state == "open"
    assert client.wait(2).state == "aborted"


def test_after_its_last_answer_a_client_is_read_for_a_moment():
    """Closing on what it still sends would take its answer back; one that does not read it is cut off later."""
    client = Client().send(LAST, GET)
    assert (len(client.requests), client.state) == (1, "half closed")
    assert client.wait(1).state == "half closed"
    assert client.wait(1.5).state == "closed"
    client = Client(patient=True).send(LAST)
    client.connection.pause_writing()
    client.answer(client.requests[0])
    assert client.wait(LIMITS.receive_s - 1).state == "half closed"
    assert client.wait(2).state == "aborted"


def test_a_client_that_sends_no_more_still_gets_its_answers():
    """Then the connection is closed; without a whole request it is closed at once."""
    client = Client(patient=True).send(GET, GET)
    assert client.connection.eof_received() is True
    client.answer(client.requests[0])
    client.answer(client.requests[1])
    assert (client.sent.count(b"200 OK"), client.state) == (2, "closed")
    assert Client().send(GET[:5]).connection.eof_received() is False


@pytest.mark.parametrize(("version", "asked"), [(b"1.1", True), (b"1.0", False)])
def test_a_client_that_sends_no_more_is_asked_whether_it_is_there(version, asked):
    """By an interim answer, which resets the connection if it is gone; HTTP/1.0 has none."""
    client = Client(patient=True).send(GET.replace(b"1.1", version))
    client.connection.eof_received()
    assert client.sent == (b"HTTP/1.1 100 Continue\r\n\r\n" if asked else b"")


def test_answers_without_a_body_say_so():
    """HEAD tells the length that it would have had, 204 and 304 tell none; a status without a name has one."""
    head, get = Client().send(GET.replace(b"GET", b"HEAD"), GET).requests
    assert write_answer(head, 200, [], b"body", date="now", keep_alive=True).endswith(b"content-length: 4\r\n\r\n")
    assert write_answer(get, 204, [], b"body", date="now", keep_alive=True).endswith(b"date: now\r\n\r\n")
    assert write_answer(get, 299, [], b"", date="now", keep_alive=True).startswith(b"HTTP/1.1 299 Unknown\r\n")
