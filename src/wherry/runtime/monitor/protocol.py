"""What daemon and monitor say to each other: packets of text fields, with descriptors beside them.

One packet of a SOCK_SEQPACKET socket (unix(7)) is one message: fields without zero bytes, joined by
zero bytes; the first is the verb. Descriptors travel by SCM_RIGHTS.

The daemon asks, each time with a serial number of its own behind the verb::

    create SERIAL ID BUNDLE TERMINAL STDIN ARGV…   run ARGV, an OCI runtime's create
    take SERIAL ID                                  give me what you hold of it
    drop-stdin SERIAL ID                            close your end of its standard input
    forget SERIAL ID                                close all of it, write no exit file any more;
                                                    kill a create that is under way
    adopt SERIAL ID NAMES +descriptors              hold this for me, which another monitor held

and is answered ``done SERIAL …`` or ``failed SERIAL TEXT``. ``create`` and ``take`` are answered
with ``PID NAMES`` and the descriptors that ``NAMES`` (joined by commas) names: ``pidfd``, and
``stdin``, ``stdout``, ``stderr`` or ``terminal``; ``take`` of an ended container with ``0 NAMES
CODE TIME``. Unasked, the monitor says ``hello PID`` with a pidfd of its own when the daemon
connects, ``exit ID CODE TIME`` when a container has ended and its exit file is written, and
``superseded`` when another daemon has connected.
"""

import os
import socket

SOCKET = "monitor.sock"
# No message is longer: what the runtime complained of is cut off.
PACKET = 1 << 16
LONGEST_TEXT = 1 << 15
# How many descriptors one message carries at most: a pidfd and three streams.
DESCRIPTORS = 4


def pack(*fields: str | int) -> bytes:
    """One message."""
    return b"\0".join(os.fsencode(str(field)) for field in fields)


def receive(connection: socket.socket) -> tuple[list[str], list[int]]:
    """The next message and its descriptors, which are the caller's from here on; none at the end.

    Raises:
        BlockingIOError: there is none yet.
        OSError: the connection broke.
    """
    data, descriptors, _, _ = socket.recv_fds(
        connection, PACKET, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    return [os.fsdecode(field) for field in data.split(b"\0")] if data else [], descriptors
