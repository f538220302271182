"""VPS_SECRET_KEY is changed, and nothing that depends on it is lost."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from tests.factories import WebhookFactory
from webhooks import services
from webhooks.models import Webhook
from webhooks.sealing import SecretUnreadable, unseal
from webhooks.services import Resealed, reseal_secrets

pytestmark = pytest.mark.django_db

OLD, NEW = "the key that was, and is long enough", "the key that is now, also long enough"


@pytest.fixture
def webhook(settings: Any) -> Webhook:
    """Made with the old key; the new one is in force."""
    settings.SECRET_KEY = OLD
    made: Webhook = WebhookFactory.create()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [OLD]
    return made


def test_the_secrets_of_webhooks_survive_a_change_of_the_key(webhook: Webhook, settings: Any) -> None:
    """Guards: the fallbacks in ``unseal``, ``seal`` in ``reseal_secrets``."""
    secret = unseal(webhook.sealed_secret)
    assert reseal_secrets() == Resealed(done=1, unreadable=0)
    assert reseal_secrets() == Resealed(done=0, unreadable=0)
    settings.SECRET_KEY_FALLBACKS = []
    webhook.refresh_from_db()
    assert unseal(webhook.sealed_secret) == secret


def test_without_the_old_key_nothing_is_written_over(
    webhook: Webhook, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.SECRET_KEY_FALLBACKS = []
    sound = WebhookFactory.create()
    with pytest.raises(CommandError, match="No key opens the secrets of 1 webhooks: put the key"):
        call_command("rotate_secret_key")
    assert capsys.readouterr().out == "0 secrets of webhooks were encrypted anew\n"
    settings.SECRET_KEY_FALLBACKS = [OLD]
    for kept in (webhook, sound):
        before = kept.sealed_secret
        kept.refresh_from_db()
        assert kept.sealed_secret == before
    call_command("rotate_secret_key")
    assert capsys.readouterr().out == "1 secrets of webhooks were encrypted anew\n"


def test_a_secret_that_its_customer_replaces_meanwhile_stays(
    webhook: Webhook, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: ``sealed_secret=before`` in ``reseal_secrets``."""
    replaced = []

    def slowly(sealed: str) -> str:
        replaced.append(services.rotate_secret(webhook=webhook))
        return unseal(sealed)

    monkeypatch.setattr(services, "unseal", slowly)
    assert reseal_secrets() == Resealed(done=0, unreadable=0)
    webhook.refresh_from_db()
    assert [unseal(webhook.sealed_secret)] == replaced


def test_another_key_opens_nothing(webhook: Webhook, settings: Any) -> None:
    settings.SECRET_KEY_FALLBACKS = ["a third one, and no less long than those"]
    with pytest.raises(SecretUnreadable):
        unseal(webhook.sealed_secret)


def test_staff_stay_logged_in(admin_client: Client, settings: Any) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW, [settings.SECRET_KEY]
    assert admin_client.get("/admin/").status_code == 200
    settings.SECRET_KEY_FALLBACKS = []
    assert admin_client.get("/admin/").status_code == 200, "the session is signed anew when it is used"
