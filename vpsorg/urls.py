from django.contrib import admin
from django.urls import include, path

from core.api.docs import DocsView, SchemaView

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/schema/", SchemaView.as_view(), name="schema"),
    path("api/v1/docs/", DocsView.as_view(), name="docs"),
    path("api/v1/", include("servers.api.urls")),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("webhooks.api.urls")),
    path("api/v1/", include("inventory.api.urls")),
    path("api/v1/", include("core.api.not_offered")),
]

handler400 = "core.api.errors.bad_request"
handler403 = "core.api.errors.forbidden"
handler404 = "core.api.errors.not_found"
handler500 = "core.api.errors.server_error"
