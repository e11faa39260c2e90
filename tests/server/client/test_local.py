"""A server of one's own either comes up or says why not, and is gone afterwards."""

from pathlib import Path

import pytest

from server.client.local import ServerStartError, local_server

STARTER = Path(__file__).parents[3] / "configs" / "starter.yaml"


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Its last line is passed on: here, a folder without weights."""
    with (
        pytest.raises(ServerStartError, match=r"the server stopped: .*no-weights"),
        local_server(STARTER, [f"model.dir={tmp_path / 'no-weights'}"]),
    ):
        pass
