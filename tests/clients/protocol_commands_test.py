# SPDX-License-Identifier: Apache-2.0
"""In transmission every request gets the error that the NBD protocol names, or a closed connection; none does harm."""

import random

import client_case
import raw_nbd
from images import KIB, MIB, pattern, read_file_range
from protocol_case import DISK_SIZE, WRITTEN, ProtocolCase
from raw_nbd import (
    CMD_DISC,
    CMD_FLAG_DF,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLUSH,
    CMD_READ,
    CMD_TRIM,
    CMD_WRITE,
    CMD_WRITE_ZEROES,
    EINVAL,
    ENOSPC,
    EPERM,
    OK,
    Closed,
    request_bytes,
)

SIZE_MAX = 32 * MIB


class CommandsTest(ProtocolCase):
    def transmission(self, export="disk"):
        return self.raw_client().go(export)

    def assert_usable(self, client):
        """The stream is still in step: a read on it is answered with the right bytes."""
        self.assertTrue(client.read(8, 4096) == pattern(8, 4096), "the next read on the same connection")

    def assert_refused(self, client, errors, command, *arguments, **options):
        error = client.ask(command, *arguments, **options)
        self.assertIn(error, errors, f"command {command}{arguments}: error {error}")
        self.assert_usable(client)

    def assert_refused_or_closed(self, client, command, offset, length, payload=b""):
        try:
            self.assert_refused(client, (EINVAL, raw_nbd.EOVERFLOW), command, offset, length, payload=payload)
        except Closed:
            pass

    def test_wrong_request_magic_closes(self):
        client = self.transmission()
        client.send_request(CMD_READ, 0, 512, magic=0x25609514)
        self.assertTrue(client.is_closed())

    def test_reads_past_the_end_are_invalid(self):
        client = self.transmission()
        for offset, length in ((DISK_SIZE - 511, 512), (DISK_SIZE, 1), (1 << 63, 4096), ((1 << 64) - 512, 512)):
            self.assert_refused(client, [EINVAL], CMD_READ, offset, length)
        self.assertEqual(client.read(DISK_SIZE - 512, 512), bytes(512))

    def test_writes_past_the_end_have_no_space(self):
        client = self.transmission()
        for offset, length in ((DISK_SIZE - 511, 512), (DISK_SIZE, 100_000), ((1 << 64) - 512, 512)):
            self.assert_refused(client, [ENOSPC], CMD_WRITE, offset, length, payload=b"x" * length)
        self.assertEqual(client.read(DISK_SIZE - 512, 512), bytes(512), "what was refused must not be written in part")

    def test_zeroes_and_trims_past_the_end_are_refused(self):
        client = self.transmission()
        for command in (CMD_WRITE_ZEROES, CMD_TRIM):
            for offset, length in ((DISK_SIZE - 4095, 4096), ((1 << 64) - 4096, 8192), (0, 0xFFFFFFFF)):
                self.assert_refused(client, [EINVAL, ENOSPC], command, offset, length)

    def test_requests_over_32_mib_are_refused(self):
        self.assert_refused_or_closed(self.transmission(), CMD_READ, 0, SIZE_MAX + 1)
        self.assert_refused_or_closed(self.transmission(), CMD_READ, 0, 0xFFFFFFFF)
        self.assert_refused_or_closed(self.transmission(), CMD_WRITE, MIB, SIZE_MAX + 1, bytes(SIZE_MAX + 1))
        self.check_serves()

    def test_requests_of_32_mib_are_served_in_a_memory_of_2_mib(self):
        client = self.transmission()
        data = pattern(0, SIZE_MAX)
        self.assertEqual(client.ask(CMD_WRITE, MIB + 1, SIZE_MAX, payload=data), OK)
        self.assertTrue(client.read(MIB + 1, SIZE_MAX) == data)
        self.assertEqual(client.ask(CMD_WRITE_ZEROES, MIB, DISK_SIZE - MIB), OK, "zeroes carry no payload: any length")
        self.assertTrue(client.read(MIB + 1, SIZE_MAX) == bytes(SIZE_MAX))

    def test_commands_of_no_length_do_no_harm(self):
        client = self.transmission()
        for command in (CMD_READ, CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
            self.assert_refused(client, [OK, EINVAL], command, 0, 0)

    def test_commands_that_were_not_advertised_are_invalid(self):
        client = self.transmission()
        for command in (raw_nbd.CMD_BLOCK_STATUS, raw_nbd.CMD_CACHE, 8, 77, 0xFFFF):
            self.assert_refused(client, [EINVAL], command, 0, 4096)

    def test_flags_that_were_not_advertised_are_invalid(self):
        client = self.transmission()
        self.assert_refused(client, [EINVAL], CMD_WRITE_ZEROES, 0, 4096, CMD_FLAG_FAST_ZERO)
        self.assert_refused(client, [EINVAL], CMD_READ, 0, 4096, CMD_FLAG_DF)
        self.assert_refused(client, [EINVAL], CMD_READ, 0, 4096, 1 << 15)
        self.assert_refused(client, [EINVAL], CMD_WRITE, 0, 4096, 1 << 15, payload=bytes(4096))

    def test_advertised_flags_are_honoured(self):
        client = self.transmission()
        self.assertEqual(client.ask(CMD_WRITE, MIB, 1000, CMD_FLAG_FUA, b"f" * 1000), OK)
        self.assertEqual(read_file_range(self.path("disk.img"), MIB, 1000), b"f" * 1000)
        self.assertEqual(client.ask(CMD_WRITE_ZEROES, MIB, 500, CMD_FLAG_FUA | CMD_FLAG_NO_HOLE), OK)
        self.assertEqual(read_file_range(self.path("disk.img"), MIB, 1000), bytes(500) + b"f" * 500)
        self.assertEqual(client.ask(CMD_TRIM, 2 * MIB, MIB, CMD_FLAG_FUA), OK)
        self.assertEqual(client.ask(CMD_FLUSH), OK)
        self.assert_usable(client)

    def test_fua_is_valid_on_every_command(self):
        client = self.transmission()
        self.assertEqual(client.ask(CMD_READ, 0, 512, CMD_FLAG_FUA), OK)
        self.assertEqual(client.receive(512), pattern(0, 512))
        self.assertEqual(client.ask(CMD_FLUSH, flags=CMD_FLAG_FUA), OK)
        self.assert_usable(client)

    def test_changes_of_a_read_only_export_are_not_permitted(self):
        client = self.transmission("frozen")
        for flags in (0, CMD_FLAG_FUA):
            self.assertEqual(client.ask(CMD_WRITE, 0, 70_000, flags, b"x" * 70_000), EPERM)
            self.assertEqual(client.ask(CMD_WRITE_ZEROES, 0, 4096, flags), EPERM)
            self.assertEqual(client.ask(CMD_TRIM, 0, 4096, flags), EPERM)
        self.assertEqual(client.read(0, 70_000), bytes(70_000))

    def test_every_request_of_a_burst_gets_its_own_answer(self):
        """Answers may come in any order; each carries its request's cookie and that request's data."""
        client = self.transmission()
        waiting = {n: (n * 1000, 512 + 8 * n) for n in range(200)}
        client.send(b"".join(request_bytes(CMD_READ, *place, cookie=cookie) for cookie, place in waiting.items()))
        while waiting:
            error, cookie = client.receive_reply()
            offset, length = waiting.pop(cookie)
            self.assertEqual(error, OK)
            self.assertTrue(client.receive(length) == pattern(offset, length), f"{length} bytes at {offset}")

    def test_requests_that_come_byte_by_byte_are_understood(self):
        client = self.transmission()
        message = request_bytes(CMD_WRITE, MIB, 100, cookie=42) + b"b" * 100
        for at in range(len(message)):
            client.send(message[at : at + 1])
        self.assertEqual(client.receive_reply(), raw_nbd.Reply(OK, 42))
        self.assertEqual(client.read(MIB, 100), b"b" * 100)

    def test_disc_closes_after_what_was_asked_was_answered(self):
        client = self.transmission()
        cookies = {client.send_request(CMD_READ, 4096 * n, 4096) for n in range(16)}
        client.send_request(CMD_DISC)
        for _ in range(16):
            error, cookie = client.receive_reply()
            self.assertEqual(error, OK)
            cookies.remove(cookie)
            client.receive(4096)
        self.assertTrue(client.is_closed())

    def test_disc_with_fields_set_is_still_a_disc(self):
        client = self.transmission()
        client.send_request(CMD_DISC, 1 << 40, 4096, CMD_FLAG_FUA)
        self.assertTrue(client.is_closed())

    def test_random_requests_do_no_harm(self):
        """Well-framed requests of random type, flags, place and length, pipelined and never read."""
        rng = random.Random(10)
        advertised = (CMD_READ, CMD_WRITE, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES)
        for _ in range(30):
            client = self.transmission("frozen")
            for _ in range(50):
                command = rng.choice((*advertised, raw_nbd.CMD_BLOCK_STATUS, rng.randrange(1 << 16)))
                length = rng.choice((0, 1, 511, 4096))  # all answers together fit a socket's buffer
                payload = rng.randbytes(length) if command == CMD_WRITE else b""
                offset = rng.choice((0, 1, MIB - 4096, MIB, rng.randrange(1 << 64)))
                flags = rng.choice((0, 0, CMD_FLAG_FUA, rng.randrange(1 << 16)))
                client.send_request(command, offset, length, flags, payload)
            client.hang_up()

    def test_the_pattern_is_untouched_by_what_is_refused(self):
        client = self.transmission("frozen")
        client.ask(CMD_WRITE, 0, 4 * KIB, payload=b"x" * 4 * KIB)
        self.assertTrue(read_file_range(self.path("disk.img"), 0, WRITTEN) == pattern(0, WRITTEN))


if __name__ == "__main__":
    client_case.main()
