"""The wordings of the compositions: kinds of query whose clauses training has only separately. They are for held-out
questions only."""

from __future__ import annotations

from training.domains.sql.demo.wordings import AGGREGATE, COUNT, GROUP_COUNT, Wordings


def _composed(*held: str) -> Wordings:
    return Wordings((), held)


#: Kind -> its wordings.
COMPOSITIONS = {
    "count_two": _composed(*COUNT.held, *COUNT.train[:2]),
    "count_join": _composed(*COUNT.held, *COUNT.train[:2]),
    "count_like": _composed(*COUNT.held, *COUNT.train[:2]),
    "aggregate_join": _composed(*AGGREGATE.held, *AGGREGATE.train[:2]),
    "top_filter": _composed(
        "Among {things}, name the {ranked}.",
        "Consider only {things}. What are the {names} of the {ranked}?",
        "List the {names} of the {ranked}, counting only {things}.",
        "Of all {things}, which are the {ranked}?",
    ),
    "group_filter": _composed(*GROUP_COUNT.held, *GROUP_COUNT.train[:2]),
    "group_most": _composed(
        "Which {cat} has the most {many}?",
        "Name the {cat} with the largest number of {many}.",
        "What is the most common {cat} among {many}?",
        "Find the {cat} that occurs most often for {many}.",
    ),
    "above_average_filter": _composed(
        "Among {things}, which ones {exceed} the average {noun} of all {many}?",
        "List the {names} of {things} with {a_noun} {above} the average of all {many}.",
        "Name the {things} with {a_higher} {noun} than the average {one}.",
        "Which {things} have {a_noun} {above} the overall average?",
    ),
    "having_aggregate": _composed(
        "Which {cats} have an average {noun} above {v}?",
        "List the {cats} whose {many} have a mean {noun} above {v}.",
        "For which {cats} is the average {noun} of {many} greater than {v}?",
        "Name each {cat} where the {many} have a mean {noun} over {v}.",
    ),
    "lookup_join": _composed(
        "What is the {parent_noun} of the {parent} of {x}?",
        "Show the {parent_noun} of the {parent} that belongs to the {one} {x}.",
        "Tell me the {parent_noun} of the {parent} for {x}.",
        "Find the {parent} of the {one} {x}, and return the {parent_noun}.",
    ),
    "not_in_filter": _composed(
        "Which {parent_things} {never}?",
        "List the {parent_names} of {parent_things} without any {many}.",
        "Name the {parent_things} for which no {one} is on record.",
        "Find the {parent_names} of all {parent_things} {who} {never}.",
    ),
    "aggregate_children": _composed(
        "For each {parent}, show the {parent_name} and the {agg} {noun} of the {many}.",
        "What is the {agg} {noun} of the {many_of_each}? Give the {parent_name} too.",
        "Per {parent}, I need the {parent_name} beside the {agg} {noun} of the {many}.",
        "Compare the {parents} by the {agg} {noun} of their {many}; include the {parent_name}.",
    ),
    "distinct_join": _composed(
        "What are the different {cats} of {parents} {who} {did_things}?",
        "Without repeating any, return the {cats} of {parents} {who} {did_things}.",
        "List the distinct {cats} of the {parents} {who} {did_things}.",
        "Which {cats} occur among {parents} {who} {did_things}? Show each one once.",
    ),
}  # fmt: skip
