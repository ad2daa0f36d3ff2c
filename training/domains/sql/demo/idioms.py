"""Kinds of query that PostgreSQL writes in its own way: for the demo with --dialect postgres.

Each draft has the same query in SQLite's words, too: it is checked by executing that one, so that the demo can be made
without a server. A test compares the rows of both on a server.
"""

from __future__ import annotations

import datetime
from dataclasses import replace

from training.domains.sql.demo.drafts import Draft, Select, World, about, grouped, words
from training.domains.sql.demo.kinds import Kind
from training.domains.sql.demo.phrases import ANY_CASE, DURING, WITHIN_DAYS, Condition, literal
from training.domains.sql.demo.schemas import Category, Date, Label, Number, Table, noun
from training.domains.sql.demo.wordings import COUNT, LIST, Wordings


def _dated(world: World, labelled: bool = False) -> tuple[Table, Date] | None:
    """A table with a day in every row, and that column."""
    found = [
        (table, day)
        for table in world.subject.tables
        if table.label or not labelled
        for day in table.of(Date)
        if not day.pending
    ]
    return world.draw.choice(found) if found else None


def count_in_year(world: World) -> Draft | None:
    drawn = _dated(world)
    if drawn is None:
        return None
    table, day = drawn
    year = str(world.draw.choice(world.speaker.rows(table))[day.name])[:4]
    condition = Condition(day.name, "", world.speaker.form(DURING).format(did=day.did, v=year))
    select = Select("COUNT(*)", table.name, f"EXTRACT(YEAR FROM {day.name}) = {year}")
    lite = replace(select, where=f"STRFTIME('%Y', {day.name}) = '{year}'")
    return Draft(select.sql, words(table, condition), replace(lite, where="").sql, sqlite=lite.sql)


def count_by_year(world: World) -> Draft | None:
    drawn = _dated(world)
    if drawn is None:
        return None
    table, day = drawn
    year, lite = f"EXTRACT(YEAR FROM {day.name})", f"CAST(STRFTIME('%Y', {day.name}) AS INTEGER)"
    select = Select(f"{year}, COUNT(*)", table.name, group=year)
    same = Select(f"{lite}, COUNT(*)", table.name, group=lite)
    return Draft(select.sql, words(table, noun=noun(day)), sqlite=same.sql)


def count_within_days(world: World) -> Draft | None:
    drawn = _dated(world)
    if drawn is None:
        return None
    table, day = drawn
    latest = max(str(row[day.name]) for row in world.speaker.rows(table))
    last = datetime.date.fromisoformat(latest).replace(day=1).isoformat()
    days = world.draw.choice((30, 60, 90, 180))
    text = world.speaker.form(WITHIN_DAYS).format(did=day.did, days=days, v=last)
    select = Select(
        "COUNT(*)", table.name,
        f"{day.name} >= DATE '{last}' - INTERVAL '{days} days' AND {day.name} < DATE '{last}'",
    )  # fmt: skip
    lite = replace(select, where=f"{day.name} >= DATE('{last}', '-{days} days') AND {day.name} < '{last}'")
    return Draft(
        select.sql, words(table, Condition(day.name, "", text)), replace(lite, where="").sql, sqlite=lite.sql
    )  # fmt: skip


def list_in_any_case(world: World) -> Draft | None:
    """SQLite's LIKE ignores the case of letters; PostgreSQL has ILIKE for that."""
    table = world.table()
    label = world.column(table, Label)
    part = world.draw.choice(str(world.draw.choice(world.speaker.rows(table))[label.name]).split()).lower()
    text = world.speaker.form(ANY_CASE).format(name=noun(label), v=part)
    select = Select(label.name, table.name, f"{label.name} ILIKE {literal(f'%{part}%')}")
    lite = replace(select, where=f"{label.name} LIKE {literal(f'%{part}%')}")
    return Draft(
        select.sql, words(table, Condition(label.name, "", text)), replace(lite, where="").sql, sqlite=lite.sql
    )  # fmt: skip


def joined_names(world: World) -> Draft | None:
    table = world.table(Category)
    if table is None:
        return None
    column, name = world.column(table, Category), table.label.name
    select = Select(f"{column.name}, STRING_AGG({name}, ', ' ORDER BY {name})", table.name, group=column.name)
    source = f"(SELECT {column.name}, {name} FROM {table.name} ORDER BY {column.name}, {name})"
    lite = Select(f"{column.name}, GROUP_CONCAT({name}, ', ')", source, group=column.name)
    return Draft(select.sql, words(table, **grouped(column)), sqlite=lite.sql)


