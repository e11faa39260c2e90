"""The checkpoints of `tests/model/kyutai`, which are put together here."""

from tests.model.kyutai.conftest import make_directory, pieces

__all__ = ["make_directory", "pieces"]
