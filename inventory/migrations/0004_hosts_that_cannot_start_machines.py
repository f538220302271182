from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("inventory", "0003_reserved_addresses"),
    ]

    operations = [
        migrations.AddField(
            model_name="hypervisor",
            name="is_ready",
            field=models.BooleanField(
                default=True,
                editable=False,
                help_text="It can start machines: its storage pool and network are on.",
            ),
        ),
    ]
