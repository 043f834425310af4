"""Where a server may listen, and what is said where it may not."""

from __future__ import annotations

import os
import socket

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.serve import lifetime
from alignpro_lite.serve.listening import Address, bound


def test_what_fails_while_a_server_runs_is_not_blamed_on_its_address():
    """A full disk was "The server cannot have 127.0.0.1, port 0. Choose another --port"."""
    with pytest.raises(OSError, match="No space left"), bound(Address()):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("host", ["a..b", "no such host", "203.0.113.7"])
def test_an_address_that_is_none_of_this_machine_is_refused(host):
    """`--host a..b` ended in a traceback."""
    with (
        pytest.raises(InputError, match=rf"cannot have {host}, port 0 \((?!None|\)).+\)"),
        bound(Address(host)),
    ):
        pass


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_paths_where_no_socket_can_be_say_why(tmp_path):
    """They said "(None)", or ended in a traceback of the system's error."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "socket", tmp_path / ("x" * 200), tmp_path / "file"):
        with pytest.raises(InputError) as refused, bound(Address(path=path)):
            pass
        assert "None" not in refused.value.problem
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "other"))
        with pytest.raises(InputError), bound(Address(path=tmp_path / "other")):
            pass


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_a_socket_goes_with_its_server_however_that_ends(tmp_path):
    with pytest.raises(RuntimeError), bound(Address(path=tmp_path / "socket")):
        raise RuntimeError
    assert not (tmp_path / "socket").exists()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="for Linux")
def test_a_process_is_followed_where_the_kernel_has_no_pidfd(monkeypatch):
    """In such a container, `--parent-pid` ended the server as soon as it had started."""

    def refused(pid):
        raise OSError(38, "Function not implemented")

    there = iter([True, True, False])
    monkeypatch.setattr(os, "pidfd_open", refused)
    monkeypatch.setattr(lifetime, "_POLL_SECONDS", 0)
    monkeypatch.setattr(lifetime, "_is_there", lambda pid: next(there))
    lifetime.wait_for_process(1)
    assert next(there, None) is None
