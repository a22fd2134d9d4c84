# SPDX-License-Identifier: Apache-2.0
"""qemu-img converts in and out through the server, raw and qcow2, and finds the contents identical."""

import client_case
from client_case import ClientCase, scaled
from images import MIB, first_difference, make_image, make_sparse_image


class QemuImgTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.original = make_image(self.path("original.img"), scaled(64 * MIB))
        self.size = scaled(64 * MIB)

    def compare(self, uri, image_format="raw"):
        self.run_client("qemu-img", "compare", "-f", "raw", "-F", image_format, self.original, uri)

    def test_raw_in_and_out(self):
        disk = make_sparse_image(self.path("disk.img"), self.size)
        copy = self.path("copy.img")
        with self.server(disk, memory="1M") as server:
            self.run_client("qemu-img", "convert", "-n", "-m", 8, "-W", "-O", "raw", self.original, server.uri())
            self.compare(server.uri())
            self.run_client("qemu-img", "convert", "-m", 8, "-W", "-f", "raw", "-O", "raw", server.uri(), copy)
        self.assertIsNone(first_difference(self.original, copy))
        self.assertIsNone(first_difference(self.original, disk))

    def test_a_qcow2_file_is_served_as_it_is(self):
        container = self.path("disk.qcow2")
        self.run_client("qemu-img", "convert", "-O", "qcow2", self.original, container)
        server = self.start_server(container, memory="1M")
        self.run_client("qemu-img", "check", "-f", "qcow2", server.uri())
        self.compare(server.uri(), "qcow2")
        copy = self.path("copy.img")
        self.run_client("qemu-img", "convert", "-f", "qcow2", "-O", "raw", server.uri(), copy)
        self.assertIsNone(first_difference(self.original, copy))

    def test_qcow2_is_made_on_a_served_disk(self):
        disk = make_sparse_image(self.path("disk.img"), 2 * self.size)
        with self.server(disk, memory="1M") as server:
            self.run_client("qemu-img", "create", "-f", "qcow2", server.uri(), self.size)
            self.run_client("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", self.original, server.uri())
            self.run_client("qemu-img", "check", "-f", "qcow2", server.uri())
            self.compare(server.uri(), "qcow2")
        self.compare(disk, "qcow2")


if __name__ == "__main__":
    client_case.main()
