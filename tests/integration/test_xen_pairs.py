#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which domains may talk: the folders that the manager makes in xenstore for
each pair, who can read them, and what becomes of them when domains come, go and
change. The real gateway on the real xenstored, over a pretended Xen."""

import os
import signal

from harness import run, wait_until
from usbip_client import ST_NODEV, Refused
from xen_gateway_bed import BY_EVENT_S
from xenstored import FakeXen

XEN = "listen = { }\nxen = true\n"
ZERO = 'zero "zero0" {{ domains = {{ {} }} }}\n'
OPEN = "0123456789abcdef open"
CLOSED = "0123456789abcdef closed 0 the gateway stopped"


def folder(owner, peer):
    return f"/local/domain/{owner}/data/xusbip/{peer}"


def dom0_gateway(bench, xen, *domains):
    """One in dom0, with a device for these."""
    names = ", ".join(f'"{domain}"' for domain in domains)
    return bench.gateway(XEN + ZERO.format(names), env=xen.env(0))


def manager(bench, xen, config):
    return bench.gateway(config, ["--manager"], xen.env(0))


def is_pair(xen, gateway, guest):
    return (xen.exists(folder(gateway, guest) + "/peer")
            and xen.exists(folder(guest, gateway) + "/name"))


def wait_pair(xen, gateway, guest):
    wait_until(lambda: is_pair(xen, gateway, guest),
               f"domains {gateway} and {guest} may talk")


def wait_no_pair(xen, gateway, guest):
    wait_until(lambda: not xen.exists(folder(gateway, guest))
               and not xen.exists(folder(guest, gateway)),
               f"domains {gateway} and {guest} may not talk")


def wait_read(xen, path, value):
    wait_until(lambda: xen.read(path) == value, f"{path} is {value!r}")


def is_refused(call, *args, **options):
    try:
        call(*args, **options)
    except PermissionError:
        return True
    except OSError as error:
        # What a domain may not know of does not exist for it.
        return isinstance(error, FileNotFoundError)
    return False


def xusbip_nodes(xen):
    return {path: value for path, value in xen.tree("/local/domain").items()
            if "/xusbip/" in path}


# Made and removed.


def test_a_guest_that_a_rule_names_gets_both_folders(bench):
    with FakeXen() as xen:
        uuid = xen.add_domain(5, "u1")
        xen.add_domain(6, "u2")
        dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        assert xusbip_nodes(xen) == {
            folder(0, 5): "", folder(0, 5) + "/peer": f"{uuid} u1",
            folder(0, 5) + "/devices": xen.read(folder(0, 5) + "/devices"),
            folder(5, 0): "", folder(5, 0) + "/name": "Domain-0",
        }
        store = xen.store(0)
        assert store.perms(folder(0, 5)) == ["n0", "r5"]
        assert store.perms(folder(5, 0)) == ["n5", "r0"]
        assert store.perms(folder(0, 5) + "/peer") == ["n0", "r0"]
        assert store.perms(folder(5, 0) + "/name") == ["n0", "r5"]


def test_guests_come_at_any_time_and_by_uuid_too(bench):
    with FakeXen() as xen:
        uuid = "5a6f1c1e-0000-4000-8000-00000000abcd"
        dom0_gateway(bench, xen, "u1", uuid.upper())
        xen.add_domain(5, "u1")
        xen.add_domain(6, "whatever", uuid)
        xen.add_domain(7, "u2")
        wait_pair(xen, 0, 5)
        wait_pair(xen, 0, 6)
        assert not xen.exists(folder(0, 7))
        assert not xen.exists(folder(7, 0))


def test_the_two_of_a_pair_write_their_own_and_a_third_reads_nothing(bench):
    with FakeXen() as xen:
        for domid, name in ((5, "u1"), (6, "u2"), (9, "usbvm")):
            xen.add_domain(domid, name)
        manager(bench, xen, 'gateway "usbvm" { domains = { "u1" } }')
        wait_pair(xen, 9, 5)
        xen.write(folder(9, 5) + "/0", OPEN, as_domid=9)
        xen.write(folder(5, 9) + "/0", OPEN, as_domid=5)
        assert xen.read(folder(9, 5) + "/0", as_domid=5) == OPEN
        assert xen.read(folder(5, 9) + "/0", as_domid=9) == OPEN
        assert xen.ls(folder(5, 9), as_domid=9)
        assert xen.read(folder(5, 9) + "/name", as_domid=5) == "usbvm"
        assert xen.read(folder(9, 5) + "/peer", as_domid=9).endswith(" u1")
        for path, writer in ((folder(9, 5), 5), (folder(5, 9), 9)):
            for name in ("/0", "/new", ""):
                assert is_refused(xen.write, path + name, "x",
                                  as_domid=writer), path + name
            assert is_refused(xen.rm, path + "/0", as_domid=writer)
        assert is_refused(xen.write, folder(9, 5) + "/peer", "x", as_domid=9)
        assert is_refused(xen.write, folder(5, 9) + "/name", "x", as_domid=5)
        for path in [*xusbip_nodes(xen), "/local/domain/9/data/xusbip",
                     "/local/domain/5/data/xusbip"]:
            for call in (xen.read, xen.ls, xen.rm):
                assert is_refused(call, path, as_domid=6), path
            assert is_refused(xen.write, path, "x", as_domid=6), path


def test_a_dead_guests_folder_goes_and_nothing_comes_back(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        xen.write(folder(5, 0) + "/0", "garbage", as_domid=5)
        xen.destroy(5)
        wait_until(lambda: not xusbip_nodes(xen), "nothing is left",
                   BY_EVENT_S)
        wait_until(lambda: not xen.exists("/local/domain/0/data/xusbip"),
                   "nor is the folder for all", BY_EVENT_S)
        xen.add_domain(6, "u1")
        wait_pair(xen, 0, 6)
        assert not xen.exists("/local/domain/5")


def test_a_gateways_folder_stays_until_its_guest_is_dead(bench):
    with FakeXen() as xen:
        for domid in (5, 6, 9):
            xen.add_domain(domid, f"u{domid}")
        manager(bench, xen, 'gateway "u9" { domains = { "u5", "u6" } }')
        wait_pair(xen, 9, 5)
        wait_pair(xen, 9, 6)
        peer = xen.read(folder(9, 5) + "/peer")
        xen.write(folder(9, 5) + "/7", OPEN, as_domid=9)
        xen.remove_nodes(5)
        # The manager has looked when it makes this one.
        xen.rm(folder(9, 6) + "/peer")
        xen.write("/local/domain/6/name", "u6")
        wait_pair(xen, 9, 6)
        assert xen.read(folder(9, 5) + "/peer") == peer
        xen.destroy(5)
        wait_until(lambda: not xen.exists(folder(9, 5)), "it is gone",
                   BY_EVENT_S)


def test_a_guests_folder_goes_with_the_nodes_of_its_gateway(bench):
    with FakeXen() as xen:
        for domid in (5, 9):
            xen.add_domain(domid, f"u{domid}")
        manager(bench, xen, 'gateway "u9" { domains = { "u5" } }')
        wait_pair(xen, 9, 5)
        xen.remove_nodes(9)
        wait_until(lambda: not xen.exists(folder(5, 9)), "it is gone",
                   BY_EVENT_S)


def test_a_domain_whose_nodes_nobody_removed_is_dead_all_the_same(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        xen.order("destroy", 5)
        wait_until(lambda: not xen.exists(folder(0, 5)), "its folder is gone")
        assert xen.exists("/local/domain/5")


def test_what_no_event_tells_is_found_by_looking(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        xen.rm(folder(0, 5) + "/peer")
        xen.write(folder(0, 99) + "/peer", "left by somebody")
        xen.write(folder(5, 99) + "/name", "left by somebody", as_domid=5)
        wait_pair(xen, 0, 5)
        wait_no_pair(xen, 0, 99)
        wait_until(lambda: not xen.exists(folder(5, 99)), "it is removed")


def test_a_number_that_is_used_again_gets_folders_of_its_own(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        gateway = dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        xen.freeze(gateway)
        xen.write(folder(0, 5) + "/7", OPEN)
        xen.destroy(5)
        uuid = xen.add_domain(5, "u1")
        gateway.signal(signal.SIGCONT)
        wait_until(lambda: is_pair(xen, 0, 5) and xen.read(
            folder(0, 5) + "/peer") == f"{uuid} u1", "it is the new one's")
        assert not xen.exists(folder(0, 5) + "/7")


def test_a_domain_that_is_renamed_is_judged_anew(bench):
    with FakeXen() as xen:
        uuid = xen.add_domain(5, "other")
        dom0_gateway(bench, xen, "u1", "u2")
        xen.write("/local/domain/5/name", "u1")
        wait_pair(xen, 0, 5)
        xen.write(folder(5, 0) + "/mine", "", as_domid=5)
        xen.write("/local/domain/5/name", "u2")
        wait_read(xen, folder(0, 5) + "/peer", f"{uuid} u2")
        assert xen.exists(folder(5, 0) + "/mine")
        xen.write("/local/domain/5/name", "other")
        wait_no_pair(xen, 0, 5)


def test_domains_that_cannot_be_told_apart_get_nothing(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1", "no-uuid")
        xen.add_domain(6, "x" * 64)
        xen.add_domain(7, "a\nb")
        gateway = dom0_gateway(bench, xen, "u1", "x" * 63)
        xen.add_domain(8, "u1")
        wait_pair(xen, 0, 8)
        for domid in (5, 6, 7):
            assert not xen.exists(folder(0, domid))
        gateway.write_config(XEN + ZERO.format('"*"'))
        gateway.signal(signal.SIGHUP)
        # All of them: also those whose names no rule could give.
        for domid in (6, 7, 8):
            wait_pair(xen, 0, domid)
        assert not xen.exists(folder(0, 5))
        assert xen.read(folder(0, 7) + "/peer") == f"{xen.uuids[7]} "


def test_a_guest_that_fills_its_folder_fills_no_log_and_holds_nobody_up(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        gateway = dom0_gateway(bench, xen, "*")
        wait_pair(xen, 0, 5)
        for number in range(100, 500):
            xen.write(folder(5, number), "mine", as_domid=5)
        xen.write(folder(5, 0) + "/name-of-mine", "x" * 2000, as_domid=5)
        xen.add_domain(6, "u2")
        wait_pair(xen, 0, 6)
        wait_until(lambda: xen.ls("/local/domain/5/data/xusbip") == ["0"],
                   "what is no pair's is removed")
        assert gateway.log().count("\n") < 20


def test_fifty_domains_come_and_go_at_once(bench):
    with FakeXen() as xen:
        xen.add_domain(1, "first")
        dom0_gateway(bench, xen, "*")
        wait_pair(xen, 0, 1)
        domids = range(10, 60)
        for domid in domids:
            xen.add_domain(domid)
        for domid in domids:
            wait_pair(xen, 0, domid)
        for domid in domids:
            xen.destroy(domid)
        wait_until(lambda: xen.ls("/local/domain/0/data/xusbip") == ["1"],
                   "only the first one's folder is left")
        assert sorted(xen.ls("/local/domain")) == ["0", "1"]


# Gateways in other domains.


def test_a_driver_domain_and_its_guests_are_told_of_each_other(bench):
    with FakeXen() as xen:
        for domid, name in ((5, "u1"), (6, "u2"), (9, "usbvm")):
            xen.add_domain(domid, name)
        manager(bench, xen, ZERO.format('"u1"')
                + 'gateway "usbvm" { domains = { "*" } }')
        wait_pair(xen, 9, 5)
        wait_pair(xen, 9, 6)
        assert xen.store(0).perms(folder(9, 5)) == ["n9", "r5"]
        assert xen.store(0).perms(folder(9, 5) + "/peer") == ["n0", "r9"]
        assert xen.store(0).perms(folder(5, 9)) == ["n5", "r9"]
        # It exports nothing itself, and dom0 is nobody's guest unasked.
        assert not xen.exists(folder(0, 5))
        assert not xen.exists(folder(9, 0))
        assert not xen.exists(folder(9, 9))
        xen.destroy(5)
        wait_until(lambda: not xen.exists(folder(9, 5)), "it is removed")
        xen.destroy(9)
        wait_until(lambda: not xusbip_nodes(xen), "nothing is left")
        # As dom0's guests have it: the domain comes back with its number.
        xen.add_domain(9, "usbvm")
        wait_pair(xen, 9, 6)


def test_a_gateway_in_a_driver_domain_serves_whom_dom0_names(bench):
    with FakeXen() as xen:
        for domid, name in ((5, "u1"), (6, "u2"), (9, "usbvm")):
            xen.add_domain(domid, name)
        gateway = bench.gateway(XEN + ZERO.format('"*"'), env=xen.env(9))
        manager(bench, xen, 'gateway "usbvm" { domains = { "u1" } }')
        gateway.wait_log(r"domain 5 \(u1\): served")
        wait_until(lambda: xen.exists(folder(9, 5) + "/devices"),
                   "the guest is told of its devices")
        assert not xen.exists(folder(9, 6))
        xen.destroy(5)
        wait_until(lambda: not xen.exists(folder(9, 5)), "it is removed")
        assert gateway.stop() == 0


def test_a_driver_domain_that_came_back_finds_nothing_of_the_one_before(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        xen.add_domain(9, "usbvm")
        gateway = manager(bench, xen,
                          'gateway "usbvm" { domains = { "u1" } }')
        wait_pair(xen, 9, 5)
        xen.freeze(gateway)
        xen.write(folder(5, 9) + "/0", "of the old one", as_domid=5)
        xen.destroy(9)
        xen.add_domain(9, "usbvm")
        gateway.signal(signal.SIGCONT)
        wait_pair(xen, 9, 5)
        assert not xen.exists(folder(5, 9) + "/0")


def test_dom0_is_a_guest_only_by_its_name(bench):
    with FakeXen() as xen:
        xen.add_domain(9, "usbvm")
        manager(bench, xen, 'gateway "usbvm" { domains = { "Domain-0" } }')
        wait_pair(xen, 9, 0)
        assert xen.store(0).perms(folder(0, 9)) == ["n0", "r9"]
        assert xen.read(folder(9, 0) + "/peer").endswith(" Domain-0")


def test_a_manager_in_another_domain_is_refused(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        gateway = bench.prepare("", ["--manager"], xen.env(5))
        gateway.spawn()
        assert gateway.wait_exit() == 1
        assert "is for dom0, and this is domain 5" in gateway.log()


# The manager's own life.


def test_a_reload_makes_and_removes_what_the_rules_changed(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        xen.add_domain(6, "u2")
        gateway = dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        gateway.write_config(XEN + ZERO.format('"u2"'))
        gateway.signal(signal.SIGHUP)
        wait_pair(xen, 0, 6)
        wait_no_pair(xen, 0, 5)


def test_a_manager_that_is_started_anew_puts_everything_right(bench):
    with FakeXen() as xen:
        for domid, name in ((5, "u1"), (6, "u2"), (7, "u3")):
            xen.add_domain(domid, name)
        gateway = dom0_gateway(bench, xen, "*")
        for domid in (5, 6, 7):
            wait_pair(xen, 0, domid)
        gateway.kill()
        before = xusbip_nodes(xen)
        assert folder(0, 5) in before
        xen.write(folder(5, 0) + "/mine", "", as_domid=5)
        xen.destroy(6)
        xen.destroy(7)
        uuid = xen.add_domain(7, "u7")
        xen.add_domain(8, "u8")
        gateway.start()
        wait_pair(xen, 0, 7)
        wait_pair(xen, 0, 8)
        wait_no_pair(xen, 0, 6)
        assert xen.read(folder(0, 7) + "/peer") == f"{uuid} u7"
        # Who was there before and still is has lost nothing.
        assert xen.exists(folder(5, 0) + "/mine")
        assert not xen.exists("/local/domain/6")


def test_a_manager_that_ends_leaves_only_pairs_with_open_channels(bench):
    with FakeXen() as xen:
        for domid, name in ((5, "u1"), (6, "u2"), (7, "u3"), (9, "usbvm")):
            xen.add_domain(domid, name)
        gateway = manager(bench, xen, 'gateway "usbvm" { domains = { "*" } }')
        for domid in (5, 6, 7):
            wait_pair(xen, 9, domid)
        xen.write(folder(9, 5) + "/63", OPEN, as_domid=9)
        xen.write(folder(9, 6) + "/0", CLOSED, as_domid=9)
        assert gateway.stop() == 0
        assert is_pair(xen, 9, 5)
        for domid in (6, 7):
            assert not xen.exists(folder(9, domid))
            assert not xen.exists(folder(domid, 9))


def test_a_gateway_in_dom0_that_ends_leaves_nothing(bench):
    with FakeXen() as xen:
        before = xen.tree("/local/domain")
        xen.add_domain(5, "u1")
        gateway = dom0_gateway(bench, xen, "*")
        wait_pair(xen, 0, 5)
        assert gateway.stop() == 0
        assert not xusbip_nodes(xen)
        xen.destroy(5)
        left = set(xen.tree("/local/domain")) - set(before)
        assert left <= {"/local/domain/0/data", "/local/domain/0/data/xusbip"}


def test_what_is_for_domains_is_nobodys_without_xen(bench):
    gateway = bench.gateway(ZERO.format('"*"') + 'zero "mine" { }')
    assert "exported to nobody without xen = true" in gateway.log()
    with gateway.client() as client:
        assert list(client.devlist()) == ["mine"]
    with gateway.client() as client:
        try:
            client.import_("zero0")
            raise AssertionError("it was not refused")
        except Refused as refused:
            assert refused.status == ST_NODEV


def test_without_xenstored_it_ends_and_says_what_is_missing(bench):
    gateway = bench.prepare(XEN, env={
        **os.environ, "XENSTORED_PATH": bench.dir + "/none"})
    gateway.spawn()
    assert gateway.wait_exit() == 1
    assert "xenstore: this machine has none" in gateway.log()


def test_it_ends_with_xenstored_and_says_so(bench):
    with FakeXen() as xen:
        xen.add_domain(5, "u1")
        gateway = dom0_gateway(bench, xen, "u1")
        wait_pair(xen, 0, 5)
        xen.xenstored.kill()
        assert gateway.wait_exit() == 1
        assert "xenstored has ended" in gateway.log()


if __name__ == "__main__":
    run(globals())
