"""The table of known checkpoints is sound, and a name that is not in it leads to one that is."""

import re

import pytest

from model.errors import ConfigError
from model.kyutai.catalogue import catalogue, entry, parse_catalogue
from model.kyutai.config import KyutaiConfig
from model.kyutai.tensors import num_parameters
from tests.fakes.kyutai import PERSONAPLEX


def test_every_checkpoint_has_what_serving_takes() -> None:
    """A language model, a codec and text pieces; hashes and commits look like ones."""
    for known in catalogue().values():
        names = [name for source in known.sources for name in source.files]
        assert any(name.endswith(".safetensors") for name in names), known.name
        assert any(name.endswith(".model") for name in names), known.name
        has_codec = any("tokenizer-" in name or "mimi" in name for name in names)
        assert has_codec or "config.json" in names, known.name
        assert known.kind in {"moshi", "personaplex", "hibiki"}
        for source in known.sources:
            assert re.fullmatch(r"[\w-]+/[\w.-]+", source.repo)
            assert source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision)
            for expected in source.files.values():
                assert expected.sha256 is None or re.fullmatch("[0-9a-f]{64}", expected.sha256)


def test_sizes_follow_from_the_tensors() -> None:
    """PersonaPlex's file is as large as its tensors and a header."""
    personaplex = entry("personaplex")
    assert personaplex.is_gated
    size = personaplex.sources[0].files["model.safetensors"].num_bytes
    assert size is not None
    assert 0 < size - 2 * num_parameters(KyutaiConfig.from_dict(PERSONAPLEX)) < 60_000


def test_a_name_that_is_not_known() -> None:
    """May have been another."""
    with pytest.raises(
        ConfigError, match=r"'moshko' .there are moshiko, .*; did you mean moshiko\?"
    ):
        entry("moshko")
    with pytest.raises(ConfigError, match=r"no checkpoint 'xyz' \(there are .*\)$"):
        entry("xyz")


GOOD = "a: {about: b, kind: moshi, licence: c, sources: [{repo: x/y, files: {f: {bytes: 3}}}]}"


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("about", "abuot", "a: unknown key 'abuot'"),
        ("kind: moshi", "kind: mochi", "a: kind: expected one of moshi"),
        ("licence: c,", "", "a: not a checkpoint .KeyError.'licence'"),
        ("repo", "repos", "a: unknown key 'repos'"),
        ("bytes", "size", "a: f: unknown key 'size'"),
        ("{f: {bytes: 3}}", "f", "a: not a checkpoint"),
    ],
)
def test_a_broken_table_is_refused(old: str, new: str, match: str) -> None:
    """By checkpoint and key."""
    assert parse_catalogue(GOOD)["a"].sources[0].files["f"].num_bytes == 3
    with pytest.raises(ConfigError, match=match):
        parse_catalogue(GOOD.replace(old, new))
