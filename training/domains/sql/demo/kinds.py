"""The kinds of query that the demo's training questions have: each function drafts one, or returns None where the
database has nothing for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from training.domains.sql.demo.drafts import (
    Draft,
    Select,
    World,
    about,
    family,
    grouped,
    ranks,
    side,
    words,
)
from training.domains.sql.demo.phrases import Condition, literal
from training.domains.sql.demo.schemas import Category, Date, Label, Number, Table, noun

Kind = Callable[[World], Draft | None]


def _filtered(table: Table, columns: str, condition: Condition | None, **slots: str) -> Draft | None:
    """Columns of the rows that a condition keeps."""
    if condition is None:
        return None
    select = Select(columns, table.name, condition.sql())
    return Draft(select.sql, words(table, condition, **slots), replace(select, where="").sql)


def list_filter(world: World) -> Draft | None:
    table = world.table()
    return table and _filtered(table, table.label.name, world.speaker.condition(table))


def columns(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column = world.column(table, Number)
    condition = world.speaker.condition(table, [column.name])
    return _filtered(table, f"{table.label.name}, {column.name}", condition, **about(column))


def count(world: World) -> Draft | None:
    table = world.table(labelled=False)
    if world.draw.random() < 0.2:
        return Draft(Select("COUNT(*)", table.name).sql, words(table))
    return _filtered(table, "COUNT(*)", world.speaker.condition(table))


def aggregate(world: World) -> Draft | None:
    table = world.table(Number, labelled=False)
    column = world.column(table, Number)
    function, word = world.aggregate(column)
    return Draft(Select(f"{function}({column.name})", table.name).sql, words(table, agg=word, **about(column)))


def aggregate_filter(world: World) -> Draft | None:
    table = world.table(Number, labelled=False)
    column = world.column(table, Number)
    function, word = world.aggregate(column)
    condition = world.speaker.condition(table, [column.name])
    return _filtered(table, f"{function}({column.name})", condition, agg=word, **about(column))


def min_max(world: World) -> Draft | None:
    table = world.table(Number, labelled=False)
    column = world.column(table, Number)
    select = Select(f"MIN({column.name}), MAX({column.name})", table.name)
    return Draft(select.sql, words(table, **about(column)))


def top(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column, descending, number = world.column(table, Number), world.draw.random() < 0.65, world.draw.randint(2, 8)
    order = f"{column.name} DESC" if descending else column.name
    select = Select(table.label.name, table.name, order=order, limit=number)
    slots = words(table, n=world.speaker.count(number), high=world.superlative(descending), **about(column))
    slots["ranked"] = world.ranked(table, column, descending, number)
    return Draft(select.sql, slots, ranks=ranks(select, column.name))


def order(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column, descending = world.column(table, Number), world.draw.random() < 0.5
    select = Select(table.label.name, table.name, order=f"{column.name} DESC" if descending else column.name)
    direction = "descending" if descending else "ascending"
    return Draft(select.sql, words(table, direction=direction, high=world.superlative(descending), **about(column)))


def distinct(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    condition = world.speaker.condition(table, [column.name], extreme=True)
    return _filtered(table, f"DISTINCT {column.name}", condition, **grouped(column))


def count_distinct(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    return Draft(Select(f"COUNT(DISTINCT {column.name})", table.name).sql, words(table, **grouped(column)))


def group_count(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    select = Select(f"{column.name}, COUNT(*)", table.name, group=column.name)
    return Draft(select.sql, words(table, **grouped(column)))


def group_aggregate(world: World) -> Draft | None:
    table = world.table(Category, Number, labelled=False)
    if table is None:
        return None
    column, number = world.column(table, Category), world.column(table, Number)
    function, word = world.aggregate(number)
    select = Select(f"{column.name}, {function}({number.name})", table.name, group=column.name)
    return Draft(select.sql, words(table, agg=word, **about(number), **grouped(column)))


def having(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    values = [row[column.name] for row in world.speaker.rows(table)]
    test, more = world.compared(values.count(world.draw.choice(values)) + world.draw.randint(-1, 1))
    select = Select(column.name, table.name, group=column.name, having=f"COUNT(*) {test}")
    return Draft(select.sql, words(table, more=more, **grouped(column)), replace(select, having="").sql)


def join_list(world: World) -> Draft | None:
    relation = world.relation(labelled=True)
    if relation is None:
        return None
    select = Select(f"{relation.child.name}.{relation.child.label.name}, {relation.label}", relation.joined)
    return Draft(select.sql, family(relation))


def join_filter(world: World) -> Draft | None:
    """Children of parents with a property, or of one parent by name."""
    relation = world.relation(labelled=True)
    if relation is None:
        return None
    parent, child = relation.parent, relation.child
    if world.draw.random() < 0.4:
        name = str(world.draw.choice(world.speaker.rows(parent))[parent.label.name])
        condition, whom = Condition(parent.label.name, f"= {literal(name)}", ""), name
    else:
        condition = world.speaker.condition(parent)
        if condition is None:
            return None
        whom = f"{parent.plural} {condition.text}"
    select = Select(f"{child.name}.{child.label.name}", relation.joined, condition.sql(parent.name))
    of = Condition("", "", relation.reference.of.format(x=whom))
    return Draft(select.sql, words(child, of), replace(select, where="").sql)


def join_group(world: World) -> Draft | None:
    relation = world.relation()
    select = Select(f"{relation.label}, COUNT(*)", relation.gathered, group=relation.key)
    return Draft(select.sql, family(relation))


def most_children(world: World) -> Draft | None:
    relation = world.relation()
    select = Select(relation.label, relation.gathered, group=relation.key, order="COUNT(*) DESC", limit=1)
    slots = family(relation, did_most=relation.did(f"the most {relation.child.plural}", one=True))
    return Draft(select.sql, slots, ranks=ranks(select, "COUNT(*)"))


def having_join(world: World) -> Draft | None:
    relation = world.relation()
    keys = [row[relation.reference.name] for row in world.speaker.rows(relation.child)]
    # "fewer than" would include the parents without children, which a join leaves out
    test, more = world.compared(max(2, keys.count(world.draw.choice(keys))), (">", ">="))
    select = Select(relation.label, relation.gathered, group=relation.key, having=f"COUNT(*) {test}")
    slots = family(relation, more=more, did_more=relation.did(f"{more} {relation.child.plural}"))
    return Draft(select.sql, slots, replace(select, having="").sql)


def above_average(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column, above = world.column(table, Number), world.draw.random() < 0.6
    test = f"{column.name} {'>' if above else '<'} (SELECT AVG({column.name}) FROM {table.name})"
    return Draft(Select(table.label.name, table.name, test).sql, words(table, **about(column), **side(above)))


def in_subquery(world: World) -> Draft | None:
    """Parents that have children with a property."""
    relation = world.relation()
    parent, child = relation.parent, relation.child
    condition = world.speaker.condition(child, extreme=True)
    if condition is None:
        return None
    inner = Select(relation.reference.name, child.name, condition.sql())
    outer = Select(parent.label.name, parent.name, f"{parent.key.name} IN ({inner.sql})")
    other = replace(outer, where=f"{parent.key.name} IN ({replace(inner, where='').sql})")
    return Draft(outer.sql, family(relation, condition, did_things=relation.did_things(condition)), other.sql)


def not_in(world: World) -> Draft | None:
    """Parents without children."""
    relation = world.relation()
    parent, inner = relation.parent, Select(relation.reference.name, relation.child.name).sql
    select = Select(parent.label.name, parent.name, f"{parent.key.name} NOT IN ({inner})")
    return Draft(select.sql, family(relation))


def between(world: World) -> Draft | None:
    table = world.table(world.draw.choice((Date, Number)))
    if table is None:
        return None
    column = world.draw.choice([*table.of(Date), *table.of(Number)])
    return _filtered(table, table.label.name, world.speaker.between(table, column))


def like(world: World) -> Draft | None:
    table = world.table()
    return table and _filtered(table, table.label.name, world.speaker.like(table, world.column(table, Label)))


def in_values(world: World) -> Draft | None:
    table = world.table(Category)
    if table is None:
        return None
    condition = world.speaker.within_values(table, world.column(table, Category))
    return _filtered(table, table.label.name, condition)


def two(world: World, table: Table, word: str = "and") -> tuple[Condition, str] | None:
    """Two conditions on different columns as one, whose test is complete SQL; and the SQL of the first of them."""
    pair = world.speaker.pair(table)
    if pair is None:
        return None
    first, second = pair
    # "customers living in Leeds who joined after 2020": a clause that follows a phrase needs no "and"
    between = " " if word == "and" and second.clause and not first.clause else f" {word} "
    test = f"{first.sql()} {word.upper()} {second.sql()}"
    return Condition("", test, f"{first.text}{between}{second.text}"), first.sql()


def _two(world: World, word: str) -> Draft | None:
    table = world.table()
    drawn = table and two(world, table, word)
    if not drawn:
        return None
    condition, first = drawn
    select = Select(table.label.name, table.name, condition.test)
    return Draft(select.sql, words(table, condition), replace(select, where=first).sql)


def two_conditions(world: World) -> Draft | None:
    return _two(world, "and")


def either_condition(world: World) -> Draft | None:
    return _two(world, "or")


def missing(world: World) -> Draft | None:
    tables = [table for table in world.subject.tables if table.label and any(day.pending for day in table.of(Date))]
    if not tables:
        return None
    table = world.draw.choice(tables)
    column = next(day for day in table.of(Date) if day.pending)
    condition, without = world.speaker.missing(column), Select(table.label.name, table.name)
    second = world.speaker.condition(table, [column.name]) if world.draw.random() < 0.7 else None
    if second is None:
        return _filtered(table, table.label.name, condition)
    text = f"{condition.text}{' ' if second.clause else ' and '}{second.text}"
    joined = Condition("", f"{condition.sql()} AND {second.sql()}", text)
    other = replace(without, where=second.sql())
    return Draft(replace(without, where=joined.test).sql, words(table, joined), other.sql)


def lookup(world: World) -> Draft | None:
    """One value of a row that is named."""
    table = world.table(Number)
    if table is None:
        return None
    column = world.draw.choice([*table.of(Number), *table.of(Number), *table.of(Category), *table.of(Date)])
    name = str(world.draw.choice(world.speaker.rows(table))[table.label.name])
    ask = (getattr(column, "ask", "") or f"What {noun(column)} does {{x}} have?").format(x=name)
    select = Select(column.name, table.name, f"{table.label.name} = {literal(name)}")
    return Draft(select.sql, words(table, x=name, ask=ask, noun=noun(column)))


def _sets(world: World, operator: str) -> Draft | None:
    """The values of a column among two sets of rows."""
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    first = world.speaker.condition(table, [column.name], extreme=True)
    second = world.speaker.condition(table, [column.name], extreme=True)
    if first is None or second is None or (first.column, first.test[:1]) == (second.column, second.test[:1]):
        return None
    one, two = (Select(column.name, table.name, condition.sql()) for condition in (first, second))
    slots = words(
        table, first=f"{table.plural} {first.text}", second=f"{table.plural} {second.text}", **grouped(column)
    )
    return Draft(f"{one.sql} {operator} {two.sql}", slots, replace(one, columns=f"DISTINCT {column.name}").sql)


def both(world: World) -> Draft | None:
    return _sets(world, "INTERSECT")


def without(world: World) -> Draft | None:
    return _sets(world, "EXCEPT")


def argmax(world: World) -> Draft | None:
    """The rows with the largest or smallest value."""
    table = world.table(Number)
    if table is None:
        return None
    column, largest = world.column(table, Number), world.draw.random() < 0.65
    function = "MAX" if largest else "MIN"
    select = Select(
        table.label.name, table.name, f"{column.name} = (SELECT {function}({column.name}) FROM {table.name})"
    )
    slots = words(table, best=world.best(table, column, largest), high=world.superlative(largest), **about(column))
    return Draft(select.sql, slots | {"higher": side(largest)["higher"]})


#: Kind -> the function that drafts it; the wordings are in wordings.KINDS.
DRAFTS: dict[str, Kind] = {
    "list": list_filter, "columns": columns, "count": count, "aggregate": aggregate,
    "aggregate_filter": aggregate_filter, "min_max": min_max, "top": top, "order": order, "distinct": distinct,
    "count_distinct": count_distinct, "group_count": group_count, "group_aggregate": group_aggregate, "having": having,
    "join_list": join_list, "join_filter": join_filter, "join_group": join_group, "most_children": most_children,
    "having_join": having_join, "above_average": above_average, "in_subquery": in_subquery, "not_in": not_in,
    "between": between, "like": like, "in_values": in_values, "two_conditions": two_conditions,
    "either_condition": either_condition, "missing": missing, "lookup": lookup, "both": both, "without": without,
    "argmax": argmax,
}  # fmt: skip
