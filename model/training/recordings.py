"""A user's own recordings, to train on or to be scored with: sound files with transcripts.

`DIR/transcripts.tsv` holds one line a file, ``name.wav<TAB>what is said`` and, if the recording
asks something the starter can answer, a third column with the reply. Any rate, any number of
channels, any sample format, mu-law of a telephone among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.codec.features import SAMPLE_RATE_HZ
from model.errors import ConfigError
from model.files.sound import read_sound
from model.text import normalise
from model.training.store import Clip

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "transcripts.tsv"
LONGEST_S = 14.0  # a turn must fit the model's audio window


def read_recordings(
    directory: Path, *, longest_s: float | None = LONGEST_S
) -> tuple[list[Clip], dict[str, str]]:
    """Read a directory of recordings.

    Args:
        directory: holds the wav files and `transcripts.tsv`.
        longest_s: what a recording may last; None for any length.

    Returns:
        The clips (without word times: nobody aligned them), and the replies by clip key where one
        was given.

    Raises:
        ConfigError: naming the file and what is wrong with it.
    """
    index = directory / INDEX
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        msg = (
            f"{index}: cannot be read ({error.strerror}); "
            "it holds a line 'file.wav<TAB>transcript' per recording"
        )
        raise ConfigError(msg) from error
    clips, replies = [], {}
    keys: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        columns = [c.strip() for c in line.split("\t")]
        if len(columns) not in (2, 3) or not normalise(columns[1]):
            msg = f"{index}:{number}: expected 'file.wav<TAB>transcript[<TAB>reply]', got {line!r}"
            raise ConfigError(msg)
        wave = read_sound(directory / columns[0], SAMPLE_RATE_HZ)
        # Stored as 16 bits like synthesised speech, so that whatever works on clips need not ask
        # where they are from.
        pcm = np.round(wave * 32767).astype(np.int16)
        if not len(pcm):
            msg = f"{directory / columns[0]}: holds no audio"
            raise ConfigError(msg)
        if longest_s is not None and len(pcm) > longest_s * SAMPLE_RATE_HZ:
            msg = (
                f"{directory / columns[0]}: {len(pcm) / SAMPLE_RATE_HZ:.1f} s long, "
                f"expected at most {longest_s} s"
            )
            raise ConfigError(msg)
        key = f"recording:{columns[0]}"
        if key in keys:
            msg = f"{index}:{number}: {columns[0]} is listed twice"
            raise ConfigError(msg)
        keys.add(key)
        # Nobody labelled the phones of a recording. All slots are pauses, and the tokenizer is not
        # trained on it.
        silent = np.zeros(len(pcm) // 320, dtype=np.uint8)
        clips.append(Clip(key, normalise(columns[1]), "recording", pcm, (), silent))
        if len(columns) == 3:
            replies[key] = normalise(columns[2])
    if not clips:
        msg = f"{index}: no recordings listed"
        raise ConfigError(msg)
    return clips, replies
