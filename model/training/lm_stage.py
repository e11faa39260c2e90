"""Train the language model on dialogues laid out as steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model.cache.state import Kind, Steps
from model.pictures import to_patches
from model.prompts import call_pieces, prompt_pieces, result_text
from model.text import NUM_VOICES
from model.training.layout import NO_TARGET, SpokenCall, SpokenTurn, lay_out
from model.training.loop import Trainer, step_generator
from model.training.muon import Muon
from model.training.parallel import rank, world_size
from model.training.pictures.render import render
from model.training.pictures.scene import Scene
from model.training.skills import SKILLS, Turn, pictures, sample_conversation, unheard
from model.training.synthesis import Script, reply_key, user_key
from model.transformer.lm import LM

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from model.config import LMConfig
    from model.training.encode_stage import CodedClip, Words
    from model.training.layout import Pieces, Rows
    from model.training.skills.phrasing import Style

# 3,600 steps are about 290 s of sound. Dialogues of 120 steps come thirty at a time, those of 600
# steps six at a time: the work of a batch is about the same.
STEPS_PER_BATCH = 3_600  # of one worker, padding included
TYPED_SHARE = 0.06  # of turns that are typed though a recording exists
TYPED_WRITTEN_SHARE = 0.5  # of those that are also answered in writing only
# Of the spoken turns: it saves steps for hearing, and clients may ask for text alone.
HEARD_WRITTEN_SHARE = 0.6
# Words that nothing around them foretells teach to hear; known sentences teach to guess as well.
FREE_WORDS_WEIGHT = 4.0
FREE_WORDS_SKILLS = ("repeat", "unknown")
# Of the spoken turns: words come back to the model as wrongly as it may take them while it listens.
# The final transcript would otherwise be copied from them, for in training they are always right,
# and never be learned from the whole of what was heard.
MISHEARD_SHARE = 0.35
MISHEARD_WORDS = (0.05, 0.4)  # of the words of such a turn
# Of those: nothing was understood at all, or a word more than there was; the others are replaced.
MISSED_WORDS_SHARE = 0.25
ADDED_WORDS_SHARE = 0.25
# Of the steps of a batch: dialogues without any audio, which are cheap and carry facts. Half are
# made up on the spot: to copy names and values takes more functions than can be spoken.
TEXT_DIALOGUE_SHARE = 0.12
NEW_TEXT_SHARE = 0.5
# Of spoken turns that are understood: the transcript comes back wrong and is known to be doubtful.
# So "sorry i did not catch that" follows whatever words the server distrusts.
DISTRUSTED_SHARE = 0.03
END_WEIGHT = 0.3
# Positions go on counting in a call of minutes, and training dialogues are short. Jumps of up to
# 600 positions, 48 s, let the model meet large ones.
JUMP_SHARE = 0.25
LONGEST_JUMP = 600  # positions; calls are longer than training dialogues
DEPTH_SHARE = 0.3  # of the reply's frames that train the depth transformer
# A wrong semantic code is another sound; a wrong last code is a nuance. The weights fall as what
# the codebooks add to the sound does.
CODEBOOK_WEIGHTS = (1.0, 0.5, 0.35, 0.25, 0.2, 0.15, 0.12, 0.1)
AUDIO_WEIGHT = 0.35
LARGER = (1, 2, 4)  # pictures are so many times as large as what is seen of them
FED_BACK_NOISE = 0.05  # of the reply's codes that are fed back wrong, as they will sometimes be
# 0.997 means that a step leaves 99.7 % of the mean: after 300 steps 0.997^300 = 40 % of it is left.
AVERAGING = 0.997  # the mean is over some 300 steps
POOL = 400  # dialogues that are sorted by length together


@dataclass(frozen=True, slots=True)
class Batch:
    """Steps and what they should answer.

    ``target [B, T]`` (-100: nothing), ``weight [B, T]``, ``codes [B, T, K]`` (-1: nothing),
    ``ends [B, T]`` (-1: nothing known; else whether the user's turn is over), ``pictures``
    [pictures, patches, values] in the order of the steps that see them, None without any.
    """

    steps: Steps
    target: Tensor
    weight: Tensor
    codes: Tensor
    ends: Tensor
    pictures: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        s = self.steps
        steps = Steps(*(t.to(device) for t in (s.text, s.user, s.assistant, s.kind, s.position)))
        return Batch(
            steps,
            self.target.to(device),
            self.weight.to(device),
            self.codes.to(device),
            self.ends.to(device),
            None if self.pictures is None else self.pictures.to(device),
        )


@dataclass(frozen=True, slots=True)
class Recordings:
    """A user's own recordings: texts and replies by clip key, and coded passes.

    `share` is theirs of the dialogues.
    """

    texts: dict[str, str]
    replies: dict[str, str]
    passes: Sequence[dict[str, CodedClip]]
    share: float


@dataclass(frozen=True, slots=True)
class _Talk:
    """A dialogue of a batch before it is laid out; `length` is about how many steps it takes."""

    turns: Sequence[SpokenTurn]
    voice: int
    length: int
    prompt: Sequence[int] = ()

    @classmethod
    def of(cls, turns: Sequence[SpokenTurn], voice: int, prompt: Sequence[int] = ()) -> _Talk:
        length = 2 + len(prompt)
        for turn in turns:
            length += 0 if turn.heard is None else len(turn.heard.codes)
            length += 0 if turn.said is None else len(turn.said.codes) + 1
            length += turn.num_patches
            length += len((turn.user or "").split()) + len((turn.reply or "").split()) + 4
            for call in turn.calls:
                length += len(call.pieces) + len(f"{call.result} {call.first}".split()) + 4
                length += 0 if call.said is None else len(call.said.codes) + 1
        return cls(turns, voice, length, prompt)


class DialogueSampler:
    """Assemble batches from scripts and coded speech, each a function of a generator alone.

    Args:
        scripts: the conversations.
        passes: coded user turns by key, as often as they were heard.
        replies: coded replies by key.
        pieces: the tokenizer.
        config: of the model.
        recordings: a user's own, mixed in.
    """

    def __init__(
        self,
        scripts: Sequence[Script],
        passes: Sequence[dict[str, CodedClip]],
        replies: dict[str, CodedClip],
        pieces: Pieces,
        config: LMConfig,
        recordings: Recordings | None = None,
    ) -> None:
        self.recordings = recordings
        self.passes, self.replies, self.pieces = passes, replies, pieces
        self.config, self.num_codebooks = config, config.num_codebooks
        # Where scripts are plain, the model may be an older one, with no pieces for anything else.
        self.is_plain = all(turn.skill in SKILLS for script in scripts for turn in script.turns)
        self.texts = [s for s in scripts if self._is_seen(s)]
        self.scripts = [s for s in self.texts if self._is_heard(s)]
        # As often as they are said: what is taken for heard is mostly a common word.
        self.words = [w for script in scripts for turn in script.turns for w in turn.user.split()]
        weights = np.array([_weight(s) for s in self.scripts])
        self.chances = weights / weights.sum()

    def _is_heard(self, script: Script) -> bool:
        keys = (user_key(script, i) for i, turn in enumerate(script.turns) if turn.user)
        return all(key in self.passes[0] for key in keys)

    def _is_seen(self, script: Script) -> bool:
        return self.config.picture_size > 0 or all(
            turn.skill != pictures.SKILL for turn in script.turns
        )

    def draw(self, generator: torch.Generator) -> Batch:
        """Return one batch of about `STEPS_PER_BATCH` steps."""
        rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
        # 400 dialogues are drawn, sorted by length, and one of them is chosen at random. Its
        # neighbours join it as long as the longest times their number stays within the budget. So
        # every length has its turn, and little is padding.
        pool = [
            self._talk(self.scripts[i], rng)
            for i in rng.choice(len(self.scripts), size=POOL, p=self.chances)
        ]
        pool.sort(key=lambda talk: talk.length)
        start = int(rng.integers(POOL))
        budget = int(STEPS_PER_BATCH * (1 - TEXT_DIALOGUE_SHARE))
        chosen = [pool[start]]
        # Neighbours in length share a batch; the longest sets the padding.
        # A worked example: the chosen one has 300 steps and the budget is 3,168. Ten of 300 would
        # be 3,000. Downwards the longest stays at 300; the search goes on upwards only when all
        # shorter ones are in.
        for at in [*range(start - 1, -1, -1), *range(start + 1, POOL)]:
            longest = max(chosen[0].length, pool[at].length)
            if longest * (len(chosen) + 1) > budget:
                break
            chosen.append(pool[at])
        rows = [self._row(talk, rng) for talk in chosen]
        rows += self._written(rng, max(len(r) for r in rows))
        return collate(rows, rng, self.config.codebook_size)

    def _talk(self, script: Script, rng: np.random.Generator) -> _Talk:
        if self.recordings is not None and rng.random() < self.recordings.share:
            return self._recorded(self.recordings, rng)
        return self._spoken(script, rng)

    def _recorded(self, recordings: Recordings, rng: np.random.Generator) -> _Talk:
        keys = list(recordings.texts)
        key = keys[int(rng.integers(len(keys)))]
        heard = recordings.passes[int(rng.integers(len(recordings.passes)))][key]
        turn = SpokenTurn(recordings.texts[key], recordings.replies.get(key), heard, None)
        return _Talk.of([turn], 0)

    def _spoken(self, script: Script, rng: np.random.Generator) -> _Talk:
        users = self.passes[int(rng.integers(len(self.passes)))]
        turns = []
        for i, turn in enumerate(script.turns):
            typed = rng.random() < TYPED_SHARE and not turn.spoilt
            written = rng.random() < (TYPED_WRITTEN_SHARE if typed else HEARD_WRITTEN_SHARE)
            heard = None if typed or not turn.user else users[user_key(script, i)]
            made = self._turn(script, turn, heard, is_written=written)
            if heard is not None and not turn.spoilt:
                if not self.is_plain and rng.random() < DISTRUSTED_SHARE:
                    made = self._distrusted(made, rng)
                made = replace(made, understood=self._misheard(heard.words, rng))
            turns.append(made)
            if made.is_unsure and not turn.spoilt:
                break  # what follows was about the words
        return _Talk.of(turns, script.voice, self._prompt(script))

    def _turn(
        self, script: Script, turn: Turn, heard: CodedClip | None, *, is_written: bool
    ) -> SpokenTurn:
        """Lay a turn's texts, clips and picture beside each other."""

        def said(text: str, style: Style = "plain") -> CodedClip | None:
            return None if is_written else self.replies.get(reply_key(script.voice, text, style))

        parameters = {tool.name: tool.parameters for tool in script.tools}
        calls = [
            SpokenCall(
                call_pieces(call.name, call.arguments, self.pieces.encode, parameters[call.name]),
                result_text(call.result),
                turn.first if number == 0 else "",
                said(turn.first) if number == 0 and turn.first else None,
            )
            for number, call in enumerate(turn.calls)
        ]
        is_shown = bool(turn.picture) and self.config.picture_size > 0
        scene = Scene.read(turn.picture) if is_shown else None
        return SpokenTurn(
            (("" if turn.spoilt else turn.user) if turn.user else None),
            turn.reply,
            heard,
            said(turn.reply, turn.style),
            calls=calls,
            is_unsure=bool(turn.spoilt),
            picture=None if scene is None else partial(self._patches, scene),
            num_patches=0 if scene is None else self.config.num_patches,
            is_shown_last=scene is not None and scene.is_shown_last,
        )

    def _patches(self, scene: Scene) -> NDArray[np.float32]:
        """Draw what a client shows, and see it as the model does."""
        size = self.config.picture_size
        # Clients' pictures are larger than what is seen, and are shrunk.
        shown = render(scene, size * LARGER[scene.seed % len(LARGER)])
        return to_patches(shown, size, self.config.patch_size)

    def _distrusted(self, turn: SpokenTurn, rng: np.random.Generator) -> SpokenTurn:
        """Let a turn's transcript be a wrong one that is not relied on."""
        words = rng.choice(len(self.words), size=int(rng.integers(1, 8)))
        wrong = " ".join(self.words[i] for i in words)
        return replace(turn, user=wrong, reply=unheard.REPLY, said=None, calls=(), is_unsure=True)

    def _prompt(self, script: Script) -> list[int]:
        room = self.config.prefix_steps - 2
        encode = self.pieces.encode
        return prompt_pieces(script.instructions, script.tools, encode, room)[0]

    def _misheard(self, words: Words, rng: np.random.Generator) -> Words | None:
        """Return what may be taken for `words`; None if they are understood."""
        if rng.random() >= MISHEARD_SHARE:
            return None
        share = rng.uniform(*MISHEARD_WORDS)
        understood = []
        for word, start_s, end_s in words:
            taken = word
            # A worked example, "what is two plus three" with a share of 0.3: two of the five words
            # are changed. One is missed, one is replaced, and what is fed is "what is do three".
            # The target stays the right words.
            if rng.random() < share:
                other, way = self.words[int(rng.integers(len(self.words)))], rng.random()
                if way < MISSED_WORDS_SHARE:
                    taken = ""
                else:
                    is_added = way < MISSED_WORDS_SHARE + ADDED_WORDS_SHARE
                    taken = f"{word} {other}" if is_added else other
            understood.append((taken, start_s, end_s))
        return tuple(understood)

    def _row(self, talk: _Talk, rng: np.random.Generator) -> Rows:
        jumps = np.where(
            rng.random(len(talk.turns)) < JUMP_SHARE,
            rng.integers(0, LONGEST_JUMP, len(talk.turns)),
            0,
        )
        return lay_out(
            talk.turns, talk.voice, self.pieces, self.num_codebooks, jumps.tolist(), talk.prompt
        )

    def _written(self, rng: np.random.Generator, longest: int) -> list[Rows]:
        """Fill rows with dialogues in writing only, as many one after the other as fit."""
        made = []
        # Rows in writing are filled up to the length of the spoken ones, with several short
        # dialogues one after the other. As they cost the same as padding would, they are free.
        for _ in range(max(1, int(STEPS_PER_BATCH * TEXT_DIALOGUE_SHARE) // longest)):
            script = self._text(rng)
            turns = self._typed(script)
            used = _Talk.of(turns, 0, self._prompt(script)).length
            # What a prompt says would go on to hold: such a conversation stands alone.
            # 60 steps are left over: a short question with its answer would hardly fit, and a
            # longer row would cost all others padding.
            while used < longest - 60 and not (script.instructions or script.tools):
                other = self.texts[int(rng.integers(len(self.texts)))]
                if not (other.instructions or other.tools):
                    # Only a conversation's first turn is taken, and only of skills that do not look
                    # back: after another dialogue its later turns would mean something else.
                    more = [
                        t for t in self._typed(other)[:1] if other.turns[0].skill in _AT_ANY_TIME
                    ]
                    turns += more
                    used += _Talk.of(more, 0).length
                used += 1
            made.append(
                lay_out(
                    turns,
                    script.voice,
                    self.pieces,
                    self.num_codebooks,
                    [0] * len(turns),
                    self._prompt(script),
                )
            )
        return made

    def _text(self, rng: np.random.Generator) -> Script:
        """Draw a conversation to be written: one of the scripts, or a new one."""
        if not self.is_plain and rng.random() < NEW_TEXT_SHARE:
            number = int(rng.integers(1 << 62))
            talk = sample_conversation(Random(number), "train")
            voice = int(rng.integers(NUM_VOICES))
            script = Script(number, talk.turns, voice, talk.instructions, talk.tools)
            if self._is_seen(script):
                return script
        return self.texts[int(rng.integers(len(self.texts)))]

    def _typed(self, script: Script) -> list[SpokenTurn]:
        """Lay out a conversation's turns in writing; what was not understood is left out."""
        return [
            self._turn(script, turn, None, is_written=True)
            for turn in script.turns
            if not turn.spoilt
        ]


# Skills whose replies do not depend on what was said before.
_AT_ANY_TIME = frozenset(SKILLS) - {"memory"}


def _weight(script: Script) -> float:
    is_free = any(turn.skill in FREE_WORDS_SKILLS for turn in script.turns)
    return FREE_WORDS_WEIGHT if is_free else 1.0


def collate(rows: Sequence[Rows], rng: np.random.Generator, codebook_size: int) -> Batch:
    """Pad dialogues to one length and roughen the codes that are fed."""
    books = rows[0].num_codebooks
    length = max(len(r) for r in rows)
    shape = (len(rows), length)
    text, kind, position = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    target = np.full(shape, NO_TARGET, dtype=np.int64)
    weight = np.zeros(shape, dtype=np.float32)
    ends = np.full(shape, -1, dtype=np.int64)
    user, assistant, codes = (np.full((*shape, books), -1, dtype=np.int64) for _ in range(3))
    for b, row in enumerate(rows):
        n = len(row)
        text[b, :n], kind[b, :n] = row.text, row.kind
        target[b, :n], weight[b, :n], ends[b, :n] = row.target, row.weight, row.ends
        # A worked example: rows of three and two steps with a jump of 100 before the second turn
        # have the positions 0, 1, 2, 103, 104.
        position[b, :n] = np.arange(n) + np.cumsum(row.jumps)
        for table, column in ((user, row.user), (assistant, row.assistant), (codes, row.codes)):
            where = [i for i, c in enumerate(column) if c is not None]
            if where:
                table[b, where] = np.stack([c for c in column if c is not None])
    _drop_acoustics(user, rng)
    # 5 % of the codes that the model is fed as its own are wrong. It has learned to go on from
    # those when it makes one itself. The targets stay right.
    # Source of the idea: Bengio et al. 2015, "Scheduled sampling for sequence prediction with
    # recurrent neural networks", section 2, in its simplest form.
    wrong = (rng.random(assistant.shape) < FED_BACK_NOISE) & (assistant >= 0)
    assistant[wrong] = rng.integers(0, codebook_size, int(wrong.sum()))
    steps = Steps(*(torch.from_numpy(a) for a in (text, user, assistant, kind, position)))
    shown = [picture for row in rows for picture in row.pictures]
    return Batch(
        steps,
        torch.from_numpy(target),
        torch.from_numpy(weight),
        torch.from_numpy(codes),
        torch.from_numpy(ends),
        torch.from_numpy(np.stack(shown)) if shown else None,
    )


def _drop_acoustics(user: np.ndarray, rng: np.random.Generator) -> None:
    """Hide fine detail of some users, so that the words are read from what voices share."""
    for row in user:
        chance = rng.random()
        if chance < 0.15:
            # Three in twenty users are heard by their semantic codes alone, six in twenty without
            # the finest four.
            row[:, 1:] = -1
        elif chance < 0.45:
            row[:, 4:] = -1


class LMObjective(nn.Module):
    """Cross-entropy of the text head and, on a share of the frames, of the depth transformer."""

    codebook_weights: Tensor

    def __init__(self, lm: LM) -> None:
        super().__init__()
        self.lm = lm
        self.register_buffer("codebook_weights", torch.tensor(CODEBOOK_WEIGHTS), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and the figures to log."""
        with torch.autocast(batch.target.device.type, torch.bfloat16):
            hidden = self.lm(batch.steps, batch.pictures)
            # Only steps with a target go through the text head: it has a row for each piece, and
            # many steps have no target.
            asked = batch.target != NO_TARGET
            target, weight = batch.target[asked], batch.weight[asked]
            logits = self.lm.text_logits(hidden[asked]).float()
            each = functional.cross_entropy(logits, target, reduction="none")
            text_loss = (each * weight).sum() / weight.sum()
            speaking = (batch.codes >= 0).any(-1)
            # Frames of one reply are much alike. A share of them, drawn anew at every step, costs
            # less, and in the long run all of them have been learned from.
            picked = speaking & (torch.rand(speaking.shape, generator=generator) < DEPTH_SHARE).to(
                speaking.device
            )
            codes = batch.codes[picked]
            spoken = self.lm.depth(hidden[picked], batch.target[picked].clamp_min(0), codes).float()
            audio_each = functional.cross_entropy(
                spoken.flatten(0, 1), codes.flatten(), ignore_index=-1, reduction="none"
            )
            audio_each = torch.unflatten(audio_each, 0, codes.shape)
            # A frame at the beginning has no acoustic codes and one at the end no semantic one:
            # what is absent counts nothing.
            present = (codes >= 0).float() * self.codebook_weights
            audio_loss = (audio_each * present).sum() / present.sum().clamp_min(1.0)
        loss = text_loss + AUDIO_WEIGHT * audio_loss
        figures = {"text": text_loss.item(), "audio": audio_loss.item()}
        heard = batch.ends >= 0
        if self.lm.config.has_end_head and heard.any():
            sure = self.lm.end_logits(hidden[heard]).float()
            end_loss = functional.binary_cross_entropy_with_logits(sure, batch.ends[heard].float())
            loss = loss + END_WEIGHT * end_loss
            figures["end"] = end_loss.item()
        with torch.no_grad():
            right = logits.argmax(-1) == target
            kinds = batch.steps.kind[asked]
            reply = (kinds == Kind.TEXT) & (weight == 1.0)
            live = (kinds == Kind.LISTEN) & (target != 0)
            semantic = (spoken[:, 0].argmax(-1) == codes[:, 0])[codes[:, 0] >= 0]
        return loss, {
            **figures,
            "burst": _mean(right[reply]),
            "live": _mean(right[live]),
            "semantic": _mean(semantic),
        }


def _mean(hits: Tensor) -> float:
    return hits.float().mean().item() if len(hits) else 0.0


def make_optimizers(lm: LM, rate: float = 1.0) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for the rest, at `rate` times their full rates.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    # Muon makes each step of a matrix orthogonal: all its directions move by the same amount, not
    # only the few that the gradient prefers. That is for matrices between hidden layers.
    # Embeddings, heads and norms have rows of their own meaning, and stay with AdamW.
    hidden = [p for name, p in lm.named_parameters() if "layers." in name and p.ndim == 2]
    chosen = {id(p) for p in hidden}
    rest = [p for p in lm.parameters() if id(p) not in chosen]
    return [
        Muon(
            hidden, lr=9e-3 * rate, momentum=0.95, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=3e-3 * rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True),
    ]


def new_lm(config: LMConfig, vectors: Tensor, seed: int) -> LM:
    """Return a language model with random weights and the codec's `vectors`."""
    torch.manual_seed(seed)
    lm = LM(config)
    lm.set_codebook_vectors(vectors)
    return lm


def train_lm(
    sampler: DialogueSampler,
    lm: LM,
    directory: Path,
    *,
    num_steps: int,
    seed: int,
    device: torch.device,
    rate: float = 1.0,
) -> LM:
    """Train `lm`; every worker draws its own batches. Resumes from `directory`."""
    objective = LMObjective(lm).to(device)
    trainer = Trainer("lm", directory, objective, make_optimizers(lm, rate), num_steps, AVERAGING)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        # Worker w of n draws as for step s * n + w, so no two workers ever have the same batch.
        generator = step_generator(seed, step * world_size() + rank())
        answer: tuple[Tensor, dict[str, float]] = objective(
            sampler.draw(generator).to(device), generator
        )
        return answer

    trainer.run(loss_of)
    return lm.eval()
