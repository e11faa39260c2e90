"""Training and serving lay a conversation out alike: the seam where a model would silently fail."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model.cache.state import Kind
from model.messages import (
    AppendAudio,
    AppendCallOutput,
    AppendText,
    CallArguments,
    CallDone,
    CallStarted,
    CommitAudio,
    InputTranscript,
    Open,
    Respond,
    ResponseDone,
    ResponseText,
    Tool,
)
from model.pictures import to_patches
from model.prompts import call_pieces, prompt_pieces
from model.schemas.spelling import Speller
from model.text import NUM_SPECIAL
from model.training.encode_stage import CodedClip
from model.training.layout import Rows, SpokenCall, SpokenTurn, lay_out
from model.turns.program import TurnProgram
from model.turns.reply import SpeechTiming
from model.turns.sight import Sight
from model.turns.steps import TurnLimits
from model.vocabulary import WORD_START, TurnVocabulary
from tests.fakes.writer import WriterHere

NUM_CODEBOOKS = 4
LETTERS = "abcdefghij"
PIECES = [f"<{i}>" for i in range(NUM_SPECIAL)]
PIECES += [WORD_START + letter for letter in LETTERS] + list(LETTERS)
FRAME_SAMPLES = 4


def encode(text: str) -> list[int]:
    """Spell words letter by letter, the first letter of each with the mark of a word's start."""
    return [
        NUM_SPECIAL + LETTERS.index(letter) + (len(LETTERS) if i else 0)
        for word in text.split()
        for i, letter in enumerate(word)
    ]


class Pieces:
    """The training side's view of the same tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Return the pieces of `text`."""
        return encode(text)


def clip(seed: int, num_frames: int, *words: tuple[str, float, float]) -> CodedClip:
    """Return random codes with words at given times."""
    codes = np.random.default_rng(seed).integers(0, 99, (num_frames, NUM_CODEBOOKS))
    return CodedClip(codes.astype(np.int16), words)


TURNS = [
    SpokenTurn(
        "ab c",
        "de f",
        clip(1, 14, ("ab", 0.1, 0.3), ("c", 0.35, 0.5)),
        clip(2, 12, ("de", 0.02, 0.3), ("f", 0.5, 0.7)),
    ),
    SpokenTurn("g", "h i", None, clip(3, 6, ("h", 0.1, 0.2), ("i", 0.4, 0.45))),
    SpokenTurn("j", "a b", clip(4, 5, ("j", 0.1, 0.3)), None),
    SpokenTurn("a", "b", None, None),
    # Cut so short that the word comes live only in the final transcript.
    SpokenTurn("bc", "cb", clip(5, 2, ("bc", 0.0, 0.15)), clip(6, 3, ("cb", 0.1, 0.2))),
]


Step = tuple[int, int, list[int], list[int]]  # kind, piece, user codes, assistant codes


def serve(program: TurnProgram, rows: Rows, state: list[Step]) -> None:
    """Let the program go on until it rests, the model putting out what `rows` teaches it to.

    Args:
        program: with something to do.
        rows: the trained conversation.
        state: every step that was fed; grows.
    """
    while True:
        user = None
        if program.wants_frame:
            program.take_frame()
            index = sum(kind == Kind.LISTEN for kind, *_ in state)
            user = [codes for codes in rows.user if codes is not None][index].astype(np.int64)
        steps = program.plan(user)
        if steps is None:
            return
        del state[steps.start :]
        block = steps.block
        state += [
            (
                int(block.kind[i]),
                int(block.text[i]),
                block.user[i].tolist(),
                block.assistant[i].tolist(),
            )
            for i in range(len(block))
        ]
        first = len(state) - len(steps.masks)
        pieces = np.array(rows.target[first : len(state)]) if steps.masks else None
        codes = rows.codes[len(state) - 1]
        # What a step is not taught is whatever the model makes of it.
        made = np.where(codes < 0, 7, codes).astype(np.int64) if codes is not None else None
        scores = np.zeros((len(steps.masks), 2), np.float32)
        program.observe(steps, pieces, scores, made if steps.has_codes else None)


