"""Keys asked of the process that has them."""

import pickle
import stat
from pathlib import Path

import pytest

from batch.errors import SpecError
from batch.handing_keys import AskedKeys, KeyServer

KEY = "sk-äß-" + "x" * 9000


def test_a_key_is_told_by_name_and_what_travels_holds_none() -> None:
    """However long it is; a name that is not set has none, nor does one that is empty."""
    server = KeyServer({"THE_KEY": KEY, "EMPTY": ""}.get)
    try:
        travelled = pickle.dumps(server.keys)
        assert KEY.encode() not in travelled
        asked = pickle.loads(travelled)
        assert (asked("THE_KEY"), asked("NO_KEY"), asked("EMPTY")) == (KEY, None, None)
    finally:
        server.close()


def test_only_its_own_user_can_ask_and_nobody_after_it_was_closed() -> None:
    """The socket is in a folder that others cannot enter, and is gone with the server; then a line says so."""
    server = KeyServer(lambda name: None)
    socket = Path(server.keys.path)
    assert socket.is_socket()
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    server.close()
    assert not socket.parent.exists()
    with pytest.raises(SpecError, match="the key THE_KEY cannot be asked for: No such file"):
        AskedKeys(str(socket))("THE_KEY")
