"""What is different on purpose: a rule for every decision, with its reason.

A rule knows no trace and no step. The model carries out every operation twice: once without a
rule, as the kernel's allocator did, and once with all of them, as this one does. Where the two
part, the model asks for a rule, and it stands there what the rule changes. Whatever follows from
it later is predicted from the state that it left.

To decide one thing more is a `Rule` here and a branch in the model, where it asks `decided`.
"""

from typing import Final

from attrs import frozen


@frozen
class Rule:
    """A decision: a label for tables, the reason in a sentence, and where docs/ explains it.

    `only` names the one thing that it makes a difference to, if there is but one.
    """

    label: str
    text: str
    section: str
    only: str | None = None


DIFFERENCES: Final = "explanation.md#what-differs-from-the-kernel-series"
QUARANTINES: Final = "explanation.md#quarantine"
CAPACITY: Final = "oddities.md#capacity-and-quotas"
SETS: Final = "oddities.md#sets"
NOTIFICATIONS: Final = "oddities.md#notifications"

EXACT_ERRNO: Final = Rule(
    "errno named exactly",
    "refused by both; the errno says which of several reasons it was",
    "reference/errors.md",
    only="answer",
)

# -- capacity and quotas ------------------------------------------------------------------------

QUOTA_RETURNS: Final = Rule(
    "quota comes back",
    "a set that goes gives its quota back; the kernel lost it",
    CAPACITY,
)
ALL_OF_NOTHING: Final = Rule(
    "all of nothing is ENOSPC",
    "taking all that is available is refused when that is nothing",
    CAPACITY,
)
CAPACITY_STANDS: Final = Rule(
    "capacity stands once used",
    "it may be set until something is taken from it; the kernel's could be set once, at any time",
    CAPACITY,
)
ONLY_RESERVED: Final = Rule(
    "only what is reserved comes back",
    "giving back nothing, or more than is reserved, is refused; the kernel gave out quotas of sets",
    CAPACITY,
)
EXACT_AMOUNTS: Final = Rule(
    "amounts count exactly",
    "amounts above 2^31 are what they say; the kernel's answers turned negative",
    CAPACITY,
)
BOUNDED_IDS: Final = Rule(
    "IDs are below the capacity",
    "a range that reaches the capacity is refused; the kernel's capacity was a count only",
    CAPACITY,
)
SENSE_FIRST: Final = Rule(
    "arguments come first",
    "a request that makes no sense is EINVAL, whatever capacity is left",
    "reference/messages.md#allocset",
    only="answer",
)
SET_NUMBERS: Final = Rule(
    "numbers for all sets",
    "a set is made while capacity is left; the kernel's numbers ended at what was available",
    CAPACITY,
)

NEW_NUMBERS: Final = Rule(
    "a number is used once",
    "a set gets a number that no set had before it; the kernel gave the lowest that was free",
    SETS,
)

# -- sets ---------------------------------------------------------------------------------------

DESTROY_FREES: Final = Rule(
    "destroying frees the IDs",
    "a set that is destroyed frees its IDs; the kernel answered EBUSY and waited for others to",
    "reference/messages.md#freeset",
)
NO_NEW_IDS: Final = Rule(
    "no new IDs in a set that goes",
    "a set that is being freed takes no allocation; the kernel's did, and then never went",
    SETS,
)
FREED_ARE_FOUND: Final = Rule(
    "freed IDs stay in their set",
    "an ID of a freed set is found until it is reclaimed; the kernel's had left its set",
    SETS,
)
ANY_SET: Final = Rule(
    "free in any set",
    "no set named means any set, for free too; the kernel did nothing then, and said nothing",
    SETS,
)
GONE_IS_GONE: Final = Rule(
    "a set that is gone is unknown",
    "nobody subscribes to a set that is gone; the kernel followed the stale pointer",
    SETS,
)

# -- life cycle ---------------------------------------------------------------------------------

QUARANTINE: Final = Rule(
    "nothing new in quarantine",
    "an ID that was freed takes no bind, data or reference: only put and find are left",
    QUARANTINES,
)
FREE_TO_ALL: Final = Rule(
    "FREE reaches everybody",
    "FREE goes out whether or not a reference is left, and the ID waits for all to acknowledge it",
    QUARANTINES,
)
FREE_HOLDS: Final = Rule(
    "no reclaim while FREE is out",
    "all are told FREE before the ID is reclaimed; in the kernel one callback could end its life",
    NOTIFICATIONS,
)
FREE_ENDS_BINDING: Final = Rule(
    "FREE ends the binding",
    "subscribers let go at FREE; an unbind after it is silent",
    "reference/messages.md#detachspid",
)
BOUND_ONCE: Final = Rule(
    "bound once",
    "a bound ID is unbound before it is bound again; the kernel replaced its spid",
    "oddities.md#spids",
)
NO_INVALID_SPID: Final = Rule(
    "2^32-1 is no spid",
    "IDs that are not bound have no spid; the kernel found them all by the invalid one",
    "oddities.md#spids",
)
OWN_REFERENCES: Final = Rule(
    "everybody puts their own",
    "a put needs a reference that the caller took; the kernel dropped anybody's",
    "explanation.md#references-have-holders",
)

# -- subscribers --------------------------------------------------------------------------------

ONE_ORDER: Final = Rule(
    "one order of priorities",
    "CPU, DEVICE, IOMMU, LAST, whoever subscribes to what; the kernel called system-wide ones "
    "first, and its code had IOMMU before DEVICE",
    "explanation.md#tiers",
    only="order",
)
NOBODY_STOPS: Final = Rule(
    "nobody stops the others",
    "every subscriber is told; in the kernel a callback could end the chain",
    NOTIFICATIONS,
)
PUT_ANYWHERE: Final = Rule(
    "a put works anywhere",
    "a reference is put while an event is handled; in the kernel that waited for its own lock",
    "oddities.md#references",
)
SET_STAYS: Final = Rule(
    "unsubscribing leaves the set",
    "an empty set stays when somebody unsubscribes from it; the kernel destroyed it",
    SETS,
)
GRANT_ENDS: Final = Rule(
    "grants end with the subscription",
    "who unsubscribes keeps nothing that was granted; in the kernel nobody would put it",
    "explanation.md#holding",
)
ONE_EACH: Final = Rule(
    "a subscription for each scope",
    "scopes don't touch each other; the kernel chained one notifier block everywhere",
    NOTIFICATIONS,
)
ONCE_PER_SCOPE: Final = Rule(
    "subscribed once",
    "subscribing twice to the same is refused; the kernel warned and reported success",
    NOTIFICATIONS,
)
TOKEN_ANY_TIME: Final = Rule(
    "a token at any time",
    "a token may be subscribed to when its set has IDs; the kernel refused that",
    NOTIFICATIONS,
)

RULES: Final = tuple(rule for rule in globals().values() if isinstance(rule, Rule))
