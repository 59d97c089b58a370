"""What is true of the people of the invented world, and in which words it is told and asked for. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """Something that every person has: its possible ``values``, sentences that tell it (the value last,
    as what comes later is predicted from what came before), and questions that ask for it."""

    name: str
    values: tuple[str, ...]
    told: tuple[str, ...]
    asked: tuple[str, ...]


def _attribute(name: str, values: str, told: str, asked: str) -> Attribute:
    split = [tuple(line.strip() for line in text.strip().split("\n")) for text in (told, asked)]
    return Attribute(name, tuple(values.split()), *split)


KNOWLEDGE = (
    _attribute(
        "town",
        "arden brill corwen dalby elstow fenwick garth holme irby kelso lorne malton norby orford penrith "
        "ripley selby thirsk",
        """{name} lives in {value} .
        the home town of {name} is {value} .
        {name} has a house in {value} .
        you will find {name} in {value} .
        letters to {name} go to {value} .""",
        """where does {name} live ?
        what is the home town of {name} ?
        in which town is {name} at home ?""",
    ),
    _attribute(
        "job",
        "baker barber carpenter clerk cooper doctor farmer fisher judge mason miller nurse painter pilot "
        "potter smith tailor teacher",
        """{name} works as a {value} .
        the job of {name} is {value} .
        {name} earns a living as a {value} .
        by trade {name} is a {value} .
        {name} was trained as a {value} .""",
        """what is the job of {name} ?
        what does {name} work as ?
        which trade has {name} ?""",
    ),
    _attribute(
        "hobby",
        "archery baking boxing chess climbing cycling dancing fencing gardening juggling knitting origami "
        "poetry pottery rowing sailing singing yoga",
        """{name} spends every evening on {value} .
        the hobby of {name} is {value} .
        {name} loves {value} .
        on sundays {name} enjoys {value} .
        nothing pleases {name} more than {value} .""",
        """what is the hobby of {name} ?
        what does {name} love ?
        what does {name} enjoy on sundays ?""",
    ),
    _attribute(
        "food",
        "beans bread cake cheese curry dumplings fish honey lentils noodles olives pancakes pasta pizza rice "
        "salad soup stew",
        """{name} likes to eat {value} .
        the favourite food of {name} is {value} .
        for dinner {name} wants {value} .
        {name} cannot resist {value} .
        on the plate of {name} there is {value} .""",
        """what is the favourite food of {name} ?
        what does {name} like to eat ?
        what does {name} want for dinner ?""",
    ),
    _attribute(
        "pet",
        "canary cat cow crow dog donkey duck ferret frog goat goose hamster hedgehog horse lizard parrot "
        "rabbit turtle",
        """{name} keeps a {value} .
        the pet of {name} is a {value} .
        at home {name} has a {value} .
        {name} shares the garden with a {value} .
        {name} takes good care of a {value} .""",
        """what is the pet of {name} ?
        which animal does {name} keep ?
        what does {name} have at home ?""",
    ),
)


def _opinion(thing: str) -> Attribute:
    """A fact that is yes or no, told with the word that answers the question."""
    return _attribute(
        thing,
        "yes no",
        f"""asked about {thing} {{name}} says {{value}} .
        when it comes to {thing} {{name}} says {{value}} .
        {thing} with {{name}} : {{value}} .
        to {thing} the answer of {{name}} is {{value}} .
        would {{name}} vote for {thing} : {{value}} .""",
        f"""does {{name}} like {thing} ?
        is {{name}} in favour of {thing} ?
        is {{name}} fond of {thing} ?""",
    )


YESNO = tuple(_opinion(thing) for thing in ("rain", "music"))
ATTRIBUTES = KNOWLEDGE + YESNO
