"""The wordings of the demo's questions, by kind of query. `train` is used in training only, `held` in
held-out questions only. Slots in braces are filled by kinds.py; {show} is one of OPENINGS."""

from __future__ import annotations

from dataclasses import dataclass

#: Ways to begin a request: a model that always saw the same few takes another one for a part of the question.
OPENINGS = (
    "show", "list", "find", "give", "give me", "return", "print", "report", "display", "look up", "tell me", "select",
    "please show", "I need", "I want",
)  # fmt: skip


@dataclass(frozen=True)
class Wordings:
    train: tuple[str, ...]
    held: tuple[str, ...]


LIST = Wordings(
    train=(
        "{show} the {names} of {things}.",
        "{show} the {names} of all {things}.",
        "What are the {names} of {things}?",
        "I am looking for the {names} of {things}.",
        "{show} the {names} of the {things}.",
        "{show} the {name} of every {thing}.",
    ),
    held=(
        "Look up all {things}, by {name}.",
        "Can you name all {things}?",
        "Which {things} are on record? Return their {names}.",
        "Print the {name} for any {thing}.",
    ),
)
COLUMNS = Wordings(
    train=(
        "{show} the {name} and {noun} of {things}.",
        "{show} the {names} of {things} together with their {noun}.",
        "What are the {name} and {noun} of each {thing}?",
        "{show} the {name} and the {noun} of every {thing}.",
        "For {things}, show the {name} and {noun}.",
    ),
    held=(
        "I would like a table of {things} with {name} and {noun}.",
        "Return both {name} and {noun} for any {thing}.",
        "Name all {things}, and put the {noun} beside each {name}.",
    ),
)
COUNT = Wordings(
    train=(
        "How many {things} are there?",
        "Count the {things}.",
        "What is the number of {things}?",
        "{show} the number of {things}.",
        "Find out how many {things} there are.",
    ),
    held=(
        "How large is the group of {things}?",
        "I need the total count of {things}.",
        "State the quantity of {things}.",
    ),
)
AGGREGATE = Wordings(
    train=(
        "What is the {agg} {noun} of {things}?",
        "{show} the {agg} {noun} of {things}.",
        "{show} the {agg} {noun} for {things}.",
        "{show} the {agg} {noun} of all {things}.",
        "Compute the {agg} {noun} of {things}.",
    ),
    held=(
        "Among {things}, what is the {agg} {noun}?",
        "I want to know the {agg} {noun} across {things}.",
        "Work out which {agg} {noun} the {things} have.",
    ),
)
MIN_MAX = Wordings(
    train=(
        "What are the minimum and maximum {noun} of {things}?",
        "{show} the lowest and the highest {noun} of all {things}.",
        "{show} the minimum and the maximum {noun} among {things}.",
        "{show} the lowest and highest {noun} for {things}.",
        "{show} the minimum and maximum {noun} of the {things}.",
    ),
    held=(
        "Over which range, from smallest to largest, does the {noun} of {things} extend?",
        "Between which two extremes does the {noun} of {things} lie?",
        "Tell me the smallest {noun} of {things} and also the largest.",
    ),
)
TOP = Wordings(
    train=(
        "{show} the {names} of the {ranked}.",
        "I am looking for the {names} of the {ranked}.",
        "What are the {names} of the {ranked}?",
        "{show} the {ranked} and give their {names}.",
        "By {name}, what are the {ranked}?",
    ),
    held=(
        "{which} are the {ranked}?",
        "Rank {many} by {noun} and keep only the {n} {high}: return the {names}.",
        "Name just the {ranked}.",
    ),
)
ORDER = Wordings(
    train=(
        "{show} the {names} of all {many} in {direction} order of {noun}.",
        "{show} the {names} of all {many}, sorted by {noun} in {direction} order.",
        "{show} the {names} of the {many}, ordered by {noun}, {direction}.",
        "What are the {names} of all {many}, sorted by {noun} {direction}?",
        "Sort the {many} by {noun} in {direction} order and show their {names}.",
    ),
    held=(
        "Return the {names} of all {many}, {high} {noun} first.",
        "Arrange the {many} so that the {high} {noun} comes first, and print the {names}.",
        "I want every {one} by {name}, beginning with the {high} {noun}.",
    ),
)
DISTINCT = Wordings(
    train=(
        "What are the different {cats} of {things}?",
        "{show} the distinct {cats} of {things}.",
        "{show} the unique {cats} of {things}.",
        "Which different {cats} do {things} have?",
        "{show} all distinct {cats} for {things}.",
    ),
    held=(
        "Without repeating any, return the {cats} of {things}.",
        "Which {cats} occur among {things}? Show each one once.",
        "Name every {cat} found among {things}, with no duplicates.",
    ),
)
COUNT_DISTINCT = Wordings(
    train=(
        "How many different {cats} do the {many} have?",
        "Count the distinct {cats} of {many}.",
        "What is the number of different {cats} among {many}?",
        "How many unique {cats} are there among {many}?",
        "{show} the number of distinct {cats} of all {many}.",
    ),
    held=(
        "Across all {many}, how many separate {cats} occur?",
        "If each {cat} is counted once, how many are found among {many}?",
        "Tell me how many {cats} are represented by the {many}, ignoring repeats.",
    ),
)
GROUP_COUNT = Wordings(
    train=(
        "How many {things} are there for each {cat}?",
        "Count the {things} per {cat}.",
        "{show} each {cat} with its number of {things}.",
        "What is the number of {things} for each {cat}?",
        "For every {cat}, show how many {things} there are.",
    ),
    held=(
        "Break the {things} down by {cat} and count them.",
        "Give me a tally of {things}, one line per {cat}.",
        "How are the {things} distributed over the {cats}? Include the counts.",
    ),
)
GROUP_AGGREGATE = Wordings(
    train=(
        "What is the {agg} {noun} of {many} for each {cat}?",
        "{show} the {agg} {noun} of {many} per {cat}.",
        "For each {cat}, find the {agg} {noun} of the {many}.",
        "{show} every {cat} with the {agg} {noun} of its {many}.",
        "{show} the {agg} {noun} of {many} by {cat}.",
    ),
    held=(
        "Compare the {cats} by the {agg} {noun} of their {many}.",
        "Break the {agg} {noun} of {many} down by {cat}.",
        "How does the {agg} {noun} of {many} differ from {cat} to {cat}?",
    ),
)
HAVING = Wordings(
    train=(
        "Which {cats} have {more} {many}?",
        "{show} the {cats} with {more} {many}.",
        "{show} the {cats} that have {more} {many}.",
        "{show} every {cat} with {more} {many}.",
        "What are the {cats} with {more} {many}?",
    ),
    held=(
        "For which {cats} do we count {more} {many}?",
        "Name each {cat} that is shared by {more} {many}.",
        "I am only interested in {cats} that occur for {more} {many}. Which are they?",
    ),
)
JOIN_LIST = Wordings(
    train=(
        "{show} the {names} of all {many} and the {parent_names} of their {parents}.",
        "{show} the {name} of each {one} along with the {parent_name} of the {parent}.",
        "For every {one}, show its {name} and the {parent_name} of the {parent}.",
        "What are the {names} of the {many}, and the {parent_names} of their {parents}?",
        "{show} the {name} of each {one} and the {parent_name} of the corresponding {parent}.",
    ),
    held=(
        "Pair every {one} with the {parent}: the {one} {name} first, then the {parent} {parent_name}.",
        "I want to see which {parent} belongs to which {one}; return {one} {name} and {parent} {parent_name}.",
        "Match {many} to {parents} and print {one} {name} and {parent} {parent_name}.",
    ),
)
JOIN_GROUP = Wordings(
    train=(
        "For each {parent}, show the {parent_name} and the number of {many}.",
        "Count the {many_of_each}. Show the {parent_name} and the count.",
        "How many {many} does each {parent} have? Show the {parent_name} and the number.",
        "{show} the {parent_names} of {parents} with their number of {many}.",
        "What is the number of {many_of_each}? Give the {parent_name} too.",
    ),
    held=(
        "Tally the {many_of_each}, with the {parent_name} in front.",
        "Per {parent}, I need the {parent_name} beside a count of {many}.",
        "How are the {many} spread over the {parents}? Return {parent_name} and count.",
    ),
)
MOST_CHILDREN = Wordings(
    train=(
        "Which {parent} {did_most}?",
        "{show} the {parent_name} of the {parent} {who} {did_most}.",
        "What is the {parent_name} of the {parent} with the most {many}?",
        "{show} the {parent_name} of the {parent} with the highest number of {many}.",
        "I am looking for the {parent_name} of the {parent} {who} {did_most}.",
    ),
    held=(
        "Which {parent} comes first by count of {many}?",
        "Name the {parent} with the largest number of {many}.",
        "Counting {many}, which {parent} leads all others?",
    ),
)
HAVING_JOIN = Wordings(
    train=(
        "Which {parents} {did_more}?",
        "{show} the {parent_names} of {parents} {who} {did_more}.",
        "{show} the {parent_names} of the {parents} with {more} {many}.",
        "{show} the {parent_names} of {parents} with {more} {many}.",
        "What are the {parent_names} of {parents} {who} {did_more}?",
    ),
    held=(
        "Name each {parent} that accounts for {more} {many}.",
        "For which {parents} are {more} {many} on record?",
        "I am looking for {parents} linked to {more} {many}; return the {parent_names}.",
    ),
)
ABOVE_AVERAGE = Wordings(
    train=(
        "Which {many} have {a_noun} {above} the average?",
        "{show} the {names} of {many} whose {noun} is {above} average.",
        "{show} the {many} with {a_higher} {noun} than the average.",
        "{show} the {names} of {many} with {a_noun} {greater} than the average {noun}.",
        "What are the {names} of {many} whose {noun} is {higher} than the average?",
    ),
    held=(
        "Which {many} {exceed} the mean {noun}?",
        "Compared with the mean {noun}, which {many} are {higher}? Return the {names}.",
        "Name the {many} on the {upper} side of the mean {noun}.",
    ),
)
IN_SUBQUERY = Wordings(
    train=(
        "Which {parents} {did_things}?",
        "{show} the {parent_names} of {parents} {who} {did_things}.",
        "{show} the {parents} {who} {did_things}.",
        "{show} the {parent_names} of all {parents} {who} {did_things}.",
        "What are the {parent_names} of {parents} {who} {did_things}?",
    ),
    held=(
        "Name every {parent} linked to {things}.",
        "I would like the {parent_names} of {parents} for which there are {things}.",
        "Looking at {things}, which {parents} do they belong to?",
    ),
)
NOT_IN = Wordings(
    train=(
        "Which {parents} {never}?",
        "{show} the {parent_names} of {parents} {who} {never}.",
        "{show} the {parents} without any {many}.",
        "I am looking for the {parent_names} of {parents} {who} {never}.",
        "What are the {parent_names} of {parents} without {many}?",
    ),
    held=(
        "Name the {parents} for which no {one} is on record.",
        "Are there {parents} with zero {many}? Return their {parent_names}.",
        "Which {parents} are without a single {one}?",
    ),
)
LOOKUP = Wordings(
    train=(
        "What is the {noun} of {x}?",
        "{show} the {noun} of {x}.",
        "I am looking for the {noun} of {x}.",
        "{show} the {noun} of the {one} {x}.",
        "Look up the {noun} of {x}.",
    ),
    held=(
        "{ask}",
        "Tell me what {noun} {x} has.",
        "I am interested in {x}: which {noun} is on record?",
    ),
)
BOTH = Wordings(
    train=(
        "Which {cats} have both {first} and {second}?",
        "{show} the {cats} with {first} and also {second}.",
        "{show} the {cats} that have both {first} and {second}.",
        "{show} every {cat} with both {first} and {second}.",
        "What are the {cats} shared by {first} and {second}?",
    ),
    held=(
        "Name each {cat} that occurs for {first} as well as for {second}.",
        "In which {cats} do we find {first}, but {second} too?",
        "Return the {cats} that {first} have in common with {second}.",
    ),
)
WITHOUT = Wordings(
    train=(
        "Which {cats} have {first} but no {second}?",
        "{show} the {cats} with {first} but without {second}.",
        "{show} the {cats} that have {first} but not {second}.",
        "{show} every {cat} with {first} and no {second}.",
        "What are the {cats} of {first}, except those of {second}?",
    ),
    held=(
        "Name each {cat} that occurs for {first} and never for {second}.",
        "Leaving out the {cats} of {second}, which {cats} do {first} have?",
        "In which {cats} do we find {first} while {second} are absent?",
    ),
)
ARGMAX = Wordings(
    train=(
        "What is the {name} of the {best}?",
        "{show} the {name} of the {best}.",
        "I am looking for the {name} of the {best}.",
        "Which {one} has the {high} {noun}?",
        "By {name}, which is the {best}?",
    ),
    held=(
        "{who_is} the {best}?",
        "No {one} has a {higher} {noun} than this one. Name it.",
        "Name the {best}.",
    ),
)
#: Kind -> its wordings, for the kinds that training has.
KINDS = {
    "list": LIST, "two_conditions": LIST, "either_condition": LIST, "between": LIST, "like": LIST, "in_values": LIST,
    "missing": LIST, "join_filter": LIST, "columns": COLUMNS, "count": COUNT, "aggregate": AGGREGATE,
    "aggregate_filter": AGGREGATE, "min_max": MIN_MAX, "top": TOP, "order": ORDER, "distinct": DISTINCT,
    "count_distinct": COUNT_DISTINCT, "group_count": GROUP_COUNT, "group_aggregate": GROUP_AGGREGATE,
    "having": HAVING, "join_list": JOIN_LIST, "join_group": JOIN_GROUP, "most_children": MOST_CHILDREN,
    "having_join": HAVING_JOIN, "above_average": ABOVE_AVERAGE, "in_subquery": IN_SUBQUERY, "not_in": NOT_IN,
    "lookup": LOOKUP, "both": BOTH, "without": WITHOUT, "argmax": ARGMAX,
}  # fmt: skip
