"""Django's backend for Postgres, and one thing more: tables that are split by month (``core.partitions``)."""

from typing import Any

from django.db.backends.postgresql import base
from django.db.backends.postgresql.schema import DatabaseSchemaEditor

from core.partitions import PartitionedByMonth


class SchemaEditor(DatabaseSchemaEditor):
    def table_sql(self, model: Any) -> Any:
        """Postgres asks that the primary key of a partitioned table contains what the table is split by."""
        sql, values = super().table_sql(model)
        if issubclass(model, PartitionedByMonth):
            key, by = (self.quote_name(name) for name in (model._meta.pk.column, model.partition_by))
            columns = sql.replace(" PRIMARY KEY", "", 1).rstrip().removesuffix(")")
            sql = f"{columns}, PRIMARY KEY ({key}, {by})) PARTITION BY RANGE ({by})"
        return sql, values


class DatabaseWrapper(base.DatabaseWrapper):
    SchemaEditorClass = SchemaEditor
