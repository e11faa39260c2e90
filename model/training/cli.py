"""`parley train`: the whole recipe, stage by stage.

It starts from no data at all and ends with a directory that serves.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import yaml
from torch.multiprocessing.spawn import spawn

from model.assemble.weights import load_starter, save_starter
from model.codec.mel import MelCodec
from model.errors import ConfigError
from model.text import Tokenizer
from model.training.adversary_stage import train_adversary
from model.training.codec_stage import train_codec
from model.training.encode_stage import CodedClip, encode_store
from model.training.lm_stage import DialogueSampler, Recordings, new_lm, train_lm
from model.training.loop import averaged
from model.training.memory import keep_freed_memory
from model.training.parallel import join, leave
from model.training.plots import plot_losses, plot_spectrograms
from model.training.recipe import Recipe
from model.training.recordings import read_recordings
from model.training.skills import corpus
from model.training.snap import snap_encoder
from model.training.speech.packages import fetch_voices
from model.training.speech.types import SynthesisError
from model.training.store import Clip, read_store
from model.training.synthesis import (
    ASSISTANT_NAMES,
    FOREIGN,
    Script,
    read_scripts,
    speak_all,
    user_key,
    write_scripts,
)
from model.training.vocoder_stage import train_vocoder
from model.training.voice_cli import voice_main
from model.transformer.lm import LM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CORPUS_LINES = 40_000

_DESCRIPTION = """\
Make the starter's speech data and train it. Every stage resumes where it was stopped and is
skipped when it is done. On two CPU cores the shipped starter took about four and a half hours.

stages:
  voices    fetch Kokoro's voices (180 MB, once, checked by hash); without them only the older ones
  speech    write the dialogues and speak them with flite, espeak-ng and festival
  codec     train the tokenizer
  vocoder   train what makes its codes audible
  adversary train that further, against critics who tell speech from it
  codes     turn the speech into codes
  lm        train the language model
  export    write the weights that `parley serve` loads

examples:
  parley train --dir runs/starter
  parley train --dir runs/starter --stage lm --set lm_steps=8000
  parley train --dir runs/mine --recordings ~/my-voice     (wav files and a transcripts.tsv)
  parley train --dir runs/mine --recordings ~/my-voice --from model/starter \\
    --set dialogues=4000 --set lm_steps=500 --set lm_rate=0.3     (the shipped starter, further)
  parley train voice nova --speaker 'af_bella*0.6+bm_daniel*0.4' --from runs/starter/export \
    --dir runs/nova     (one more voice for weights that are there; parley train voice --help)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One training: the folder of its files, and its recipe."""

    directory: Path
    recipe: Recipe
    device: str
    workers: int
    recordings: Path | None
    start: Path | None

    @property
    def scripts(self) -> Path:
        """File of the dialogues' texts."""
        return self.directory / "scripts.jsonl"

    @property
    def tokenizer(self) -> Path:
        """File of the text pieces."""
        return self.directory / "tokenizer.model"

    def clips(self, kind: str) -> list[Clip]:
        """Read the spoken clips of ``users`` or ``replies``."""
        found = read_store(self.directory / "speech" / kind)
        if not found:
            msg = (
                f"{self.directory / 'speech' / kind}: no speech there; run the stage 'speech' first"
            )
            raise ConfigError(msg)
        return found


def main(argv: Sequence[str]) -> None:
    """Run the training command line; raises `ParleyError` for what the user can mend."""
    if argv[:1] == ["voice"]:
        voice_main(argv[1:])
        return
    args = _parser().parse_args(argv)
    recipe = load_recipe(args.config, args.set)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    workers = args.workers or max(1, multiprocessing.cpu_count())
    args.dir.mkdir(parents=True, exist_ok=True)
    if args.start is not None:
        recipe = begin_with(args.start, args.dir, recipe)
    run = Run(args.dir, recipe, device, workers, args.recordings, args.start)
    (args.dir / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict(), sort_keys=False))
    # Whoever goes on from weights keeps their tokenizer: other codes would mean nothing to the
    # language model.
    keep_freed_memory()
    stages = [name for name in STAGES if args.start is None or name not in _GIVEN_BY_START]
    for stage in stages if args.stage == "all" else [args.stage]:
        STAGES[stage](run)


