"""Short conversations whose last message says little without what was said before."""

from __future__ import annotations

from dataclasses import dataclass

from alignpro_lite import Message


@dataclass(frozen=True)
class Talk:
    """A conversation.

    Attributes:
        turns: What the user and the assistant said, in turns, the user first.
        last: The last message of the user.
        meant: Words of earlier turns that it refers to, in the order in which they were said.
    """

    turns: tuple[str, ...]
    last: str
    meant: tuple[str, ...]

    @property
    def history(self) -> tuple[Message, ...]:
        """The earlier turns as messages."""
        return tuple(
            Message("assistant" if place % 2 else "user", text)
            for place, text in enumerate(self.turns)
        )


TALKS = (
    Talk(
        ("Name two rivers in France.", "The Loire and the Rhône."),
        "And the second one, where does it end?",
        ("the Rhône",),
    ),
    Talk(
        ("What is 15% of 340?", "15% of 340 is 51."),
        "ok and if it is 20",
        ("15% of 340",),
    ),
    Talk(
        ("I have rye flour, salt and a sourdough starter.", "Then you can bake a rye loaf."),
        "how long in the oven",
        ("rye flour", "rye loaf"),
    ),
    Talk(
        ("Translate: The cat sleeps.", "Le chat dort.", "And in Spanish?", "El gato duerme."),
        "and the plural of it?",
        ("The cat sleeps.", "El gato duerme."),
    ),
    Talk(
        ("def area(r): return 3.14 * r * r", "It computes the area of a circle."),
        "use a constant instead",
        ("3.14", "area of a circle"),
    ),
    Talk(
        ("Who wrote Middlemarch?", "George Eliot, in 1871."),
        "was that her real name",
        ("George Eliot",),
    ),
    Talk(
        ("We are nine people and want to eat out.", "A tapas bar suits a group of nine."),
        "two of us are vegan",
        ("nine people", "tapas bar"),
    ),
    Talk(
        ("My train from Basel leaves at 7:04.", "It reaches Milan at 11:15."),
        "what if I take the next one",
        ("Basel", "Milan"),
    ),
    Talk(
        ("Give me three names for a bakery.", "Crumb, Old Oven and Golden Crust."),
        "the last one, but in Italian",
        ("Golden Crust",),
    ),
    Talk(
        ("Is a lease cheaper than a loan for a van?", "For three years, a lease usually is."),
        "and for eight?",
        ("lease", "van", "three years"),
    ),
    Talk(
        ("Wie koche ich Linsen?", "Rote Linsen brauchen zwölf Minuten."),
        "Und braune?",
        ("Linsen", "zwölf Minuten"),
    ),
    Talk(
        ("Quelle est la capitale du Pérou ?", "C'est Lima."),
        "Combien d'habitants ?",
        ("Pérou", "Lima"),
    ),
    Talk(
        ("Summarise the plot of Hamlet.", "A prince avenges his father and dies."),
        "shorter",
        ("Hamlet", "avenges his father"),
    ),
    Talk(
        ("SELECT name FROM users", "That lists all names."),
        "only the ones since 2020, and sorted",
        ("SELECT name FROM users",),
    ),
    Talk(
        ("My knee hurts when I run.", "Does it hurt on the inner side?", "yes", "Rest it a week."),
        "can I swim meanwhile",
        ("inner side", "Rest it a week"),
    ),
    Talk(
        ("Compare oak and beech for a table.", "Oak is harder wearing, beech is cheaper."),
        "I'll take the cheaper one. how do I oil it",
        ("beech is cheaper",),
    ),
    Talk(
        ("Write a subject line for a mail about the cancelled concert.", "Concert on 3 May is off"),
        "less blunt please",
        ("cancelled concert", "Concert on 3 May is off"),
    ),
    Talk(
        ("What does `git rebase` do?", "It replays commits on another base."),
        "how do I undo that",
        ("`git rebase`",),
    ),
    Talk(
        ("Which planets have rings?", "Saturn, Jupiter, Uranus and Neptune."),
        "are those of the third one visible",
        ("rings", "Uranus"),
    ),
    Talk(
        ("Remind me what a monad is.", "A way to chain computations.", "ok", "Anything else?"),
        "an example of it in Haskell",
        ("monad", "chain computations"),
    ),
)
