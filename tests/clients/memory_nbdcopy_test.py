# SPDX-License-Identifier: Apache-2.0
"""While nbdcopy moves a whole disk, what is charged stays within the limit and the process within limit + 12 MiB.

LarderServer checks both from samples and from the kernel's high-water mark (KF-20, KF-55); here is the load, and the
peaks are printed.
"""

import client_case
from client_case import ClientCase, scaled
from images import GIB, MIB, make_image, make_sparse_image


class MemoryNbdcopyTest(ClientCase):
    def read_whole_disk(self, memory):
        size = scaled(GIB)
        disk = make_sparse_image(self.path("disk.img"), size)
        with self.server(disk, memory=memory) as server:
            self.run_client("nbdcopy", "--connections=4", server.uri(), "null:")
            print(f"{size // MIB} MiB out with --memory {memory}: {server.memory_peaks()}")
            # A limit that is never approached proves nothing: a disk many times its size fills the cache.
            self.assertGreater(server.charged_max(), server.status()["memory_limit"] // 2)

    def test_a_whole_disk_out_through_16_mib(self):
        self.read_whole_disk("16M")

    def test_a_whole_disk_out_through_1_mib(self):
        self.read_whole_disk("1M")

    def test_dirty_pages_count_while_a_disk_comes_in(self):
        size = scaled(256 * MIB)
        original = make_image(self.path("original.img"), size)
        disk = make_sparse_image(self.path("disk.img"), size)
        with self.server(disk, memory="1M") as server:
            self.run_client("nbdcopy", "--connections=4", "--flush", original, server.uri())
            print(f"{size // MIB} MiB in with --memory 1M: {server.memory_peaks()}")
            server.wait_for_status(lambda status: status["dirty"] == 0, "no dirty page after nbdcopy --flush")


if __name__ == "__main__":
    client_case.main()
