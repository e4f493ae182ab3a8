"""The models say of every table what schema.sql says, and nothing else."""

from __future__ import annotations

import pytest

from jobd.store.models import MODELS
from jobd.store.sqlite import SqliteStore

BY_TABLE = {model._meta.table_name: model for model in MODELS}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Each table of the schema with its columns as (name, nullable, place in the primary key)."""
    store = SqliteStore(tmp_path_factory.mktemp("models") / "jobs.db")
    store.open()

    def read(connection):
        names = connection.execute("select name from sqlite_master where type='table' and name not like 'sqlite_%'")
        return {
            name: {
                # A primary key is never null, though only a table without rowids says so.
                column: (not notnull and not place, place)
                for _, column, _, notnull, _, place in connection.execute(f"pragma table_info({name})")
            }
            for (name,) in names.fetchall()
        }

    yield store.read(read)
    store.close()


def modelled(model):
    """Return the same of a model."""
    meta = model._meta
    key = meta.primary_key
    names = list(key.field_names) if meta.composite_key else [key.name]
    places = {meta.fields[name].column_name: place for place, name in enumerate(names, 1)}
    return {field.column_name: (field.null, places.get(field.column_name, 0)) for field in meta.sorted_fields}


def test_every_table_of_the_schema_has_one_model_and_every_model_a_table(tables):
    assert len(BY_TABLE) == len(MODELS)
    assert set(BY_TABLE) == set(tables)


@pytest.mark.parametrize("table", sorted(BY_TABLE))
def test_a_model_has_its_tables_columns_in_order_with_nulls_and_keys(tables, table):
    assert list(modelled(BY_TABLE[table]).items()) == list(tables[table].items())


def test_models_are_bound_to_no_database():
    assert [model for model in MODELS if model._meta.database is not None] == []
