"""The port: opening it, and closing it without losing who is on the way in.

When a listening socket closes, the kernel resets the clients that have connected and were not accepted yet, and with
them the requests that they have sent. So `shut_out` first lets the kernel ignore those who knock: the socket takes only
packets that no router has touched and whose sender counts down from 255, which is nobody (IP_MINTTL; it needs no
privilege, as a packet filter may). Who is inside already is accepted as ever, and `let_in` lifts the rule from the
connections that inherited it. After a moment nobody is on the way in, and closing loses nothing. Who was ignored knocks
again a second later, and is refused in time to go elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import socket

_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73  # of Linux; the socket module does not name them


def bind(host: str, port: int, *, share: bool = False) -> socket.socket:
    """Return a socket at a port (0: any free one); `share` lets this user's other processes have one there too.

    Raises:
        OSError: the port is taken, or the host is not an address of this machine.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def shut_out(sock: socket.socket) -> None:
    """Let a listening socket take no new clients; where the kernel knows no such rule, nothing happens."""
    _least(sock, 255)


def let_in(descriptor: int) -> None:
    """Lift the rule from a connection that was accepted after `shut_out`."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        _least(sock, 0)


def _least(sock: socket.socket, hops: int) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, hops)
    if sock.family == socket.AF_INET6:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, hops)
