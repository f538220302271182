from rest_framework.routers import SimpleRouter

from servers.api.operations import OperationViewSet
from servers.api.views import ServerViewSet

router = SimpleRouter()
router.register("servers", ServerViewSet, basename="server")
router.register("operations", OperationViewSet, basename="operation")
urlpatterns = router.urls