def load_recipe(path: Path | None, overrides: Sequence[str]) -> Recipe:
    """Read a recipe file and apply ``a.b=c`` overrides; raises `ConfigError`."""
    values = {} if path is None else yaml.safe_load(path.read_text()) or {}
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            msg = f"--set {override}: expected KEY=VALUE"
            raise ConfigError(msg)
        # `lm.num_layers=4` goes into the mapping "lm", which is made if it is not there. YAML reads
        # the value, so 4 is a number and [0, 1] a list.
        *parents, leaf = key.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = yaml.safe_load(value)
    return Recipe.from_dict(values)


def begin_with(start: Path, directory: Path, recipe: Recipe) -> Recipe:
    """Take text pieces, tokenizer and vocoder from weights that are there.

    Args:
        start: folder as `export` writes it, such as `model/starter`.
        directory: of the run; its files of these names are replaced.
        recipe: what was asked for.

    Returns:
        The recipe with the sizes of those weights; with plain dialogues alone, if they have no
        pieces for more.

    Raises:
        WeightsError: a file is missing or broken.
    """
    starter = load_starter(start)
    starter.tokenizer.save(directory / "tokenizer.model")
    for name in ("codec-snapped.pt", "codec-final.pt"):
        torch.save(starter.codec.state_dict(), directory / name)
    # Weights that were never taught functions have no pieces for them. All dialogues are then plain
    # questions and answers.
    plain = 0 if starter.tokenizer.is_taught_prompts else recipe.dialogues
    return replace(
        recipe,
        codec=starter.codec.config,
        lm=starter.lm.config,
        plain_dialogues=max(plain, recipe.plain_dialogues),
    )


def get_voices(run: Run) -> None:
    """Fetch the neural voices, or say that the recipe goes on without them."""
    del run  # they are for all runs
    try:
        fetch_voices()
    except SynthesisError as error:
        print(f"without Kokoro's voices: {error}")


def make_speech(run: Run) -> None:
    """Write and speak the dialogues; train the text pieces."""
    scripts = (
        read_scripts(run.scripts)
        if run.scripts.exists()
        else write_scripts(
            run.scripts, run.recipe.dialogues, run.recipe.seed, run.recipe.plain_dialogues
        )
    )
    speak_all(scripts, run.directory / "speech", seed=run.recipe.seed, workers=run.workers)
    if not run.tokenizer.exists():
        Tokenizer.train(corpus(CORPUS_LINES, run.recipe.seed), run.recipe.text_pieces).save(
            run.tokenizer
        )


def make_codec(run: Run) -> None:
    """Train the tokenizer."""
    # What is spoken in another language has the labels of no phone.
    codec = train_codec(
        [clip for clip in run.clips("users") if not clip.voice.startswith(FOREIGN)],
        run.clips("replies"),
        run.directory,
        num_steps=run.recipe.codec_steps,
        seed=run.recipe.seed,
        config=run.recipe.codec,
        device=torch.device(run.device),
    )
    snap_encoder(codec)
    torch.save(codec.cpu().state_dict(), run.directory / "codec-snapped.pt")
    plot_losses(run.directory / "codec.jsonl")


def make_vocoder(run: Run) -> None:
    """Train the vocoder on the frozen tokenizer."""
    replies = run.clips("replies")
    codec = train_vocoder(
        _codec(run, "codec-snapped.pt"),
        run.clips("users"),
        replies,
        run.directory,
        num_steps=run.recipe.vocoder_steps,
        seed=run.recipe.seed,
        device=torch.device(run.device),
    ).cpu()
    torch.save(codec.state_dict(), run.directory / "codec-vocoder.pt")
    plot_losses(run.directory / "vocoder.jsonl")


