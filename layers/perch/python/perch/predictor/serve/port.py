"""The port: opening it, and closing it without losing who is on the way in.

When a listening socket closes, the kernel resets the clients that have connected and were not accepted yet, and with
them the requests that they have sent. So `shut_out` first lets the kernel ignore those who knock (a filter of four BPF
instructions on the socket: no SYN passes); who is inside already is accepted as ever. After a moment nobody is on the
way in, and closing loses nothing. Who was ignored knocks again a second later, and is refused in time to go elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

_SO_ATTACH_FILTER = 26  # of Linux; the socket module does not name it
_FLAGS, _SYN, _ACK = 13, 0x02, 0x10  # the byte of a TCP header, and its bits
_NO_SYN = (
    (0x30, 0, 0, _FLAGS),  # load the byte
    (0x54, 0, 0, _SYN | _ACK),  # keep the two bits
    (0x15, 0, 1, _SYN),  # a SYN, and no answer to one?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


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
    """Let a listening socket take no new clients; where the kernel knows no such filter, nothing happens."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    program = ctypes.create_string_buffer(code)
    with contextlib.suppress(OSError):
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
        )
