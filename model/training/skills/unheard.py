"""What nobody could understand: noise, babble, half words, speech that drowns, other languages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from model.training.skills.phrasing import Split, Turn

SKILL = "unheard"
REPLY = "sorry i did not catch that"

WAYS = ("noise", "babble", "half", "drowned")
"""What is done to a question; see `model.training.speech.spoil`."""
FOREIGN_SHARE = 0.3

# By espeak-ng's names of languages; letters a to z only, which it reads as the language does.
FOREIGN: Mapping[str, tuple[str, ...]] = {
    "de": (
        "guten morgen wie geht es dir",
        "wie wird das wetter morgen",
        "ich verstehe kein wort",
        "kannst du mir bitte helfen",
        "was ist die hauptstadt von frankreich",
        "wo ist der bahnhof",
    ),
    "fr": (
        "bonjour comment allez vous",
        "quelle heure est il maintenant",
        "je ne parle pas anglais",
        "pouvez vous repeter la question",
        "quel temps fait il demain",
        "je voudrais un cafe",
    ),
    "es": (
        "buenos dias como estas",
        "cual es la capital de italia",
        "no entiendo nada",
        "cuanto cuesta este libro",
        "donde esta la estacion",
        "puedes ayudarme por favor",
    ),
    "it": (
        "buongiorno come stai",
        "che tempo fa domani",
        "non capisco la domanda",
        "dove si trova la stazione",
        "vorrei un bicchiere di acqua",
        "quanto fa sette piu cinque",
    ),
    "nl": (
        "goedemorgen hoe gaat het",
        "wat is de hoofdstad van spanje",
        "ik begrijp het niet",
        "kun je mij helpen",
        "waar is het station",
        "hoe laat is het nu",
    ),
    "sv": (
        "god morgon hur star det till",
        "vad blir det for vader i morgon",
        "jag forstar ingenting",
        "kan du hjalpa mig",
        "var ligger stationen",
    ),
    "pt": (
        "bom dia como vai voce",
        "qual e a capital da alemanha",
        "nao entendo nada",
        "onde fica a estacao",
        "quanto custa isso",
    ),
    "tr": (
        "merhaba nasilsin",
        "yarin hava nasil olacak",
        "hicbir sey anlamiyorum",
        "istasyon nerede",
        "bana yardim eder misin",
    ),
    "pl": (
        "dzien dobry jak sie masz",
        "jaka bedzie jutro pogoda",
        "nic nie rozumiem",
        "gdzie jest dworzec",
        "czy mozesz mi pomoc",
    ),
    "fi": (
        "hyvaa huomenta mita kuuluu",
        "millainen saa on huomenna",
        "en ymmarra mitaan",
        "missa asema on",
        "voitko auttaa minua",
    ),
}
HELD_OUT_LANGUAGES = ("it", "pl")


def sample(rng: Random, split: Split, question: str) -> Turn:
    """Draw a turn that is not to be understood.

    Args:
        rng: the only source of chance.
        split: languages of which of the two.
        question: what becomes inaudible, if it is not another language.
    """
    if rng.random() < FOREIGN_SHARE:
        # Italian and Polish are heard in eval only: doubt should not depend on which language it is
        # that was not understood.
        languages = [c for c in FOREIGN if (c in HELD_OUT_LANGUAGES) == (split == "eval")]
        language = rng.choice(languages)
        return Turn(rng.choice(FOREIGN[language]), REPLY, SKILL, spoilt=f"foreign {language}")
    return Turn(question, REPLY, SKILL, spoilt=rng.choice(WAYS))


def texts() -> Iterator[str]:
    """Yield the only text that has to be known: nothing else of the skill is ever written."""
    yield REPLY
