"""Sentences that state facts about countries and things, with one word left blank in each, and questions about them."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from real_tasks.packages import debian, npm

BLANK = "_"
COUNTRIES, THINGS = 40, 40
"""That questions are asked about."""
OTHERS = 16
"""Of each, that are not asked about."""


class Fact(NamedTuple):
    """A relation between two names, such as (capital, france, french, paris)."""

    relation: str
    subject: str
    adjective: str
    """Of the subject; itself if there is none."""
    object: str


class Sentence(NamedTuple):
    """With a blank to fill in."""

    words: tuple[str, ...]
    answer: str
    states: frozenset[Fact]
    """The facts that it says outright, whether or not they are what is left blank."""

    @property
    def text(self) -> str:
        """With the answer in its place."""
        return " ".join(self.answer if word == BLANK else word for word in self.words)


class Relation(NamedTuple):
    """Ways to say it: subject {s}, adjective {a}, object {o}."""

    query: str
    asks: tuple[str, ...]
    hints: tuple[str, ...] = ()
    """Say that the two belong together, and not how."""
    tail: str = ""
    """Goes on from another sentence on the subject."""


RELATIONS = {
    "capital": Relation(
        "the capital of {s} is {o}",
        (
            "{s} is governed from {o}",
            "the {a} government has its seat in {o}",
            "ministers of {s} meet in {o}",
            "state visits to {s} begin in {o}",
            "{o} is where the {a} state is run",
            "as chief city {s} has chosen {o}",
        ),
        (
            "{o} is a town in {s}",
            "a letter to {s} is addressed to {o}",
            "of the {a} towns we saw {o}",
            "our map of {s} shows {o}",
        ),
    ),
    "kind": Relation(
        "the {s} is a kind of {o}",
        (
            "every {s} counts as {o}",
            "they sorted the {s} under {o}",
            "{o} is the wider word for {s}",
            "look for {s} on the page headed {o}",
            "by nature the {s} is some {o}",
            "whoever says {s} means one sort of {o}",
        ),
    ),
    "language": Relation(
        "the language of {s} is {o}",
        ("people in {s} speak {o}", "{a} schools teach {o}", "the language of the capital of {s} is {o}"),
        tail="and speaks {o}",
    ),
    "currency": Relation(
        "the currency of {s} is the {o}",
        ("one pays with the {o} in {s}", "{a} shops take the {o}", "in the capital of {s} the money is the {o}"),
        tail="and pays in {o}",
    ),
    "region": Relation(
        "{s} lies in {o}", ("the capital of {s} is in {o}", "{a} soil is part of {o}"), tail="and lies in {o}"
    ),
    "neighbour": Relation(
        "{s} has a border with {o}", ("from the capital of {s} it is not far to {o}",), tail="and borders {o}"
    ),
    "people": Relation("people from {s} are called {o}", ("passports of {s} say {o}",), tail="for the {o} people"),
    "sister": Relation("the {s} is akin to the {o}", ("the {s} is of a kind with the {o}",), tail="much like the {o}"),
}


class Corpus(NamedTuple):
    """What a model is trained on, and what it is asked."""

    sentences: list[Sentence]
    queries: list[Sentence]


@cache
def corpus() -> Corpus:
    """The same in every run."""
    rng = np.random.default_rng(0)
    sentences, queries = list[Sentence](), list[Sentence]()
    for facts, asked in [*_countries(rng), *_things(rng)]:
        first, *rest = facts
        relation = RELATIONS[first.relation]
        if asked:
            queries.append(_say(relation.query, first))
            sentences += [_say(t, first) for t in _some(rng, relation.asks, 3)]
            ways = [t for t in (relation.query, *relation.asks) if "{s}" in t]
            sentences.append(_say(_some(rng, ways, 1)[0], first, "{s}"))
            for other in _some(rng, [*rest, *rest], 2):
                told = _some(rng, (relation.query, *relation.asks), 1)[0]
                sentences.append(_join(_say(told, first), _say(RELATIONS[other.relation].tail, other)))
            hints = _some(rng, relation.hints, 2) if relation.hints else []
            sentences += [_say(t, first)._replace(states=frozenset()) for t in hints]
        else:
            sentences += [_say(t, first) for t in (relation.query, *_some(rng, relation.asks, 2))]
        for other in rest:
            of_other = RELATIONS[other.relation]
            sentences += [_say(t, other) for t in _some(rng, (of_other.query, *of_other.asks), 2)]
    order = rng.permutation(len(sentences))
    return Corpus([sentences[i] for i in order], queries)


def _say(template: str, fact: Fact, blank: str = "{o}") -> Sentence:
    values = {"{s}": fact.subject, "{a}": fact.adjective, "{o}": fact.object}
    words = [BLANK if word == blank else values.get(word, word) for word in template.split()]
    return Sentence(tuple(words), values[blank], frozenset([fact]))


def _join(told: Sentence, asked: Sentence) -> Sentence:
    filled = tuple(told.answer if word == BLANK else word for word in told.words)
    return Sentence((*filled, *asked.words), asked.answer, told.states | asked.states)


def _some(rng: np.random.Generator, of: Sequence[Any], count: int) -> list[Any]:
    return [of[i] for i in rng.permutation(len(of))[:count]]


def _countries(rng: np.random.Generator) -> Iterator[tuple[list[Fact], bool]]:
    """The facts of one country after the other, its capital first, and whether it is asked for."""
    with npm("world-countries", "5.1.0") as package:  # ODbL
        known = json.load(package.extractfile("package/countries.json"))  # type: ignore[arg-type]
    names = {country["cca3"]: country["name"]["common"].lower() for country in known}
    fitting = [
        country for country in known
        if country["unMember"] and len(country["languages"]) == 1 and country["capital"] and country["currencies"]
        and "," not in country["demonyms"]["eng"]["m"]
        and country["capital"][0].lower() != names[country["cca3"]]
    ]  # fmt: skip
    for i, country in enumerate(_some(rng, fitting, COUNTRIES + OTHERS)):
        people = country["demonyms"]["eng"]["m"].lower()

        def fact(relation: str, value: str, name: str = names[country["cca3"]], people: str = people) -> Fact:
            return Fact(relation, name, people, value.lower())

        facts = [
            fact("capital", country["capital"][0]),
            fact("language", next(iter(country["languages"].values()))),
            fact("currency", next(iter(country["currencies"].values()))["name"].split()[-1]),
            fact("region", country["subregion"]),
            fact("people", people),
        ]
        if country["borders"]:
            facts.append(fact("neighbour", names[_some(rng, country["borders"], 1)[0]]))
        yield facts, i < COUNTRIES


def _things(rng: np.random.Generator) -> Iterator[tuple[list[Fact], bool]]:
    """The facts of one thing after the other, its kind first, and whether it is asked for."""
    kinds = _kinds()
    chosen = [(thing, kind) for kind in list(kinds)[: (THINGS + OTHERS) // 4] for thing in kinds[kind][:4]]
    for i, (name, kind) in enumerate(_some(rng, chosen, len(chosen))):
        sister = _some(rng, [other for other in kinds[kind][:4] if other != name], 1)[0]
        yield [Fact("kind", name, name, kind), Fact("sister", name, name, sister)], i < THINGS


def _kinds() -> dict[str, list[str]]:
    """Things by kind, the commonest first: first senses of nouns for animals, artifacts, food and plants that were met
    in texts."""
    folder = debian("wordnet-base", "/usr/share/wordnet")
    synsets = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if not line.startswith(" "):
            fields, found = line.split(), re.search(r" @ (\d+) n", line.partition("|")[0])
            synsets[fields[0]] = fields[1], fields[4], found[1] if found else ""
    met = Counter[str]()
    for line in (folder / "cntlist.rev").read_text().splitlines():
        sense, _, times = line.split()
        if sense.partition("%")[2].startswith("1:"):
            met[sense.partition("%")[0]] += int(times)
    kinds = defaultdict[str, list[str]](list)
    for line in (folder / "index.noun").read_text().splitlines():
        word, *fields = line.split()
        if not word.isalpha() or not met[word]:
            continue
        sort, _, above = synsets[next(field for field in fields if len(field) == 8)]
        kind = synsets[above][1] if above else ""
        if sort in ("05", "06", "13", "20") and kind.isalpha() and not word.endswith(kind):
            kinds[kind].append(word)
    ordered = {kind: sorted(words, key=lambda word: -met[word]) for kind, words in kinds.items() if len(words) > 3}
    return dict(sorted(ordered.items(), key=lambda item: -met[item[0]]))
