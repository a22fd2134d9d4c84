# SPDX-License-Identifier: Apache-2.0
"""An NBD client on a bare socket, which can say what no well-behaved client says.

Each method sends or receives one thing of the protocol (https://github.com/NetworkBlockDevice/nbd, doc/proto.md);
magic numbers, lengths and payloads can be given wrong.
"""

import collections
import errno
import socket
import struct

from larder_server import SLOWNESS

INIT_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698

FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES = 1 << 0, 1 << 1

OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO = 1, 2, 3, 6, 7

REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3
REP_ERROR = 1 << 31
REP_ERR_UNSUP, REP_ERR_INVALID, REP_ERR_UNKNOWN, REP_ERR_TOO_BIG = (REP_ERROR + n for n in (1, 3, 6, 9))

INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3

(
    TRANSMISSION_HAS_FLAGS,
    TRANSMISSION_READ_ONLY,
    TRANSMISSION_SEND_FLUSH,
    TRANSMISSION_SEND_FUA,
    _TRANSMISSION_ROTATIONAL,
    TRANSMISSION_SEND_TRIM,
    TRANSMISSION_SEND_WRITE_ZEROES,
    _TRANSMISSION_SEND_DF,
    TRANSMISSION_CAN_MULTI_CONN,
    _TRANSMISSION_SEND_RESIZE,
    TRANSMISSION_SEND_CACHE,
    TRANSMISSION_SEND_FAST_ZERO,
) = (1 << bit for bit in range(12))

CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS = range(8)
CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_DF, CMD_FLAG_REQ_ONE, CMD_FLAG_FAST_ZERO = (1 << bit for bit in range(5))

OK, EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW = 0, 1, 5, 22, 28, 75

OptionReply = collections.namedtuple("OptionReply", "option kind data")
Reply = collections.namedtuple("Reply", "error cookie")


class Closed(Exception):
    """The server closed the connection where an answer was due."""


def describe_export(data):
    """(size, transmission flags) of an NBD_INFO_EXPORT."""
    return struct.unpack(">QH", data)


def request_bytes(command, offset=0, length=0, flags=0, cookie=1, magic=REQUEST_MAGIC):
    """A request's header."""
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


class RawClient:
    """A connection. Every receive raises Closed at the end of the stream, and TimeoutError when nothing comes."""

    def __init__(self, server, transport="unix", seconds=10):
        self._cookie = 0
        if transport == "unix":
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(server.socket_path())
        else:
            self.socket = socket.create_connection(server.tcp_address(transport))
        self.socket.settimeout(seconds * SLOWNESS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hang_up()

    def send(self, data):
        """Sends all of `data`, unless the server has hung up: what it says about that, the receives tell."""
        try:
            self.socket.sendall(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise

    def receive(self, length):
        data = bytearray()
        while len(data) < length:
            try:
                piece = self.socket.recv(min(length - len(data), 1 << 20))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed(f"after {len(data)} of {length} bytes")
            data += piece
        return bytes(data)

    def receive_struct(self, layout):
        return struct.unpack(layout, self.receive(struct.calcsize(layout)))

    def is_closed(self):
        """Waits for the end of the stream; False when the server says something instead."""
        try:
            self.receive(1)
        except Closed:
            return True
        return False

    def hang_up(self, abruptly=False):
        """Closes; `abruptly` with a reset, on TCP."""
        if abruptly:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # Handshake

    def receive_greeting(self):
        """The server's handshake flags."""
        init_magic, option_magic, flags = self.receive_struct(">QQH")
        assert (init_magic, option_magic) == (INIT_MAGIC, OPTION_MAGIC), "not a newstyle greeting"
        return flags

    def send_flags(self, flags=FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
        self.send(struct.pack(">I", flags))

    def greet(self):
        self.receive_greeting()
        self.send_flags()
        return self

    def send_option(self, option, data=b"", magic=OPTION_MAGIC, length=None):
        self.send(struct.pack(">QII", magic, option, len(data) if length is None else length) + data)

    def receive_option_reply(self):
        magic, option, kind, length = self.receive_struct(">QIII")
        assert magic == OPTION_REPLY_MAGIC, f"option reply magic is {magic:#x}"
        return OptionReply(option, kind, self.receive(length))

    def ask_option(self, option, data=b""):
        """All replies to an option, up to and including the ACK or the error that ends them."""
        self.send_option(option, data)
        replies = [self.receive_option_reply()]
        while replies[-1].kind in (REP_SERVER, REP_INFO):
            replies.append(self.receive_option_reply())
        return replies

    @staticmethod
    def info_request(export="", infos=()):
        """The data of NBD_OPT_INFO and NBD_OPT_GO."""
        name = export.encode()
        return struct.pack(f">I{len(name)}sH{len(infos)}H", len(name), name, len(infos), *infos)

    def go(self, export=""):
        """The whole handshake, into transmission."""
        self.greet()
        replies = self.ask_option(OPT_GO, self.info_request(export))
        assert replies[-1].kind == REP_ACK, f"GO was refused: {replies}"
        return self

    # Transmission

    def send_request(self, command, offset=0, length=0, flags=0, payload=b"", magic=REQUEST_MAGIC):
        """Sends a request and gives its cookie, another one for each."""
        self._cookie += 0x0101_0000_0000_0001
        cookie = self._cookie & (1 << 64) - 1
        self.send(request_bytes(command, offset, length, flags, cookie, magic) + payload)
        return cookie

    def receive_reply(self):
        magic, error, cookie = self.receive_struct(">IIQ")
        assert magic == SIMPLE_REPLY_MAGIC, f"reply magic is {magic:#x}"
        return Reply(error, cookie)

    def ask(self, command, offset=0, length=0, flags=0, payload=b""):
        """One request and its reply's error; the data of a READ is received with read()."""
        cookie = self.send_request(command, offset, length, flags, payload)
        reply = self.receive_reply()
        assert reply.cookie == cookie, f"cookie {reply.cookie:#x} came back for {cookie:#x}"
        return reply.error

    def read(self, offset, length):
        error = self.ask(CMD_READ, offset, length)
        assert error == OK, f"read of {length} bytes at {offset}: error {error}"
        return self.receive(length)
