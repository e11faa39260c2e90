"""Capitals of about sixty well-known countries."""

from __future__ import annotations

from model.training.skills.phrasing import Fact, Family, make_cores

SKILL = "capitals"

CAPITALS = {
    "france": "paris",
    "germany": "berlin",
    "spain": "madrid",
    "italy": "rome",
    "portugal": "lisbon",
    "england": "london",
    "scotland": "edinburgh",
    "wales": "cardiff",
    "ireland": "dublin",
    "belgium": "brussels",
    "the netherlands": "amsterdam",
    "denmark": "copenhagen",
    "norway": "oslo",
    "sweden": "stockholm",
    "finland": "helsinki",
    "iceland": "reykjavik",
    "poland": "warsaw",
    "austria": "vienna",
    "hungary": "budapest",
    "romania": "bucharest",
    "bulgaria": "sofia",
    "greece": "athens",
    "croatia": "zagreb",
    "serbia": "belgrade",
    "ukraine": "kiev",
    "russia": "moscow",
    "turkey": "ankara",
    "switzerland": "bern",
    "latvia": "riga",
    "lithuania": "vilnius",
    "estonia": "tallinn",
    "malta": "valletta",
    "cyprus": "nicosia",
    "the united states": "washington",
    "canada": "ottawa",
    "mexico": "mexico city",
    "cuba": "havana",
    "brazil": "brasilia",
    "argentina": "buenos aires",
    "chile": "santiago",
    "peru": "lima",
    "colombia": "bogota",
    "venezuela": "caracas",
    "uruguay": "montevideo",
    "china": "beijing",
    "japan": "tokyo",
    "south korea": "seoul",
    "india": "new delhi",
    "pakistan": "islamabad",
    "thailand": "bangkok",
    "vietnam": "hanoi",
    "indonesia": "jakarta",
    "the philippines": "manila",
    "nepal": "kathmandu",
    "afghanistan": "kabul",
    "iran": "tehran",
    "iraq": "baghdad",
    "syria": "damascus",
    "lebanon": "beirut",
    "jordan": "amman",
    "egypt": "cairo",
    "morocco": "rabat",
    "kenya": "nairobi",
    "nigeria": "abuja",
    "ghana": "accra",
    "ethiopia": "addis ababa",
    "australia": "canberra",
    "new zealand": "wellington",
}

_QUESTIONS = (
    "what is the capital of {country}",
    "what's the capital of {country}",
    "what is the capital city of {country}",
    "which city is the capital of {country}",
    "what city is the capital of {country}",
    "what is the name of the capital of {country}",
    "which is the capital of {country}",
    "what do you call the capital of {country}",
    "what is the main city of {country} called",
    "what capital does {country} have",
    "what is the capital in {country}",
)
_COMMANDS = (
    "tell me the capital of {country}",
    "name the capital of {country}",
    "give me the capital of {country}",
    "say the name of the capital of {country}",
)
_FRAGMENTS = (
    "the capital of {country}",
    "the capital of {country} is",
    "the capital city of {country}",
    "capital of {country}",
)

FAMILIES = (
    Family(
        SKILL,
        (
            *make_cores(SKILL, "question", _QUESTIONS),
            *make_cores(SKILL, "command", _COMMANDS),
            *make_cores(SKILL, "fragment", _FRAGMENTS),
        ),
        tuple(
            Fact(f"the capital of {country} is {city}", {"country": country}, city)
            for country, city in CAPITALS.items()
        ),
    ),
)
