from django.apps import AppConfig


class ServersConfig(AppConfig):
    name = "servers"

    def ready(self) -> None:
        from billing import ledger_audit
        from servers import backup_services, changes, charges, notifications, reviews  # they read models

        changes.listen(charges.follow)
        changes.listen(notifications.tell_webhooks)
        changes.listen(reviews.follow)
        changes.listen_to_backups(charges.follow_backup)
        changes.listen_to_backups(backup_services.follow)
        changes.listen_to_backups(notifications.tell_webhooks_of_backup)
        ledger_audit.add_check(charges.findings)
