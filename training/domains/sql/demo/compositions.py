"""Kinds of query that only held-out questions have: combinations of clauses that training has separately."""

from __future__ import annotations

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
from training.domains.sql.demo.kinds import Kind, two
from training.domains.sql.demo.phrases import Condition, literal, shown
from training.domains.sql.demo.schemas import Category, Label, Number, noun


def count_two(world: World) -> Draft | None:
    table = world.table(labelled=False)
    drawn = two(world, table)
    if drawn is None:
        return None
    condition, first = drawn
    select = Select("COUNT(*)", table.name, condition.test)
    return Draft(select.sql, words(table, condition), replace(select, where=first).sql)


def count_like(world: World) -> Draft | None:
    table = world.table()
    condition = world.speaker.like(table, world.column(table, Label))
    select = Select("COUNT(*)", table.name, condition.sql())
    return Draft(select.sql, words(table, condition), replace(select, where="").sql)


def count_join(world: World) -> Draft | None:
    relation = world.relation()
    parent = relation.parent
    condition = world.speaker.condition(parent)
    if condition is None:
        return None
    select = Select("COUNT(*)", relation.joined, condition.sql(parent.name))
    of = Condition("", "", relation.reference.of.format(x=f"{parent.plural} {condition.text}"))
    return Draft(select.sql, words(relation.child, of), replace(select, where="").sql)


def aggregate_join(world: World) -> Draft | None:
    relation = world.relation(Number)
    condition = relation and world.speaker.condition(relation.parent)
    if not condition:
        return None
    parent, column = relation.parent, world.column(relation.child, Number)
    function, word = world.aggregate(column)
    select = Select(f"{function}({relation.child.name}.{column.name})", relation.joined, condition.sql(parent.name))
    of = Condition("", "", relation.reference.of.format(x=f"{parent.plural} {condition.text}"))
    return Draft(select.sql, words(relation.child, of, agg=word, **about(column)), replace(select, where="").sql)


def top_filter(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column, descending, number = world.column(table, Number), world.draw.random() < 0.65, world.draw.randint(2, 5)
    condition = world.speaker.condition(table, [column.name])
    if condition is None:
        return None
    order = f"{column.name} DESC" if descending else column.name
    select = Select(table.label.name, table.name, condition.sql(), order=order, limit=number)
    slots = words(table, condition, ranked=world.ranked(table, column, descending, number))
    return Draft(select.sql, slots, replace(select, where="").sql, ranks(select, column.name))


def group_filter(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    condition = world.speaker.condition(table, [column.name])
    if condition is None:
        return None
    select = Select(f"{column.name}, COUNT(*)", table.name, condition.sql(), column.name)
    return Draft(select.sql, words(table, condition, **grouped(column)), replace(select, where="").sql)


def group_most(world: World) -> Draft | None:
    table = world.table(Category, labelled=False)
    column = world.column(table, Category)
    select = Select(column.name, table.name, group=column.name, order="COUNT(*) DESC", limit=1)
    return Draft(select.sql, words(table, **grouped(column)), ranks=ranks(select, "COUNT(*)"))


def above_average_filter(world: World) -> Draft | None:
    table = world.table(Number)
    if table is None:
        return None
    column, above = world.column(table, Number), world.draw.random() < 0.6
    condition = world.speaker.condition(table, [column.name])
    if condition is None:
        return None
    test = f"{column.name} {'>' if above else '<'} (SELECT AVG({column.name}) FROM {table.name})"
    select = Select(table.label.name, table.name, f"{condition.sql()} AND {test}")
    slots = words(table, condition, **about(column), **side(above))
    return Draft(select.sql, slots, replace(select, where=test).sql)


def having_aggregate(world: World) -> Draft | None:
    table = world.table(Category, Number, labelled=False)
    if table is None:
        return None
    column, number = world.column(table, Category), world.column(table, Number)
    values = [row[number.name] for row in world.speaker.rows(table)]
    value = round(sum(values) / len(values))
    select = Select(column.name, table.name, group=column.name, having=f"AVG({number.name}) > {value}")
    slots = words(table, v=shown(value), **about(number), **grouped(column))
    return Draft(select.sql, slots, replace(select, having="").sql)


def lookup_join(world: World) -> Draft | None:
    """A value of the parent of a child that is named."""
    relation = world.relation(labelled=True)
    values = relation and [*relation.parent.of(Number), *relation.parent.of(Category)]
    if not values:
        return None
    child, parent, column = relation.child, relation.parent, world.draw.choice(values)
    name = str(world.draw.choice(world.speaker.rows(child))[child.label.name])
    where = f"{child.name}.{child.label.name} = {literal(name)}"
    select = Select(f"{parent.name}.{column.name}", relation.joined, where)
    return Draft(select.sql, family(relation, x=name, parent_noun=noun(column)))


def not_in_filter(world: World) -> Draft | None:
    relation = world.relation()
    parent, inner = relation.parent, Select(relation.reference.name, relation.child.name).sql
    condition = world.speaker.condition(parent)
    if condition is None:
        return None
    test = f"{parent.key.name} NOT IN ({inner})"
    select = Select(parent.label.name, parent.name, f"{condition.sql()} AND {test}")
    slots = family(relation, parent_things=f"{parent.plural} {condition.text}")
    return Draft(select.sql, slots, replace(select, where=test).sql)


def aggregate_children(world: World) -> Draft | None:
    relation = world.relation(Number)
    if relation is None:
        return None
    column = world.column(relation.child, Number)
    function, word = world.aggregate(column)
    value = f"{function}({relation.child.name}.{column.name})"
    select = Select(f"{relation.label}, {value}", relation.gathered, group=relation.key)
    return Draft(select.sql, family(relation, agg=word, **about(column)))


def distinct_join(world: World) -> Draft | None:
    relation = world.relation()
    parent, child = relation.parent, relation.child
    condition = world.speaker.condition(child, extreme=True)
    if condition is None or not parent.of(Category):
        return None
    column = world.column(parent, Category)
    select = Select(f"DISTINCT {parent.name}.{column.name}", relation.joined, condition.sql(child.name))
    slots = family(relation, condition, did_things=relation.did_things(condition), **grouped(column))
    return Draft(select.sql, slots, replace(select, where="").sql)


#: Kind -> the function that drafts it; the wordings are in composed_wordings.py.
DRAFTS: dict[str, Kind] = {
    "count_two": count_two, "count_like": count_like, "count_join": count_join, "aggregate_join": aggregate_join,
    "top_filter": top_filter, "group_filter": group_filter, "group_most": group_most,
    "above_average_filter": above_average_filter, "having_aggregate": having_aggregate, "lookup_join": lookup_join,
    "not_in_filter": not_in_filter, "aggregate_children": aggregate_children, "distinct_join": distinct_join,
}  # fmt: skip
