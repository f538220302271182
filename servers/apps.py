from django.apps import AppConfig


class ServersConfig(AppConfig):
    name = "servers"

    def ready(self) -> None:
        from billing import ledger_audit
        from servers import changes, charges, notifications, reviews  # they read models: only now

        changes.listen(charges.follow)
        changes.listen(notifications.tell_webhooks)
        changes.listen(reviews.follow)
        ledger_audit.add_check(charges.findings)
