# SPDX-License-Identifier: Apache-2.0
"""An idle connection is charged at most 1 KiB, negotiated or not, and a thousand of each leave the server serving."""

import resource
import unittest

import client_case
from client_case import ClientCase
from images import KIB, MIB, make_sparse_image, pattern
from raw_nbd import RawClient

COUNT = 1000
CHARGED_PER_CONNECTION_MAX = KIB


class IdleConnectionsMemoryTest(ClientCase):
    def setUp(self):
        super().setUp()
        # The server inherits the limit: descriptors for both kinds of clients, and some for itself.
        wanted = 2 * COUNT + 200
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise unittest.SkipTest(f"RLIMIT_NOFILE cannot be raised to {wanted}: the hard limit is {hard}")
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        self.disk = make_sparse_image(self.path("disk.img"), 16 * MIB)
        with open(self.disk, "r+b") as file:
            file.write(pattern(0, MIB))

    def open_clients(self, server, count, negotiated):
        clients = []
        for _ in range(count):
            client = RawClient(server)
            self.addCleanup(client.hang_up)
            if negotiated:
                client.go()
            clients.append(client)
        return clients

    def charged_beside_pages(self, server, connections):
        status = server.wait_for_status(
            lambda status: status["connections"] == connections and status["in_flight"] == 0,
            f"{connections} connections, all idle",
        )
        return status["memory_used"] - status["pages"]

    def check_serves(self, server):
        reader = self.connect(server.uri())
        for offset in range(0, MIB, 64 * KIB):
            self.assertTrue(reader.pread(4 * KIB, offset) == pattern(offset, 4 * KIB))
        reader.shutdown()

    def hold_idle(self, server, kinds):
        """Opens COUNT connections of each kind; what they add is within the promise, and goes when they go."""
        for client in self.open_clients(server, 8, negotiated=True):  # warms the caches
            client.hang_up()
        self.check_serves(server)
        before = self.charged_beside_pages(server, 0)
        clients = []
        for negotiated in kinds:
            clients += self.open_clients(server, COUNT, negotiated)
        added = self.charged_beside_pages(server, len(clients)) - before
        print(f"{len(clients)} idle connections: {added / len(clients):.0f} bytes each; {server.memory_peaks()}")
        self.assertLessEqual(added, CHARGED_PER_CONNECTION_MAX * len(clients))
        self.check_serves(server)
        # One of the idle ones wakes up, in the middle of its idle neighbours.
        if kinds[0]:
            self.assertTrue(clients[COUNT // 2].read(4096, 512) == pattern(4096, 512))
        for client in clients:
            client.hang_up()
        self.check_serves(server)
        server.wait_for_baseline()

    def test_negotiated_connections(self):
        with self.server(self.disk) as server:
            self.hold_idle(server, [True])

    def test_connections_that_never_speak(self):
        with self.server(self.disk) as server:
            self.hold_idle(server, [False])

    def test_both_kinds_at_once_and_again(self):
        with self.server(self.disk) as server:
            self.hold_idle(server, [True, False])
            self.hold_idle(server, [True, False])


if __name__ == "__main__":
    client_case.main()
