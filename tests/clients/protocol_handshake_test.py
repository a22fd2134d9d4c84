# SPDX-License-Identifier: Apache-2.0
"""The handshake answers as the NBD protocol says, to clients right and wrong."""

import random
import struct

import client_case
import raw_nbd
from images import KIB, MIB
from protocol_case import DISK_SIZE, WRITTEN, ProtocolCase
from raw_nbd import REP_ACK, Closed, describe_export

WRITABLE_FLAGS = (
    raw_nbd.TRANSMISSION_HAS_FLAGS
    | raw_nbd.TRANSMISSION_SEND_FLUSH
    | raw_nbd.TRANSMISSION_SEND_FUA
    | raw_nbd.TRANSMISSION_SEND_TRIM
    | raw_nbd.TRANSMISSION_SEND_WRITE_ZEROES
    | raw_nbd.TRANSMISSION_CAN_MULTI_CONN
)
BLOCK_SIZES = struct.pack(">HIII", raw_nbd.INFO_BLOCK_SIZE, 1, 4096, 32 * MIB)


class HandshakeTest(ProtocolCase):
    def assert_still_negotiates(self, client):
        replies = client.ask_option(raw_nbd.OPT_LIST)
        self.assertEqual(replies[-1].kind, REP_ACK)

    def assert_error_or_closed(self, client, option):
        """The protocol leaves both to the server; after an error the handshake goes on."""
        try:
            reply = client.receive_option_reply()
        except Closed:
            return
        self.assertEqual(reply.option, option)
        self.assertGreater(reply.kind, raw_nbd.REP_ERROR)
        self.assert_still_negotiates(client)

    def test_greeting_is_fixed_newstyle_without_zeroes(self):
        flags = self.raw_client().receive_greeting()
        self.assertEqual(flags, raw_nbd.FLAG_FIXED_NEWSTYLE | raw_nbd.FLAG_NO_ZEROES)

    def test_unknown_client_flags_close(self):
        client = self.raw_client()
        client.receive_greeting()
        client.send_flags(0xDEADBEEF)
        self.assertTrue(client.is_closed())

    def test_wrong_option_magic_closes(self):
        client = self.raw_client().greet()
        client.send_option(raw_nbd.OPT_LIST, magic=0x49484156454F5055)
        self.assertTrue(client.is_closed())

    def test_unknown_options_are_unsupported_and_the_handshake_goes_on(self):
        client = self.raw_client().greet()
        for option, data in ((77, b""), (78, b"x" * 1000), (0xFFFFFFFF, b"abc"), (0, b"")):
            replies = client.ask_option(option, data)
            self.assertEqual([(reply.option, reply.kind) for reply in replies], [(option, raw_nbd.REP_ERR_UNSUP)])
        self.assert_still_negotiates(client)

    def test_oversize_option_is_refused_or_closes(self):
        for option in (raw_nbd.OPT_GO, raw_nbd.OPT_LIST, 77):
            client = self.raw_client().greet()
            client.send_option(option, bytes(MIB))
            self.assert_error_or_closed(client, option)
            client.hang_up()

    def test_oversize_export_name_closes(self):
        client = self.raw_client().greet()
        client.send_option(raw_nbd.OPT_EXPORT_NAME, b"x" * (64 * KIB))
        self.assertTrue(client.is_closed())

    def test_option_of_4_gib_that_never_comes_holds_nothing(self):
        client = self.raw_client().greet()
        client.send_option(77, bytes(64 * KIB), length=0xFFFFFFFF)
        self.check_serves()
        client.hang_up()

    def test_export_name_answers_with_size_and_flags(self):
        for flags, length in ((raw_nbd.FLAG_FIXED_NEWSTYLE | raw_nbd.FLAG_NO_ZEROES, 10), (1, 134)):
            client = self.raw_client()
            client.receive_greeting()
            client.send_flags(flags)
            client.send_option(raw_nbd.OPT_EXPORT_NAME, b"disk")
            answer = client.receive(length)
            self.assertEqual(describe_export(answer[:10]), (DISK_SIZE, WRITABLE_FLAGS))
            self.assertEqual(answer[10:], bytes(length - 10))
            self.assertEqual(len(client.read(0, WRITTEN)), WRITTEN)
            client.hang_up()

    def test_export_name_empty_is_the_first_export(self):
        client = self.raw_client().greet()
        client.send_option(raw_nbd.OPT_EXPORT_NAME, b"")
        self.assertEqual(describe_export(client.receive(10))[0], DISK_SIZE)

    def test_export_name_unknown_closes_without_a_word(self):
        for name in (b"nothing", b"dis", b"disk\0", b"\xff\xfe"):
            client = self.raw_client().greet()
            client.send_option(raw_nbd.OPT_EXPORT_NAME, name)
            self.assertTrue(client.is_closed(), name)

    def test_list_gives_every_name_and_an_empty_ack(self):
        replies = self.raw_client().greet().ask_option(raw_nbd.OPT_LIST)
        names = []
        for reply in replies[:-1]:
            self.assertEqual((reply.option, reply.kind), (raw_nbd.OPT_LIST, raw_nbd.REP_SERVER))
            (length,) = struct.unpack(">I", reply.data[:4])
            self.assertLessEqual(4 + length, len(reply.data))
            names.append(reply.data[4 : 4 + length])
        self.assertEqual(names, [b"disk", b"frozen"])
        self.assertEqual(replies[-1], raw_nbd.OptionReply(raw_nbd.OPT_LIST, REP_ACK, b""))

    def test_list_with_data_is_invalid(self):
        client = self.raw_client().greet()
        self.assertEqual(client.ask_option(raw_nbd.OPT_LIST, b"x")[0].kind, raw_nbd.REP_ERR_INVALID)
        self.assert_still_negotiates(client)

    def test_info_tells_export_and_block_sizes_and_the_handshake_goes_on(self):
        client = self.raw_client().greet()
        read_only = WRITABLE_FLAGS | raw_nbd.TRANSMISSION_READ_ONLY
        for name, size, must, may in (
            ("disk", DISK_SIZE, WRITABLE_FLAGS, WRITABLE_FLAGS),
            ("", DISK_SIZE, WRITABLE_FLAGS, WRITABLE_FLAGS),
            ("frozen", MIB, raw_nbd.TRANSMISSION_HAS_FLAGS | raw_nbd.TRANSMISSION_READ_ONLY, read_only),
        ):
            request = client.info_request(name, [raw_nbd.INFO_BLOCK_SIZE])
            replies = client.ask_option(raw_nbd.OPT_INFO, request)
            self.assertEqual(replies[-1], raw_nbd.OptionReply(raw_nbd.OPT_INFO, REP_ACK, b""))
            infos = {reply.data[:2]: reply.data for reply in replies[:-1]}
            self.assertEqual(len(infos), len(replies) - 1, "an information was sent twice")
            export = infos[struct.pack(">H", raw_nbd.INFO_EXPORT)]
            self.assertEqual(len(export), 12)
            self.assertEqual(describe_export(export[2:])[0], size)
            flags = describe_export(export[2:])[1]
            self.assertEqual((flags & must, flags & ~may), (must, 0), f"{name}: flags {flags:#x}")
            self.assertEqual(infos[struct.pack(">H", raw_nbd.INFO_BLOCK_SIZE)], BLOCK_SIZES)

    def test_info_without_requests_still_tells_the_export(self):
        client = self.raw_client().greet()
        replies = client.ask_option(raw_nbd.OPT_INFO, client.info_request("disk"))
        exports = [reply for reply in replies if reply.data[:2] == b"\0\0"]
        self.assertEqual(len(exports), 1)
        self.assertEqual(replies[-1].kind, REP_ACK)

    def test_info_and_go_for_an_unknown_export_say_unknown(self):
        client = self.raw_client().greet()
        for option in (raw_nbd.OPT_INFO, raw_nbd.OPT_GO):
            replies = client.ask_option(option, client.info_request("nothing"))
            self.assertEqual([reply.kind for reply in replies], [raw_nbd.REP_ERR_UNKNOWN])
        self.assert_still_negotiates(client)

    def test_malformed_info_and_go_are_invalid(self):
        client = self.raw_client().greet()
        for data in (
            b"",
            b"\0\0\0",
            struct.pack(">I", 4) + b"disk",  # no count
            struct.pack(">IH", 0xFFFFFFFF, 0),  # a name longer than the option
            struct.pack(">I", 4) + b"disk" + struct.pack(">H", 2) + b"\0\3",  # fewer requests than counted
            struct.pack(">I", 4) + b"disk" + struct.pack(">H", 0) + b"\0\3",  # more requests than counted
        ):
            for option in (raw_nbd.OPT_INFO, raw_nbd.OPT_GO):
                replies = client.ask_option(option, data)
                self.assertEqual([reply.kind for reply in replies], [raw_nbd.REP_ERR_INVALID], data)
        self.assert_still_negotiates(client)

    def test_go_enters_transmission(self):
        client = self.raw_client().greet()
        replies = client.ask_option(raw_nbd.OPT_GO, client.info_request("disk", [raw_nbd.INFO_BLOCK_SIZE]))
        self.assertEqual(replies[-1], raw_nbd.OptionReply(raw_nbd.OPT_GO, REP_ACK, b""))
        self.assertIn(BLOCK_SIZES, [reply.data for reply in replies])
        self.assertEqual(client.ask(raw_nbd.CMD_FLUSH), raw_nbd.OK)

    def test_abort_is_acknowledged_and_closes(self):
        client = self.raw_client().greet()
        self.assertEqual(
            client.ask_option(raw_nbd.OPT_ABORT), [raw_nbd.OptionReply(raw_nbd.OPT_ABORT, REP_ACK, b"")]
        )
        self.assertTrue(client.is_closed())

    def test_a_handshake_that_comes_byte_by_byte_is_understood(self):
        client = self.raw_client()
        client.receive_greeting()
        request = client.info_request("disk")
        message = struct.pack(">IQII", 3, raw_nbd.OPTION_MAGIC, raw_nbd.OPT_GO, len(request)) + request
        for at in range(len(message)):
            client.send(message[at : at + 1])
        while client.receive_option_reply().kind != REP_ACK:
            pass
        self.assertEqual(len(client.read(0, 512)), 512)

    def test_random_bytes_do_no_harm(self):
        rng = random.Random(9)
        for n in range(100):
            client = self.raw_client()
            if n % 2:
                client.greet()
            client.send(rng.randbytes(rng.randrange(1, 3000)))
            client.hang_up()


if __name__ == "__main__":
    client_case.main()
