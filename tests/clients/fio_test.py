# SPDX-License-Identifier: Apache-2.0
"""fio reads and writes at random through the server, and every block that it reads carries the checksum it wrote."""

import json
import unittest

import client_case
from client_case import ClientCase, scaled
from images import MIB, make_sparse_image

WORKING_SET = scaled(64 * MIB)


class FioTest(ClientCase):
    def setUp(self):
        super().setUp()
        if "nbd" not in self.run_client("fio", "--enghelp").split():
            raise unittest.SkipTest("this fio was built without its nbd engine")
        self.disk = make_sparse_image(self.path("disk.img"), WORKING_SET)

    def fio(self, uri, *options):
        """Runs one job with verification; fio ends with an error at the first block that is wrong."""
        report = self.run_client(
            *("fio", "--name=verified", "--ioengine=nbd", f"--uri={uri}", f"--size={WORKING_SET}", "--iodepth=32"),
            *("--verify=crc32c", "--verify_fatal=1", "--randseed=7", "--output-format=json", *options),
        )
        job = json.loads(report[report.index("{") :])["jobs"][0]
        self.assertEqual(job["error"], 0)
        return job

    def test_random_reads_and_writes_are_verified(self):
        server = self.start_server(self.disk, memory="4M")
        job = self.fio(server.uri(), "--rw=randrw", "--bs=4k")
        self.assertGreater(job["write"]["total_ios"], 0)
        print(f"fio randrw 4k: {job['read']['total_ios']} reads, {job['write']['total_ios']} writes")

    def test_blocks_of_all_sizes_are_verified(self):
        server = self.start_server(self.disk, memory="4M")
        self.fio(server.uri(), "--rw=randrw", "--bsrange=512-256k", "--fsync=64")

    def test_what_was_written_is_verified_after_a_restart(self):
        with self.server(self.disk, memory="4M") as server:
            self.fio(server.uri(), "--rw=randwrite", "--bs=16k", "--do_verify=0", "--end_fsync=1")
        with self.server(self.disk, memory="4M") as server:
            job = self.fio(server.uri(), "--rw=randwrite", "--bs=16k", "--verify_only=1")
            self.assertGreater(job["read"]["total_ios"], 0)


if __name__ == "__main__":
    client_case.main()
