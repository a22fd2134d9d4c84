# SPDX-License-Identifier: Apache-2.0
"""Clients that ask for more than memory holds and never read, or that send half a write, stop nobody else.

Four clients that each ask for 64 x 32 MiB and never read bring established servers to 2 GB; here the limit holds
(KF-20, KF-55) and others are served all the while.
"""

import random
import time

import client_case
from client_case import ClientCase
from images import GIB, KIB, MIB, make_sparse_image, pattern
from larder_server import SLOWNESS
from raw_nbd import CMD_READ, CMD_WRITE, RawClient, request_bytes

BLOCK = 4 * KIB
LATENCY_SECONDS_MAX = 1.0 * SLOWNESS


class GreedyClientsMemoryTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.disk = make_sparse_image(self.path("disk.img"), GIB)
        with open(self.disk, "r+b") as file:
            for offset in range(0, GIB, MIB):
                file.seek(offset)
                file.write(pattern(offset, BLOCK))

    def raw_clients(self, server, count):
        clients = [RawClient(server) for _ in range(count)]
        for client in clients:
            self.addCleanup(client.hang_up)
            client.go()
        return clients

    def read_blocks_in_time(self, server, seconds):
        """Another client reads random blocks, one after the other: each right, each within a second."""
        reader = self.connect(server.uri())
        rng = random.Random(11)
        slowest_seconds, count = 0.0, 0
        end = time.monotonic() + seconds
        while (begin := time.monotonic()) < end:
            offset = rng.randrange(GIB // MIB) * MIB
            self.assertTrue(reader.pread(BLOCK, offset) == pattern(offset, BLOCK), f"block at {offset}")
            slowest_seconds = max(slowest_seconds, time.monotonic() - begin)
            count += 1
        reader.shutdown()
        print(f"{count} reads, the slowest in {slowest_seconds * 1000:.1f} ms; {server.memory_peaks()}")
        self.assertLess(slowest_seconds, LATENCY_SECONDS_MAX)

    def test_clients_that_never_read_their_answers(self):
        with self.server(self.disk, memory="16M") as server:
            greedy = self.raw_clients(server, 4)
            for client in greedy:
                client.send(b"".join(request_bytes(CMD_READ, n % 32 * 32 * MIB, 32 * MIB, cookie=n) for n in range(64)))
            server.wait_for_status(lambda status: status["in_flight"] >= 4, "a read of each greedy client in flight")
            self.read_blocks_in_time(server, 10)
            for client in greedy:
                client.hang_up()
            server.wait_for_baseline()
            self.read_blocks_in_time(server, 0.5)

    def test_writes_that_were_sent_by_half(self):
        with self.server(self.disk, memory="16M") as server:
            silent = self.raw_clients(server, 64)
            for n, client in enumerate(silent):
                # Off the blocks that are read: 64 KiB behind each of them.
                offset = n * MIB + 64 * KIB
                client.send(request_bytes(CMD_WRITE, offset, 512 * KIB) + b"h" * (10_000 + 100 * n))
            self.read_blocks_in_time(server, 3)
            server.wait_for_status(lambda status: status["connections"] == 64, "the silent clients only")
            for client in silent:
                client.hang_up()
            server.wait_for_baseline()

    def test_greedy_clients_that_read_at_last_get_what_they_asked_for(self):
        with self.server(self.disk, memory="16M") as server:
            (client,) = self.raw_clients(server, 1)
            offsets = {client.send_request(CMD_READ, n * 32 * MIB, 32 * MIB): n * 32 * MIB for n in range(8)}
            self.read_blocks_in_time(server, 1)
            for _ in range(8):
                error, cookie = client.receive_reply()
                self.assertEqual(error, 0)
                offset, data = offsets.pop(cookie), client.receive(32 * MIB)
                for at in range(0, 32 * MIB, MIB):
                    self.assertTrue(data[at : at + BLOCK] == pattern(offset + at, BLOCK), f"block at {offset + at}")
            client.hang_up()


if __name__ == "__main__":
    client_case.main()
