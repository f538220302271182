from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"

    def ready(self) -> None:
        from accounts import openings
        from billing import ledger  # it reads models: only now

        openings.listen(ledger.welcome)
