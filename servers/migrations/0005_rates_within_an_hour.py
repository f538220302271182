from django.db import migrations

# A rate that no hour has begun with yet may become the one that follows it: the newest of its server,
# before the same hour begins, and before that hour is charged.  It is worth what another row would be.
FINAL_WITH_AN_HOUR = """
    CREATE OR REPLACE FUNCTION servers_rates_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND (NEW.id, NEW.server_id) = (OLD.id, OLD.server_id) AND NEW.since > OLD.since
            AND NOT EXISTS (SELECT FROM servers_rate WHERE server_id = OLD.server_id AND since > OLD.since)
            AND EXISTS (
                SELECT FROM servers_meter WHERE server_id = OLD.server_id
                AND ceil(extract(epoch FROM OLD.since - began_at) / 3600)
                    = ceil(extract(epoch FROM NEW.since - began_at) / 3600)
                AND (next_at <= began_at OR next_at - interval '1 hour' < NEW.since) IS NOT FALSE
            )
        THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'a rate is never changed or removed'
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
"""
FINAL = """
    CREATE OR REPLACE FUNCTION servers_rates_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'a rate is never changed or removed'
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('servers', '0004_index_of_held_operations'),
    ]

    operations = [
        migrations.RunSQL(FINAL_WITH_AN_HOUR, FINAL),
    ]
