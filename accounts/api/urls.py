from django.urls import path
from rest_framework.routers import SimpleRouter

from accounts.api.views import AccountView, SshKeyViewSet

router = SimpleRouter()
router.register("ssh-keys", SshKeyViewSet, basename="ssh-key")
urlpatterns = [path("account/me/", AccountView.as_view(), name="account-me"), *router.urls]