@pytest.mark.parametrize("num_turns", range(1, len(TURNS) + 1))
def test_served_steps_are_the_trained_steps(num_turns: int) -> None:
    """A model that answers as taught is fed, step by step, exactly what it was taught on."""
    turns = TURNS[:num_turns]
    rows = lay_out(turns, 1, Pieces(), NUM_CODEBOOKS, [0] * num_turns)
    vocabulary = TurnVocabulary(pieces=PIECES, encode=encode, voices={"ann": 9, "bob": 10})
    program = TurnProgram(
        Open("s", "bob"),
        speller=Speller(vocabulary),
        writer=WriterHere(vocabulary),
        timing=SpeechTiming(FRAME_SAMPLES, 80, 6),
        delays=(0, 1, 1, 1),
        limits=TurnLimits(max_waiting_samples=10**6),
    )
    outputs, state = [], list[Step]()
    for number, turn in enumerate(turns):
        if turn.heard is None:
            assert turn.user is not None, "a turn is heard or typed"
            program.accept(AppendText("s", f"u{number}", "user", turn.user))
        else:
            pcm = np.zeros(len(turn.heard.codes) * FRAME_SAMPLES, dtype=np.float32)
            program.accept(AppendAudio("s", pcm))
            serve(program, rows, state)
            program.accept(CommitAudio("s", f"u{number}"))
        program.accept(Respond("s", number, f"a{number}", audio=turn.said is not None))
        serve(program, rows, state)
        outputs += program.take_events()
    absent = [-1] * NUM_CODEBOOKS
    expected = [
        (
            rows.kind[i],
            rows.text[i],
            absent if rows.user[i] is None else rows.user[i].tolist(),
            absent if rows.assistant[i] is None else rows.assistant[i].tolist(),
        )
        for i in range(len(rows))
    ]
    assert state == expected
    heard = [o.text for o in outputs if isinstance(o, InputTranscript)]
    assert heard == [turn.user for turn in turns if turn.heard is not None]
    said = "".join(o.text for o in outputs if isinstance(o, ResponseText))
    assert said.replace(" ", "") == "".join(turn.reply or "" for turn in turns).replace(" ", "")
    frames = [o.usage.output_audio_tokens for o in outputs if isinstance(o, ResponseDone)]
    assert frames == [0 if turn.said is None else len(turn.said.codes) for turn in turns]


# Letters that spell the names and the words of the functions below.
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TAUGHT_PIECES = [f"<{i}>" for i in range(22)]
TAUGHT_PIECES += [WORD_START + letter for letter in ALPHABET] + list(ALPHABET)


def spell(text: str) -> list[int]:
    """Spell words letter by letter, what is no letter being a space."""
    words = "".join(c if c in ALPHABET else " " for c in text.lower()).split()
    return [
        22 + ALPHABET.index(letter) + (26 if i else 0)
        for word in words
        for i, letter in enumerate(word)
    ]


class TaughtPieces:
    """The training side's view of these."""

    def encode(self, text: str) -> list[int]:
        """Return the pieces of `text`."""
        return spell(text)


TAUGHT = TurnVocabulary(
    pieces=TAUGHT_PIECES,
    encode=spell,
    voices={"ann": 9, "bob": 10},
    num_special=22,
    is_taught_prompts=True,
)
LIGHT = Tool(
    "set_light",
    "slow",
    json.dumps(
        {
            "type": "object",
            "properties": {"room": {"type": "string"}, "mode": {"enum": ["a", "b"]}},
            "required": ["room", "mode"],
        }
    ),
)
ARGUMENTS = '{"room":"hall","mode":"b"}'


