from django.urls import path
from rest_framework.routers import SimpleRouter

from accounts.api.views import AccountView, SshKeyViewSet
from accounts.api.webhooks import WebhookViewSet

router = SimpleRouter()
router.register("ssh-keys", SshKeyViewSet, basename="ssh-key")
router.register("webhooks", WebhookViewSet, basename="webhook")
urlpatterns = [path("account/me/", AccountView.as_view(), name="account-me"), *router.urls]
