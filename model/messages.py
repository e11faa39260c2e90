"""Define what crosses the line between the gateway and the engine.

Commands go in, outputs come out; both are small frozen values with PCM as numpy, and no tensor is
among them. Every command and output names its session; news of the engine concern all. Everything
about a response also names its `turn`, a number that the session raises for each response: an
output with an old turn is stale and is dropped by whoever receives it.

Order is kept: commands of one session take effect in the order of `submit`, and its outputs are
delivered in the order they were made.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from model.metrics import EngineMetrics

Pcm: TypeAlias = npt.NDArray[np.float32]
"""Mono samples in [-1, 1], shape [samples], at `EngineInfo.sample_rate_hz`."""

Pixels: TypeAlias = npt.NDArray[np.uint8]
"""A picture: sRGB in [0, 255], shape [height, width, 3], neither side over `EngineInfo.image_side`.

Whoever holds one does not write into it.
"""

Role: TypeAlias = Literal["user", "assistant", "system"]
DoneReason: TypeAlias = Literal["completed", "cancelled", "max_output_tokens"]
ToolChoice: TypeAlias = Literal["none", "auto", "required"]
Eagerness: TypeAlias = Literal["low", "medium", "high"]
"""How soon a turn counts as finished: "high" is soonest."""


@dataclass(frozen=True, slots=True)
class Tool:
    """Describe a function that the model may call.

    Attributes:
        name: of the function.
        description: when to call it and what it does; empty for none.
        parameters: JSON schema of its arguments, an object's, as JSON text. It compiles: whoever
            makes a `Tool` has checked that with `model.schemas.grammar`.
    """

    name: str
    description: str
    parameters: str


# A worked example: one spoken question, in messages.
#
#     to the engine                     from the engine
#     Open s1, a voice
#     AppendAudio s1, 80 ms             InputTranscriptDelta "what"
#     AppendAudio s1, ...               InputTranscriptDelta " is two", ...
#                                       EndOfTurn 1,840 ms
#     CommitAudio s1, item a            InputTranscript item a, "what is two plus two"
#     Respond s1, turn 0, item b        ResponseStarted turn 0, ResponseText "four"
#                                       ResponseWord "four" at 160 ms, ResponseAudio, ...
#                                       ResponseDone turn 0, completed
#
# If the user talks over the reply after 300 ms of it:
#
#     Cancel s1, turn 0                 ResponseDone turn 0, cancelled
#     Truncate s1, item b, 300 ms
#     Respond s1, turn 1, item d        whatever still says turn 0 is dropped by the receiver
# Commands: session -> engine.


@dataclass(frozen=True, slots=True)
class Open:
    """Take a slot for a new session.

    Attributes:
        session_id: unique among the sessions that are open.
        voice: one of `EngineInfo.voices`.
        instructions: the system prompt; empty for none.
        is_noted: whether the engine reports what it was told when and what it made of it, token by
            token (`CommandNoted`, `StepNoted`), so that all of it can be done again. A model that
            is duplex does not.
        seed: of the session's choices; None for one of the engine's. The same messages at the same
            places with the same seed give the same tokens.
    """

    session_id: str
    voice: str
    instructions: str = ""
    is_noted: bool = False
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Close:
    """Give the session's slot back; nothing is delivered for it afterwards.

    Closing a session that is not open (it failed, or was never opened) does nothing.
    """

    session_id: str


@dataclass(frozen=True, slots=True, eq=False)
class AppendAudio:
    """Add audio to the user turn in progress; the first append starts the turn.

    Attributes:
        pcm: float32 [samples], any number of samples; consumed one whole frame at a time.
    """

    session_id: str
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class ClearAudio:
    """Forget the audio of the user turn in progress, as if it had never been appended."""

    session_id: str


@dataclass(frozen=True, slots=True)
class CommitAudio:
    """End the spoken user turn: an `InputTranscript` for `item_id` follows.

    Attributes:
        images: what the user showed meanwhile; in the conversation it stands after the words. Only
            for a model that sees. A `Reopen` takes it back as well.
        is_tentative: True if the user may still go on, which a `Reopen` would say. A last frame
            that is not full is then left out; otherwise it is completed with silence. It needs no
            confirmation; any later command but `Respond`, `Cancel`, `CheckTurn` and `Reopen`
            makes it final.
    """

    session_id: str
    item_id: str
    is_tentative: bool = False
    images: tuple[Pixels, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckTurn:
    """Ask whether the user's turn sounds finished: a `TurnChecked` follows.

    It is answered once every whole frame that was appended before has been heard, so it also tells
    that. A model that takes turns hears nothing while it makes a reply, and answers afterwards. It
    changes nothing; a tentative commit stays tentative.

    Attributes:
        key: names the question in its answer.
        eagerness: how sure the model has to be; one that only says yes or no does not care.
    """

    session_id: str
    key: str
    eagerness: Eagerness = "medium"


@dataclass(frozen=True, slots=True)
class Reopen:
    """Take back a tentative `CommitAudio`, the last thing that became part of the conversation.

    The turn is open again and its audio goes on with the next `AppendAudio`, as if it had never
    been committed. A response that was started since then ends without any output, `ResponseDone`
    included, and leaves nothing behind. What had been put out before is the receiver's to forget.

    Going back is exact however much was made since. It costs nothing as long as that is no more
    than the model can take back; beyond, the engine feeds the conversation again, while the user
    speaks. Reopening what is final, or was never committed tentatively, fails the session.

    Attributes:
        item_id: of the tentative commit.
    """

    session_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class AppendText:
    """Add a typed or replayed item to the conversation.

    An item with words after its pictures comes in several of these, one after the other under one
    `item_id`: "compare this", a picture, "with that", a picture is two of them, and one turn.

    Attributes:
        role: "user" for a typed turn, "assistant" for a reply replayed from history.
        text: the item's words; normalised by the engine's tokenizer.
        images: a user's, in order; they stand after the words. Only for a model that sees.
    """

    session_id: str
    item_id: str
    role: Role
    text: str
    images: tuple[Pixels, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendCall:
    """Add a function call that was made earlier, replayed from history.

    The memory is then that of a call that was made here, apart from the item it belongs to.

    Attributes:
        name: of the function.
        arguments: as JSON text.
    """

    session_id: str
    item_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class AppendCallOutput:
    """Add what a function call returned.

    Attributes:
        name: of the function.
        output: whatever it returned, as text.
    """

    session_id: str
    item_id: str
    name: str
    output: str


@dataclass(frozen=True, slots=True)
class Respond:
    """Start a reply to the conversation so far: words, function calls, or words and then calls.

    A duplex model (`EngineInfo.is_duplex`) speaks when it wants to: this asks for what it says
    next, and the reply begins with its first output. Another one for the same turn takes the place
    of the first, if that has not begun.

    Attributes:
        turn: identifies this response in every output that belongs to it.
        item_id: the assistant item that the reply becomes, calls included, for `Truncate`.
        voice: one of `EngineInfo.voices`, or None for the session's.
        audio: False for a reply in text only.
        max_output_tokens: most text and audio tokens of the reply together; None for the engine's
            own limit.
        instructions: the system prompt of this response alone; None for the session's.
        tools: functions that may be called.
        tool_choice: "none" forbids calls, "auto" leaves them to the model, "required" demands at
            least one. A function that is demanded by its name comes as "required" with it as the
            only tool.
        is_standing: of a duplex model, whether what it says next is to be the reply whenever it
            comes. If not, the reply ends without output when the model stays silent for a while.
        recites: whether its words come from elsewhere, by `Recite`, and the model only says or
            writes them. Of those that take turns every model can do that with its own vocabulary;
            `EngineInfo.recites` says whether any words will do.
    """

    session_id: str
    turn: int
    item_id: str
    voice: str | None = None
    audio: bool = True
    max_output_tokens: int | None = None
    instructions: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    is_standing: bool = False
    recites: bool = False


@dataclass(frozen=True, slots=True)
class Recite:
    """Give words to a response that recites; for one that is over they are ignored.

    Attributes:
        turn: of the response.
        text: to be appended to the words before, spaces included; a word may come in pieces.
        is_last: whether these are the last, with which the response ends.
    """

    session_id: str
    turn: int
    text: str
    is_last: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the response `turn` at once.

    If it was still running, one `ResponseDone` with reason "cancelled" is the last output of that
    turn; otherwise nothing happens. What was generated so far stays in the conversation until a
    `Truncate` says how much of it was heard; but a call that is not complete was never made.
    """

    session_id: str
    turn: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Go back to the moment at which an assistant item stopped being heard.

    Attributes:
        heard_ms: audio of the item that was played, in milliseconds. Whole frames heard stay, and
            the words that `num_words_heard` counts; the rest was never said. Nothing heard at all
            means that the item was never there, which goes for written items too.
    """

    session_id: str
    item_id: str
    heard_ms: int


def num_words_heard(starts_ms: Iterable[int], heard_ms: int) -> int:
    """Count the words of a reply that had begun when it stopped being heard.

    Clients are shown these words and the model remembers them: both sides of the line count here.
    So of words at 0, 200 and 400 ms, two were heard where 400 ms were played, three at 401.

    Args:
        starts_ms: where in the reply's audio each word begins, in order.
        heard_ms: how much of the audio was played.
    """
    return sum(start_ms < heard_ms for start_ms in starts_ms)


SessionCommand: TypeAlias = (
    AppendAudio
    | ClearAudio
    | CommitAudio
    | CheckTurn
    | Reopen
    | AppendText
    | AppendCall
    | AppendCallOutput
    | Respond
    | Recite
    | Cancel
    | Truncate
)
"""What is asked of a session that is open."""

Command: TypeAlias = Open | Close | SessionCommand


# Outputs: engine -> session.


@dataclass(frozen=True, slots=True)
class InputTranscriptDelta:
    """Report words heard while the user still speaks.

    Attributes:
        text: to be appended to the turn's earlier deltas, spaces included.
    """

    session_id: str
    text: str


@dataclass(frozen=True, slots=True)
class InputTranscript:
    """Report the final words of a committed spoken turn; they replace the deltas.

    Attributes:
        score: log-probability, by the model, that these are all the words; None if it cannot tell.
        logprobs: the tokens of the words in order, spaces included, each with its log-probability;
            none if the model cannot tell.
    """

    session_id: str
    item_id: str
    text: str
    score: float | None = field(default=None, compare=False)
    logprobs: tuple[tuple[str, float], ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class EndOfTurn:
    """Report that the user's turn sounds finished (semantic voice activity).

    The turn goes on until `CommitAudio`. If more is said first, it may be reported again. How sure
    the model has to be is what "medium" eagerness asks for.

    Attributes:
        audio_ms: milliseconds from the turn's first sample to the end of the frame that said so.
    """

    session_id: str
    audio_ms: int


@dataclass(frozen=True, slots=True)
class TurnChecked:
    """Answer a `CheckTurn`: everything that was appended before it has been heard.

    Attributes:
        key: of the question.
        is_finished: whether the turn in progress sounds finished, to a model that was asked with
            this eagerness; False if none is in progress, or the model cannot tell.
    """

    session_id: str
    key: str
    is_finished: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Count the tokens of one response; an audio token is one frame.

    Attributes:
        input_text_tokens: text steps that the reply could be based on.
        input_audio_tokens: audio frames that the reply could be based on, heard and spoken.
        input_cached_text_tokens: those of the text steps that an earlier response had paid for.
        input_cached_audio_tokens: those of the audio frames that an earlier response had paid for.
        output_text_tokens: text tokens written for the reply, calls included.
        output_audio_tokens: audio frames spoken.
        input_image_tokens: steps of pictures that the reply could be based on.
        input_cached_image_tokens: those of them that an earlier response had paid for.
    """

    # A worked example. Response 1 is based on 40 tokens and says 30. Response 2 is based on 95, of
    # which 70 are cached: what the first was based on, and what it said. If the second says 25,
    # then 120 of the third's input are cached.
    input_text_tokens: int = 0
    input_audio_tokens: int = 0
    input_cached_text_tokens: int = 0
    input_cached_audio_tokens: int = 0
    output_text_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    input_cached_image_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        """Count all input tokens, cached ones included."""
        return self.input_text_tokens + self.input_audio_tokens + self.input_image_tokens

    @property
    def input_cached_tokens(self) -> int:
        """Count the input tokens that an earlier response had paid for."""
        return (
            self.input_cached_text_tokens
            + self.input_cached_audio_tokens
            + self.input_cached_image_tokens
        )

    @property
    def output_tokens(self) -> int:
        """Count all output tokens."""
        return self.output_text_tokens + self.output_audio_tokens

    @property
    def total_tokens(self) -> int:
        """Count input and output tokens together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """Begin the response `turn`: the engine has read what it is based on. Its first output.

    A response that ends before this has cost nothing.

    Attributes:
        usage: its input, cached tokens included; no output yet. A response that is stopped has
            cost this much, whatever it has said.
        prefix_tokens: text tokens among it that are no part of the conversation: instructions,
            functions, the voice.
    """

    session_id: str
    turn: int
    usage: Usage
    prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ResponseText:
    """Add to the reply's text, which runs ahead of its audio.

    Attributes:
        text: to be appended to the response's earlier deltas, spaces included.
    """

    session_id: str
    turn: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class ResponseAudio:
    """Add to the reply's audio.

    Attributes:
        pcm: float32 [samples], following the response's earlier audio without a gap; about one
            frame, less at both ends of the reply. Made ahead of playout by a bounded amount.
    """

    session_id: str
    turn: int
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class ResponseWord:
    """Say where a word of the reply begins in its audio.

    Attributes:
        text: the word, without spaces.
        start_ms: milliseconds from the reply's first sample.
    """

    session_id: str
    turn: int
    text: str
    start_ms: int


@dataclass(frozen=True, slots=True)
class CallStarted:
    """Begin a function call. The reply's words and audio, if there are any, are complete.

    Attributes:
        call: counts the response's calls from 0; one is done before the next is started.
        name: of the function, one of `Respond.tools`.
    """

    session_id: str
    turn: int
    call: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Add to the arguments of a call.

    Attributes:
        text: to be appended to the call's earlier deltas. Together they are JSON that the
            function's schema accepts, unless the response is cut short.
    """

    session_id: str
    turn: int
    call: int
    text: str