def make_adversary(run: Run) -> None:
    """Train the vocoder against critics."""
    replies = run.clips("replies")
    codec = train_adversary(
        _codec(run, "codec-vocoder.pt"),
        run.clips("users"),
        replies,
        run.directory,
        num_steps=run.recipe.adversary_steps,
        seed=run.recipe.seed,
        device=torch.device(run.device),
    ).cpu()
    torch.save(codec.state_dict(), run.directory / "codec-final.pt")
    plot_losses(run.directory / "adversary.jsonl")
    plot_spectrograms(
        codec, replies[:: max(1, len(replies) // 4)][:4], run.directory / "spectrograms.png"
    )


def make_codes(run: Run) -> None:
    """Encode all speech; on CPUs with one process a core."""
    workers = run.workers if run.device == "cpu" else 1
    if workers == 1:
        _encode_worker(0, 1, run)
    else:
        spawn(  # type: ignore[no-untyped-call]  # torch gives it no types
            _encode_worker, (workers, run), nprocs=workers
        )


def make_lm(run: Run) -> None:
    """Train the language model; on CPUs with one process a core."""
    # Small matrices do not fill several cores. So each core has a process of its own, and they
    # exchange gradients: see `model.training.parallel`.
    workers = run.workers if run.device == "cpu" else 1
    with tempfile.TemporaryDirectory() as scratch:
        meeting = Path(scratch) / "meeting"
        if workers == 1:
            _train_lm_worker(0, 1, meeting, run)
        else:
            spawn(  # type: ignore[no-untyped-call]  # torch gives it no types
                _train_lm_worker, (workers, meeting, run), nprocs=workers
            )
    plot_losses(run.directory / "lm.jsonl")


def export(run: Run) -> None:
    """Write ``export/`` (NF4) and ``export-fp16/``, the same model unquantised, to compare."""
    tokenizer = Tokenizer.load(run.tokenizer)
    lm = LM(replace(run.recipe.lm, text_vocab=len(tokenizer)))
    state = averaged(run.directory / "lm.pt")
    lm.load_state_dict({k.removeprefix("lm."): v for k, v in state.items() if k.startswith("lm.")})
    codec = _codec(run, "codec-final.pt")
    for name, quantised in (("export", True), ("export-fp16", False)):
        save_starter(
            run.directory / name,
            lm=lm.eval(),
            codec=codec,
            tokenizer=tokenizer,
            voices=ASSISTANT_NAMES,
            quantised=quantised,
        )


# Which stage writes a file of the tokenizer and vocoder.
_MADE_BY = {
    "codec-snapped.pt": "codec",
    "codec-vocoder.pt": "vocoder",
    "codec-final.pt": "adversary",
}
_GIVEN_BY_START = ("codec", "vocoder", "adversary")

STAGES: dict[str, Callable[[Run], None]] = {
    "voices": get_voices,
    "speech": make_speech,
    "codec": make_codec,
    "vocoder": make_vocoder,
    "adversary": make_adversary,
    "codes": make_codes,
    "lm": make_lm,
    "export": export,
}


def _train_lm_worker(worker: int, num_workers: int, meeting: Path, run: Run) -> None:
    if run.device == "cpu":
        join(worker, num_workers, meeting)
    tokenizer = Tokenizer.load(run.tokenizer)
    passes, replies, recordings = _codes(run)
    codec = _codec(run, "codec-snapped.pt")
    scripts: list[Script] = read_scripts(run.scripts)
    if run.start is None:
        sizes = replace(run.recipe.lm, text_vocab=len(tokenizer))
        lm = new_lm(sizes, codec.codebook_vectors(), run.recipe.seed)
    else:
        lm = load_starter(run.start).lm.requires_grad_()
    sampler = DialogueSampler(scripts, passes, replies, tokenizer, lm.config, recordings)
    train_lm(
        sampler,
        lm,
        run.directory,
        num_steps=run.recipe.lm_steps,
        seed=run.recipe.seed,
        device=torch.device(run.device),
        rate=run.recipe.lm_rate,
    )
    leave()


def _encode_worker(worker: int, num_workers: int, run: Run) -> None:
    """Write every `num_workers`-th file of codes that is missing."""
    if num_workers > 1:
        torch.set_num_threads(1)
        keep_freed_memory()
    made = _Encoding.of(run)
    for encode in [*made.users, made.replies, *made.recordings][worker::num_workers]:
        encode()


@dataclass(frozen=True, slots=True)
class _Encoding:
    """What is to be encoded: each makes a file of codes, or reads it if it is there."""

    users: list[Callable[[], dict[str, CodedClip]]]
    replies: Callable[[], dict[str, CodedClip]]
    recordings: list[Callable[[], dict[str, CodedClip]]]
    texts: dict[str, str]  # of the recordings
    answers: dict[str, str]

    @classmethod
    def of(cls, run: Run) -> _Encoding:
        codec = _codec(run, "codec-snapped.pt").to(run.device)
        directory, seed = run.directory / "codes", run.recipe.seed
        users, replies = run.clips("users"), run.clips("replies")
        spoilt = {
            user_key(script, i): turn.spoilt
            for script in read_scripts(run.scripts)
            for i, turn in enumerate(script.turns)
            if turn.spoilt
        }
        clips, answers = ([], {}) if run.recordings is None else read_recordings(run.recordings)
        encode = partial(encode_store, codec)
        return cls(
            [
                partial(
                    encode,
                    users,
                    directory / f"users-{i}.npz",
                    seed=seed + i,
                    is_user=True,
                    spoilt=spoilt,
                )
                for i in range(run.recipe.passes)
            ],
            partial(encode, replies, directory / "replies.npz", seed=seed, is_user=False),
            # Recordings are few, so each is heard four times as often through other rooms and
            # microphones.
            [
                partial(
                    encode, clips, directory / f"recordings-{i}.npz", seed=seed + i, is_user=True
                )
                for i in range(4 * run.recipe.passes if clips else 0)
            ],
            {clip.key: clip.text for clip in clips},
            answers,
        )


def _codes(run: Run) -> tuple[list[dict[str, CodedClip]], dict[str, CodedClip], Recordings | None]:
    """Return the coded passes of the users, the coded replies and the user's own recordings."""
    made = _Encoding.of(run)
    passes, replies = [encode() for encode in made.users], made.replies()
    if run.recordings is None:
        return passes, replies, None
    heard = [encode() for encode in made.recordings]
    return passes, replies, Recordings(made.texts, made.answers, heard, run.recipe.recordings_share)


def _codec(run: Run, name: str) -> MelCodec:
    codec = MelCodec(run.recipe.codec)
    path = run.directory / name
    try:
        codec.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except FileNotFoundError as error:
        msg = f"{path}: missing; run the stage {_MADE_BY[name]!r} first"
        raise ConfigError(msg) from error
    return codec.eval()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="parley train",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir", type=Path, default=Path("runs/starter"), help="where all files go (runs/starter)"
    )
    parser.add_argument(
        "--config", type=Path, help="recipe file (YAML); without one, the shipped starter's recipe"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of the recipe",
    )
    parser.add_argument(
        "--stage", choices=["all", *STAGES], default="all", help="run one stage only"
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="DIR",
        help="go on from exported weights, such as model/starter: only the language model learns",
    )
    parser.add_argument("--workers", type=int, default=0, help="processes (one a core)")
    parser.add_argument(
        "--recordings",
        type=Path,
        metavar="DIR",
        help="your own recordings, mixed into the training",
    )
    return parser
