from django.db import migrations

# By another beginning, or by a new meter, the same hours would be other ones and be charged again.
HOURS_STAY = """
    CREATE FUNCTION servers_hours_of_a_meter_stay() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND (NEW.server_id, NEW.began_at) = (OLD.server_id, OLD.began_at) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'a meter is never removed, and its hours are counted from the same moment for ever'
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE TRIGGER hours_of_a_meter_stay BEFORE UPDATE OR DELETE ON servers_meter
        FOR EACH ROW EXECUTE FUNCTION servers_hours_of_a_meter_stay();
"""
HOURS_MAY_MOVE = """
    DROP TRIGGER hours_of_a_meter_stay ON servers_meter;
    DROP FUNCTION servers_hours_of_a_meter_stay();
"""


class Migration(migrations.Migration):

    dependencies = [
        ('servers', '0006_prices_are_not_negative'),
    ]

    operations = [
        migrations.RunSQL(HOURS_STAY, HOURS_MAY_MOVE),
    ]