def taught_program(instructions: str) -> TurnProgram:
    """Return a program of a model that follows instructions."""
    return TurnProgram(
        Open("s", "bob", instructions),
        speller=Speller(TAUGHT),
        writer=WriterHere(TAUGHT),
        timing=SpeechTiming(FRAME_SAMPLES, 80, 6),
        delays=(0, 1, 1, 1),
        limits=TurnLimits(max_waiting_samples=10**6, max_prefix_steps=64),
        sight=Sight(4, 2),
    )


def as_steps(rows: Rows) -> list[Step]:
    """Return what is fed of a trained conversation."""
    absent = [-1] * NUM_CODEBOOKS
    return [
        (
            rows.kind[i],
            rows.text[i],
            absent if rows.user[i] is None else rows.user[i].tolist(),
            absent if rows.assistant[i] is None else rows.assistant[i].tolist(),
        )
        for i in range(len(rows))
    ]


@pytest.mark.parametrize("first", ["", "wait now"])
@pytest.mark.parametrize("is_spoken", [True, False])
@pytest.mark.parametrize("is_heard", [True, False])
def test_a_served_call_is_the_trained_call(first: str, *, is_spoken: bool, is_heard: bool) -> None:
    """Prompt, words before the call, call, result and answer are fed as they were taught."""
    said = clip(2, 7, *((w, 0.1 * i, 0.1 * i + 0.1) for i, w in enumerate(first.split())))
    answer = clip(3, 6, ("it", 0.1, 0.2), ("is", 0.3, 0.4))
    call = SpokenCall(
        call_pieces("set_light", ARGUMENTS, spell, LIGHT.parameters),
        "lamp off n",
        first,
        said if first and is_spoken else None,
    )
    turn = SpokenTurn(
        "light off",
        "it is",
        clip(1, 14, ("light", 0.1, 0.3), ("off", 0.35, 0.5)) if is_heard else None,
        answer if is_spoken else None,
        calls=[call],
    )
    prompt, _ = prompt_pieces("be kind", (LIGHT,), spell, 62)
    rows = lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0], prompt)
    program, state = taught_program("be kind"), list[Step]()
    if is_heard:
        # The functions are known when a reply is asked for: the prompt is fed anew then.
        program.accept(AppendAudio("s", np.zeros(14 * FRAME_SAMPLES, dtype=np.float32)))
        shorter, _ = prompt_pieces("be kind", (), spell, 62)
        serve(program, lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0], shorter), state)
        program.accept(CommitAudio("s", "u"))
        serve(program, lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0], shorter), state)
    else:
        program.accept(AppendText("s", "u", "user", turn.user or ""))
    program.accept(Respond("s", 0, "a", audio=is_spoken, tools=(LIGHT,)))
    serve(program, rows, state)
    told = program.take_events()
    made = [o for o in told if isinstance(o, CallStarted | CallArguments | CallDone)]
    assert [o.name for o in made if isinstance(o, CallStarted)] == ["set_light"]
    assert "".join(o.text for o in made if isinstance(o, CallArguments)) == ARGUMENTS
    assert told[-2:] == [made[-1], told[-1]]
    assert isinstance(told[-1], ResponseDone)
    program.accept(AppendCallOutput("s", "r", "set_light", '{"lamp": "off", "n": null}'))
    program.accept(Respond("s", 1, "b", audio=is_spoken, tools=(LIGHT,)))
    serve(program, rows, state)
    assert state == as_steps(rows)


def test_doubt_is_fed_as_it_is_taught() -> None:
    """A model that puts out `<unsure>` reads it before its reply."""
    turn = SpokenTurn("", "no", clip(1, 6), None, is_unsure=True)
    rows = lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0])
    program, state = taught_program(""), list[Step]()
    program.accept(AppendAudio("s", np.zeros(6 * FRAME_SAMPLES, dtype=np.float32)))
    serve(program, rows, state)
    program.accept(CommitAudio("s", "u"))
    program.accept(Respond("s", 0, "a", audio=False))
    serve(program, rows, state)
    assert state == as_steps(rows)
    heard = [o for o in program.take_events() if isinstance(o, InputTranscript)]
    assert [o.text for o in heard] == [""]


