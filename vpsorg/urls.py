from django.contrib import admin
from django.urls import include, path

from vpsorg.api.docs import DocsView, SchemaView

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/schema/", SchemaView.as_view(), name="schema"),
    path("api/v1/docs/", DocsView.as_view(), name="docs"),
    path("api/v1/", include("servers.api.urls")),
    path("api/v1/", include("accounts.api.urls")),
    path("api/v1/", include("inventory.api.urls")),
]

handler400 = "vpsorg.api.errors.bad_request"
handler403 = "vpsorg.api.errors.forbidden"
handler404 = "vpsorg.api.errors.not_found"
handler500 = "vpsorg.api.errors.server_error"
