# SPDX-License-Identifier: Apache-2.0
"""nbdinfo sees every export, on every transport, with its size and what can be done with it."""

import json
import socket
import unittest

import client_case
from client_case import ClientCase
from images import MIB, make_sparse_image


def has_ipv6_loopback():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


class InfoTest(ClientCase):
    def setUp(self):
        super().setUp()
        self.system = make_sparse_image(self.path("system.img"), 48 * MIB)
        self.data = make_sparse_image(self.path("data.img"), 3 * MIB + 512)

    def info(self, uri):
        exports = json.loads(self.run_client("nbdinfo", "--json", uri))["exports"]
        self.assertEqual(len(exports), 1)
        return exports[0]

    def test_size_and_abilities_of_a_writable_export(self):
        server = self.start_server(self.system)
        info = self.info(server.uri("system.img"))
        self.assertEqual(info["export-size"], 48 * MIB)
        self.assertFalse(info["is_read_only"])
        for ability in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"):
            self.assertTrue(info[ability], ability)
        self.assertEqual(info["block_size_minimum"], 1)
        self.assertEqual(info["block_size_preferred"], 4096)
        self.assertEqual(info["block_size_maximum"], 32 * MIB)
        self.assertEqual(self.run_client("nbdinfo", "--size", server.uri("system.img")).strip(), str(48 * MIB))
        self.run_client("nbdinfo", "--can", "write", server.uri("system.img"))
        self.run_client("nbdinfo", "--is", "read-only", server.uri("system.img"), succeeds=False)

    def test_first_export_is_the_default_one(self):
        server = self.start_server(exports=[f"b={self.data}", f"a={self.system}"])
        self.assertEqual(self.info(server.uri())["export-size"], 3 * MIB + 512)

    def test_read_only_is_told_for_one_export_and_for_all(self):
        with self.server(exports=[f"system={self.system}", f"data={self.data},ro"]) as server:
            self.assertFalse(self.info(server.uri("system"))["is_read_only"])
            self.assertTrue(self.info(server.uri("data"))["is_read_only"])
        with self.server(self.system, self.data, read_only=True) as server:
            self.assertTrue(self.info(server.uri("system.img"))["is_read_only"])
            self.assertTrue(self.info(server.uri("data.img"))["is_read_only"])

    def test_list_names_all_exports_in_order(self):
        server = self.start_server(self.system, exports=[f"data with space={self.data}", f"é={self.data},ro"])
        exports = json.loads(self.run_client("nbdinfo", "--list", "--json", server.uri()))["exports"]
        self.assertEqual([export["export-name"] for export in exports], ["system.img", "data with space", "é"])
        self.assertEqual([export["export-size"] for export in exports], [48 * MIB, 3 * MIB + 512, 3 * MIB + 512])

    def test_every_announced_uri_works_as_printed(self):
        server = self.start_server(self.system, self.data, listen=["127.0.0.1:0"])
        server.uri(transport="tcp4")
        for uri in server.ready_uris():
            self.assertIn(self.info(uri)["export-size"], (48 * MIB, 3 * MIB + 512), uri)

    def test_tcp_over_ipv4(self):
        server = self.start_server(self.system, listen=["127.0.0.1:0"])
        self.assertEqual(self.info(server.uri("system.img", "tcp4"))["export-size"], 48 * MIB)

    @unittest.skipUnless(has_ipv6_loopback(), "this machine has no IPv6 loopback address")
    def test_tcp_over_ipv6_beside_ipv4_without_a_unix_socket(self):
        server = self.start_server(self.system, socket=None, listen=["127.0.0.1:0", "[::1]:0"])
        self.assertEqual(self.info(server.uri("system.img", "tcp6"))["export-size"], 48 * MIB)
        self.assertEqual(self.info(server.uri("system.img", "tcp4"))["export-size"], 48 * MIB)


if __name__ == "__main__":
    client_case.main()
