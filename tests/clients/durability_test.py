# SPDX-License-Identifier: Apache-2.0
"""What was acknowledged with FUA or FLUSH outlives a SIGKILL; what was acknowledged at all outlives a clean stop."""

import os
import random
import signal
import stat

import nbd

import client_case
from client_case import ClientCase
from images import KIB, MIB, make_sparse_image, read_file_range
from larder_server import SLOWNESS
from raw_nbd import CMD_READ, RawClient

DISK_SIZE = 64 * MIB
BLOCK = 64 * KIB


class DurabilityTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.disk = make_sparse_image(self.path("disk.img"), DISK_SIZE)
        self.rng = random.Random(8)
        self.written = {}  # offset -> bytes that must be on the disk

    def pick_writes(self, count):
        """Random data for `count` places that do not overlap, most of them on no page's edge."""
        slots = self.rng.sample(range(DISK_SIZE // BLOCK), count)
        return {
            slot * BLOCK + self.rng.randrange(BLOCK // 2): self.rng.randbytes(self.rng.randrange(1, BLOCK // 2))
            for slot in slots
        }

    def check_file(self):
        for offset, data in self.written.items():
            self.assertTrue(
                read_file_range(self.disk, offset, len(data)) == data,
                f"{len(data)} acknowledged bytes at {offset} are not in the file",
            )

    def check_served(self, server):
        reader = self.connect(server.uri())
        for offset, data in self.written.items():
            self.assertTrue(reader.pread(len(data), offset) == data, f"{len(data)} bytes at {offset}, read back")
        reader.shutdown()

    def test_fua_writes_outlive_a_kill_and_are_served_after_it(self):
        with self.server(self.disk) as server:
            handle = self.connect(server.uri())
            for offset, data in self.pick_writes(100).items():
                handle.pwrite(data, offset, nbd.CMD_FLAG_FUA)
                self.written[offset] = data
            server.kill()
            self.check_file()
        # The kill left the socket's file behind: a new server takes it over.
        with self.server(self.disk, memory="1M") as server:
            self.check_served(server)

    def test_a_fua_zero_outlives_a_kill(self):
        with open(self.disk, "r+b") as file:
            file.write(b"x" * (4 * BLOCK))
        with self.server(self.disk) as server:
            handle = self.connect(server.uri())
            handle.pwrite(b"y" * BLOCK, BLOCK)  # dirty when the zeroes come
            handle.zero(2 * BLOCK, BLOCK // 2, nbd.CMD_FLAG_FUA)
            server.kill()
        self.assertTrue(read_file_range(self.disk, BLOCK // 2, 2 * BLOCK) == bytes(2 * BLOCK))
        self.assertTrue(read_file_range(self.disk, 0, BLOCK // 2) == b"x" * (BLOCK // 2))

    def test_flushed_writes_outlive_a_kill(self):
        with self.server(self.disk) as server:
            handle = self.connect(server.uri())
            for offset, data in self.pick_writes(100).items():
                handle.pwrite(data, offset)
                self.written[offset] = data
            handle.flush()
            server.kill()
        self.check_file()

    def test_a_flush_covers_what_other_connections_wrote(self):
        with self.server(self.disk) as server:
            writers = [self.connect(server.uri()) for _ in range(3)]
            for n, (offset, data) in enumerate(self.pick_writes(60).items()):
                writers[n % 3].pwrite(data, offset)
                self.written[offset] = data
            self.connect(server.uri()).flush()
            server.kill()
        self.check_file()

    def stop_with_writes_in_flight(self, stop_signal):
        """Sends many writes, asks the server to stop at the first answer, and collects what it still acknowledges."""
        with self.server(self.disk, memory="1M") as server:
            handle = self.connect(server.uri())
            in_flight = len(writes := self.pick_writes(500))

            def completed(error, offset, data):
                nonlocal in_flight
                in_flight -= 1
                if not error.value:
                    self.written[offset] = data
                return 1

            for offset, data in writes.items():
                buffer = nbd.Buffer.from_bytearray(bytearray(data))
                handle.aio_pwrite(buffer, offset, lambda error, at=offset, data=data: completed(error, at, data))
            while not self.written:
                self.assertNotEqual(handle.poll(10_000 * SLOWNESS), 0, "no write was answered")
            server.terminate(stop_signal)
            while in_flight and not (handle.aio_is_dead() or handle.aio_is_closed()):
                try:
                    self.assertNotEqual(handle.poll(10_000 * SLOWNESS), 0, "neither answers nor a closed connection")
                except nbd.Error:
                    break
            server.wait_stopped()
        print(f"{len(self.written)} of {len(writes)} writes acknowledged around {stop_signal.name}")
        self.check_file()

    def test_sigterm_keeps_every_acknowledged_write(self):
        self.stop_with_writes_in_flight(signal.SIGTERM)

    def test_sigint_keeps_every_acknowledged_write(self):
        self.stop_with_writes_in_flight(signal.SIGINT)

    def test_an_idle_client_does_not_hold_up_the_stop(self):
        with self.server(self.disk) as server, RawClient(server) as in_handshake:
            handle = self.connect(server.uri())
            handle.pwrite(b"z" * 1000, 777)
            self.written[777] = b"z" * 1000
            in_handshake.receive_greeting()
            server.terminate()
            server.wait_stopped(5)
        self.check_file()

    def test_a_client_that_never_reads_does_not_hold_up_the_stop(self):
        with self.server(self.disk) as server, RawClient(server) as deaf:
            deaf.go()
            for _ in range(16):
                deaf.send_request(CMD_READ, 0, 32 * MIB)
            server.wait_for_status(lambda status: status["in_flight"] > 0, "the reads are in flight")
            server.terminate()
            server.wait_stopped()

    def test_the_socket_is_there_while_the_server_runs_and_gone_after(self):
        with self.server(self.disk) as server:
            self.assertTrue(stat.S_ISSOCK(os.stat(server.socket_path()).st_mode))
        self.assertEqual(os.listdir(self.directory), ["disk.img"])


if __name__ == "__main__":
    client_case.main()