@dataclass(frozen=True, slots=True)
class CallDone:
    """End a function call: its arguments are complete."""

    session_id: str
    turn: int
    call: int


@dataclass(frozen=True, slots=True)
class ResponseDone:
    """End the response `turn`; it is the last output of that turn, delivered exactly once."""

    session_id: str
    turn: int
    reason: DoneReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class ResponseFailed:
    """End the response `turn` in place of a `ResponseDone`; the session goes on.

    Attributes:
        message: what went wrong, for a person.
    """

    session_id: str
    turn: int
    message: str


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """Report that the session is lost; its slot is free and its later commands are ignored."""

    session_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Report that commands of a session have been carried out, or dropped by its `Close`.

    By this, whoever submits them knows how many wait, and holds back what is too much.

    Attributes:
        num_commands: since the last such report of this session.
    """

    session_id: str
    num_commands: int


@dataclass(frozen=True, slots=True)
class CommandNoted:
    """Report that a command of a session that is noted is being carried out.

    What it leads to at once is put out after this, and before the next note.

    Attributes:
        number: counts the session's commands since its `Open`, which is 0.
        at_s: when, on the engine's clock, which is any that does not go back.
        seed: of the session's choices.
    """

    session_id: str
    number: int
    at_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class StepNoted:
    """Report that a session that is noted was served: what was fed, and what came out.

    A script has neither; its outputs are all there is.

    Attributes:
        at_s: as in `CommandNoted`.
        start: steps of the conversation that the model had seen before.
        fed: the text pieces of the steps that it was given.
        heard: the audio codes of the user in them, all of one step before the next.
        pieces: text pieces that it chose.
        codes: of the frame of audio that it made; empty where it made none.
        rows: sessions that shared the work, this one included.
    """

    session_id: str
    at_s: float
    start: int = 0
    fed: tuple[int, ...] = ()
    heard: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    codes: tuple[int, ...] = ()
    rows: int = 1


Note: TypeAlias = CommandNoted | StepNoted


CallPart: TypeAlias = CallStarted | CallArguments | CallDone
"""What the engine makes of a function call."""

ResponsePart: TypeAlias = ResponseStarted | ResponseText | ResponseAudio | ResponseWord | CallPart
"""What the engine makes of a response before its end."""

ResponseEnd: TypeAlias = ResponseDone | ResponseFailed
"""How a response ends, by exactly one of these."""

Output: TypeAlias = (
    InputTranscriptDelta
    | InputTranscript
    | EndOfTurn
    | TurnChecked
    | ResponsePart
    | ResponseEnd
    | SessionFailed
    | Taken
    | Note
)


def weight(command: Command) -> int:
    """Return how much work a command is apart from its audio: characters, and bytes of pictures."""
    # What waits is bounded by this. A picture of 640 x 480 weighs 921,600, which is far more than
    # any text: a session has few of them on their way.
    match command:
        case AppendText():
            return len(command.text) + sum(image.nbytes for image in command.images)
        case CommitAudio():
            return sum(image.nbytes for image in command.images)
        case AppendCall():
            return len(command.arguments)
        case AppendCallOutput():
            return len(command.output)
        case Open():
            return len(command.instructions)
        case Respond():
            return len(command.instructions or "")
        case Recite():
            return len(command.text)
        case _:
            return 0


# News of the engine itself, which concern every session.


@dataclass(frozen=True, slots=True)
class EngineLost:
    """Report that the engine is gone and every session with it; it is being started again.

    Until `EngineBack`, commands are taken and lost: nobody is there to remember anything.

    Attributes:
        message: what happened, for a person.
        culprit: the session whose command the engine died of, as far as can be known; its
            conversation must not be told to the next engine. "" if there is none.
        suspect: the session for which the engine was at work, which may be a coincidence; "" if it
            was idle. Its conversation must not be told to an engine with other sessions, which
            might die of it as well.
    """

    message: str
    culprit: str = ""
    suspect: str = ""


@dataclass(frozen=True, slots=True)
class EngineBack:
    """Report that a lost engine is ready again. It knows nothing of what was before."""


@dataclass(frozen=True, slots=True)
class EngineGone:
    """Report that a lost engine will not be started any more.

    Attributes:
        message: why, for a person.
    """

    message: str


@dataclass(frozen=True, slots=True)
class EngineSilent:
    """Report that the engine has said nothing for longer than its work takes: it may hang.

    `EngineHeard` follows, or `EngineLost`.
    """


@dataclass(frozen=True, slots=True)
class EngineHeard:
    """Report that an engine which was silent speaks again."""


News: TypeAlias = EngineLost | EngineBack | EngineGone | EngineSilent | EngineHeard


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Describe an engine.

    Attributes:
        model: name of the model, such as "starter".
        sample_rate_hz: of all PCM, in and out.
        frame_ms: length of one frame.
        voices: the names that `Open.voice` and `Respond.voice` accept, the default first.
        max_sessions: sessions that may be open at once.
        is_duplex: whether the model listens and speaks all the time instead of in turns. It then
            takes all audio of a session, speech or not, begins replies by itself, and knows only
            what was said aloud: typed items and function calls are ignored, transcripts of what
            users say are empty, and the system prompt counts when a session is opened.
        note: for users of the model, such as that it is a stand-in; may be empty.
        image_side: largest side, in pixels, of the pictures that the model takes; 0 if it cannot
            see, and must then be given none.
        recites: whether it can say any words that it is given, as `Respond.recites` asks for.
    """

    model: str
    sample_rate_hz: int
    frame_ms: int
    voices: tuple[str, ...]
    max_sessions: int
    is_duplex: bool = False
    note: str = ""
    image_side: int = 0
    recites: bool = False

    @property
    def sees(self) -> bool:
        """Say whether the model takes pictures."""
        return self.image_side > 0

    @property
    def frame_samples(self) -> int:
        """Count the samples of one frame."""
        frame_samples, rest = divmod(self.sample_rate_hz * self.frame_ms, 1000)
        assert rest == 0, "a frame is a whole number of samples"
        return frame_samples


class Engine(Protocol):
    """Run many sessions on one model, on one thread of its own."""

    @property
    def info(self) -> EngineInfo:
        """Describe the engine; known before it starts."""
        ...

    @property
    def metrics(self) -> EngineMetrics:
        """Return what it has counted, as far as that is known here."""
        ...

    def start(self, deliver: Callable[[Output | News], None]) -> None:
        """Start the engine's thread and return when it is ready for commands.

        Args:
            deliver: called on the engine's thread for every output, in order. It must return
                quickly and must not raise; an event loop is entered by `call_soon_threadsafe`.
                News come only from an engine that can be lost, in order with its outputs.
        """
        ...

    def submit(self, command: Command) -> None:
        """Hand a command to the engine; callable from any thread, returns at once.

        Raises:
            OverloadedError: from `model.errors`: no slot is free for an `Open`, or too many
                commands of this session wait.
        """
        ...

    def stop(self) -> None:
        """Stop the engine's thread and wait for it; sessions still open are dropped silently."""
        ...
