# SPDX-License-Identifier: Apache-2.0
"""nbdcopy moves an image in and out through a server whose memory is far smaller, and not a byte changes."""

import os

import client_case
from client_case import ClientCase, scaled
from images import MIB, first_difference, make_image, make_sparse_image


class NbdcopyCompareTest(ClientCase):
    def copy_in_and_out(self, size, memory):
        original = make_image(self.path("original.img"), size)
        disk = make_sparse_image(self.path("disk.img"), size)
        copy = self.path("copy.img")
        with self.server(disk, memory=memory) as server:
            self.run_client("nbdcopy", "--connections=4", "--flush", original, server.uri())
            self.assertIsNone(first_difference(original, disk), "the image, after nbdcopy --flush came back")
            self.run_client("nbdcopy", "--connections=4", server.uri(), copy)
            self.assertIsNone(first_difference(original, copy), "the copy that was read through the server")
            print(f"{size // MIB} MiB in and out with --memory {memory}: {server.memory_peaks()}")
        self.assertIsNone(first_difference(original, disk), "the image, after the server stopped")

    def test_256_mib_through_16_mib(self):
        self.copy_in_and_out(scaled(256 * MIB), "16M")

    def test_64_mib_through_1_mib(self):
        self.copy_in_and_out(scaled(64 * MIB), "1M")

    def test_copy_without_flush_is_complete_after_a_clean_stop(self):
        original = make_image(self.path("original.img"), 24 * MIB, seed=2)
        disk = make_image(self.path("disk.img"), 24 * MIB, seed=3)
        with self.server(disk, memory="16M") as server:
            self.run_client("nbdcopy", original, server.uri())
        self.assertIsNone(first_difference(original, disk))

    def test_one_server_feeds_another(self):
        original = make_image(self.path("original.img"), scaled(64 * MIB), seed=4)
        disk = make_sparse_image(self.path("disk.img"), os.path.getsize(original))
        source = self.start_server(original, memory="1M", read_only=True)
        with self.server(disk, memory="2M", socket=self.path("destination.sock")) as destination:
            self.run_client("nbdcopy", "--connections=2", "--requests=16", source.uri(), destination.uri())
        self.assertIsNone(first_difference(original, disk))


if __name__ == "__main__":
    client_case.main()