def test_an_unlikely_transcript_is_doubted() -> None:
    """Below the bound the words are told, and not relied on."""
    turn = SpokenTurn("ab c", "no", clip(1, 14, ("ab", 0.1, 0.3), ("c", 0.35, 0.5)), None)
    rows = lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0])
    program = TurnProgram(
        Open("s", "bob"),
        speller=Speller(TAUGHT),
        writer=WriterHere(TAUGHT),
        timing=SpeechTiming(FRAME_SAMPLES, 80, 6),
        delays=(0, 1, 1, 1),
        limits=TurnLimits(max_waiting_samples=10**6, doubt_below=1.0),  # nothing is so likely
    )
    state = list[Step]()
    program.accept(AppendAudio("s", np.zeros(14 * FRAME_SAMPLES, dtype=np.float32)))
    serve(program, rows, state)
    program.accept(CommitAudio("s", "u"))
    serve(program, rows, state)
    doubtful = replace(turn, is_unsure=True)
    expected = as_steps(lay_out([doubtful], 1, TaughtPieces(), NUM_CODEBOOKS, [0]))
    program.accept(Respond("s", 0, "a", audio=False))
    block = program.history.block(0, len(program.history))
    assert block.text.tolist() == [text for _, text, *_ in expected][: len(block)]
    assert block.text.tolist()[-2:] == [TAUGHT.unsure, TAUGHT.reply]
    heard = [o for o in program.take_events() if isinstance(o, InputTranscript)]
    assert [o.text for o in heard] == ["ab c"]


@pytest.mark.parametrize("is_heard", [True, False])
@pytest.mark.parametrize("is_shown_last", [True, False])
def test_pictures_are_fed_as_they_are_taught(*, is_heard: bool, is_shown_last: bool) -> None:
    """A patch is a step: before a question, or after its words, spoken or typed."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    turn = SpokenTurn(
        "ab c",
        "no",
        clip(1, 14, ("ab", 0.1, 0.3), ("c", 0.35, 0.5)) if is_heard else None,
        None,
        picture=lambda: to_patches(pixels, 4, 2),
        num_patches=4,
        is_shown_last=is_shown_last,
    )
    rows = lay_out([turn], 1, TaughtPieces(), NUM_CODEBOOKS, [0])
    program, state = taught_program(""), list[Step]()
    camera = (pixels,) if is_shown_last else ()
    if not is_shown_last:
        program.accept(AppendText("s", "u", "user", "", (pixels,)))
    if is_heard:
        program.accept(AppendAudio("s", np.zeros(14 * FRAME_SAMPLES, dtype=np.float32)))
        serve(program, rows, state)
        program.accept(CommitAudio("s", "u", images=camera))
    else:
        program.accept(AppendText("s", "u", "user", "ab c", camera))
    program.accept(Respond("s", 0, "a", audio=False))
    serve(program, rows, state)
    assert state == as_steps(rows)
    block = program.history.block(0, len(program.history))
    assert [patch.place for patch in block.patches] == [0, 1, 2, 3]
    seen = np.stack([patch.values for patch in block.patches])
    assert np.array_equal(seen, to_patches(pixels, 4, 2))


def test_words_go_on_after_a_picture() -> None:
    """An item of words, a picture and words is one turn of the user's."""
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    program = taught_program("")
    program.accept(AppendText("s", "u", "user", "ab", (pixels,)))
    program.accept(AppendText("s", "u", "user", "c"))
    program.accept(AppendText("s", "v", "user", "c"))
    text = program.history.block(2, len(program.history)).text.tolist()
    image, user = [TAUGHT.image] * 4, [TAUGHT.user]
    assert text == [*user, *spell("ab"), *image, *spell("c"), *user, *spell("c")]