def best_of_each(world: World) -> Draft | None:
    """For each value of a category the row with the largest number, which is one row in each."""
    table = world.table(Category, Number)
    if table is None:
        return None
    column, number, name = world.column(table, Category), world.column(table, Number), table.label.name
    of_group: dict[object, list[float]] = {}
    for row in world.speaker.rows(table):
        of_group.setdefault(row[column.name], []).append(row[number.name])
    if any(values.count(max(values)) > 1 for values in of_group.values()):
        return None
    select = Select(
        f"DISTINCT ON ({column.name}) {column.name}, {name}", table.name, order=f"{column.name}, {number.name} DESC"
    )
    most = f"(SELECT MAX({number.name}) FROM {table.name} AS b WHERE b.{column.name} = a.{column.name})"
    lite = Select(f"{column.name}, {name}", f"{table.name} AS a", f"{number.name} = {most}", order=column.name)
    slots = words(table, high=world.superlative(True), **grouped(column), **about(number))
    return Draft(select.sql, slots, sqlite=lite.sql)


def median(world: World) -> Draft | None:
    table = world.table(Number, labelled=False)
    column = world.column(table, Number)
    select = Select(f"PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY {column.name})", table.name)
    count = f"(SELECT COUNT(*) FROM {table.name})"
    middle = (
        f"(SELECT {column.name} FROM {table.name} ORDER BY {column.name} LIMIT 2 - {count} % 2 "
        f"OFFSET ({count} - 1) / 2)"
    )
    return Draft(select.sql, words(table, **about(column)), sqlite=Select(f"AVG({column.name})", middle).sql)


#: Kind -> the function that drafts it.
DRAFTS: dict[str, Kind] = {
    "count_in_year": count_in_year, "count_by_year": count_by_year, "count_within_days": count_within_days,
    "list_in_any_case": list_in_any_case, "joined_names": joined_names, "best_of_each": best_of_each, "median": median,
}  # fmt: skip

#: Kind -> its wordings.
IDIOMS = {
    "count_in_year": COUNT,
    "count_within_days": COUNT,
    "list_in_any_case": LIST,
    "count_by_year": Wordings(
        train=(
            "How many {many} are there for each year of the {noun}?",
            "Count the {many} per year of the {noun}.",
            "{show} the number of {many} for each year of the {noun}.",
            "For every year of the {noun}, show how many {many} there are.",
            "What is the number of {many} by year of the {noun}?",
        ),
        held=(
            "Break the {many} down by the year of their {noun} and count them.",
            "Give me a tally of {many}, one line per year of the {noun}.",
            "How are the {many} distributed over the years of the {noun}? Include the counts.",
        ),
    ),
    "joined_names": Wordings(
        train=(
            "{show} each {cat} with the {names} of its {many} as one text, separated by commas.",
            "For each {cat}, join the {names} of the {many} with commas.",
            "{show} the comma-separated {names} of {many} for each {cat}.",
            "For every {cat}, show the {names} of its {many} in one line, separated by commas.",
            "What are the {names} of the {many} of each {cat}, joined with commas?",
        ),
        held=(
            "I need one line per {cat}: the {cat}, and behind it the {names} of all its {many} with commas between.",
            "Concatenate the {names} of the {many} within each {cat}, with commas.",
            "Group the {many} by {cat} and put their {names} into a single text, comma after comma.",
        ),
    ),
    "best_of_each": Wordings(
        train=(
            "{show} the {one} with the {high} {noun} for each {cat}.",
            "For each {cat}, show the {name} of the {one} with the {high} {noun}.",
            "For every {cat}, which {one} has the {high} {noun}?",
            "{show} each {cat} with the {name} of its {one} with the {high} {noun}.",
            "What is the {one} with the {high} {noun} of each {cat}?",
        ),
        held=(
            "Per {cat}, name the one {one} whose {noun} is the {high}.",
            "Within each {cat}, which {one} comes first by {noun}?",
            "I want the leading {one} by {noun}, one for every {cat}.",
        ),
    ),
    "median": Wordings(
        train=(
            "What is the median {noun} of {many}?",
            "{show} the median {noun} of all {many}.",
            "{show} the median of the {noun} of the {many}.",
            "Compute the median {noun} of {many}.",
            "Find out the median {noun} for {many}.",
        ),
        held=(
            "Which {noun} lies in the middle when all {many} are sorted by it?",
            "I want the middle value of the {noun} across all {many}.",
            "Half of the {many} have a {noun} below which value?",
        ),
    ),
}
