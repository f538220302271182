from django.urls import path
from rest_framework.routers import SimpleRouter

from servers.api.backups import BackupViewSet, SnapshotViewSet
from servers.api.billing import BalanceView, TransactionViewSet
from servers.api.operations import OperationViewSet
from servers.api.views import ServerViewSet

router = SimpleRouter()
router.register("servers", ServerViewSet, basename="server")
router.register("backups", BackupViewSet, basename="backup")
router.register("snapshots", SnapshotViewSet, basename="snapshot")
router.register("operations", OperationViewSet, basename="operation")
router.register("account/transactions", TransactionViewSet, basename="transaction")
urlpatterns = [path("account/balance/", BalanceView.as_view(), name="account-balance"), *router.urls]
