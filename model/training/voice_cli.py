"""`parley train voice`: one more voice of the assistant, made of speech alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tqdm import tqdm

from model.assemble.weights import load_starter, save_starter, write_judgement
from model.errors import ConfigError
from model.judgement import Judgement
from model.training.encode_stage import encode_store
from model.training.skills import sample_dialogue
from model.training.speech.types import SynthesisError
from model.training.speech.voices import Voice, synthesise
from model.training.store import is_written, read_store, write_shard
from model.training.voice_stage import learn_voice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from model.training.speech.types import Speech

_DESCRIPTION = """\
Teach trained weights one more voice. A synthesiser's voice, or a blend of two, speaks replies; the
weights learn the one row that says whose voice it is, and stay as they are otherwise. They are
written to DIR/export, where config.json names the new voice last.
"""
_REPLIES_PER_SHARD = 50


def voice_main(argv: Sequence[str], speak: Callable[[Voice, str], Speech] = synthesise) -> None:
    """Run the command line.

    Args:
        argv: after `parley train voice`.
        speak: says a text in a voice.

    Raises:
        ConfigError: the weights have no room for another voice, or have one of this name.
        WeightsError: they are no weights.
        SynthesisError: the speaker cannot speak.
    """
    args = _parser().parse_args(argv)
    starter = load_starter(args.start)
    if args.name in starter.voices:
        raise ConfigError(f"{args.start}: there is a voice {args.name!r} already")
    if len(starter.voices) == starter.tokenizer.num_voices:
        raise ConfigError(
            f"{args.start}: has {len(starter.voices)} voices and no room for another one"
        )
    voice = Voice(args.name, "kokoro", args.speaker)
    questions = _questions(args.replies, args.seed)
    store = args.dir / "speech" / "voice"
    _speak_all(voice, list(questions), store, speak)
    codes = args.dir / "codes" / "voice.npz"
    coded = encode_store(starter.codec, read_store(store), codes, seed=args.seed, is_user=False)
    said = [(questions[reply], reply, clip) for reply, clip in coded.items()]
    lm = learn_voice(
        starter.lm,
        starter.tokenizer,
        said,
        len(starter.voices),
        args.dir,
        num_steps=args.steps,
        seed=args.seed,
    )
    target = args.dir / "export"
    save_starter(
        target,
        lm=lm,
        codec=starter.codec,
        tokenizer=starter.tokenizer,
        voices=(*starter.voices, args.name),
    )
    if starter.judgement != Judgement():
        write_judgement(target, starter.judgement)
    print(f"{target}: {', '.join((*starter.voices, args.name))}")


def _questions(num_replies: int, seed: int) -> dict[str, str]:
    """Draw so many different replies of training, each with a question before it."""
    questions: dict[str, str] = {}
    number = 0
    while len(questions) < num_replies:
        turn = sample_dialogue(Random(f"{seed}/{number}"), "train")[0]
        questions.setdefault(turn.reply, turn.user)
        number += 1
    return questions


def _speak_all(
    voice: Voice, replies: Sequence[str], store: Path, speak: Callable[[Voice, str], Speech]
) -> None:
    """Write the shards of replies that are missing."""
    for start in tqdm(range(0, len(replies), _REPLIES_PER_SHARD), desc="speech", mininterval=5.0):
        shard = store / f"{start // _REPLIES_PER_SHARD:04}"
        if not is_written(shard):
            part = replies[start : start + _REPLIES_PER_SHARD]
            write_shard(shard, _spoken(voice, part, speak))


def _spoken(
    voice: Voice, replies: Sequence[str], speak: Callable[[Voice, str], Speech]
) -> Iterator[tuple[str, str, str, Speech]]:
    for reply in replies:
        try:
            yield reply, reply, voice.name, speak(voice, reply)
        except SynthesisError as error:
            # A synthesiser may fail on a text. One that fails on all of them is missing.
            if reply == replies[0]:
                raise
            tqdm.write(f"left out, {voice.name} cannot say {reply!r}: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley train voice",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the new voice")
    parser.add_argument(
        "--speaker",
        required=True,
        help="a voice of Kokoro's, or a blend such as 'af_bella*0.6+bm_daniel*0.4'",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        default=Path("model/starter"),
        metavar="DIR",
        help="exported weights (model/starter)",
    )
    parser.add_argument("--dir", type=Path, required=True, help="where all files go")
    parser.add_argument("--replies", type=int, default=400, help="that are spoken (400)")
    parser.add_argument("--steps", type=int, default=300, help="of training (300)")
    parser.add_argument("--seed", type=int, default=7, help="of everything that is drawn (7)")
    return parser
