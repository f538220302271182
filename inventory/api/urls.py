from rest_framework.routers import SimpleRouter

from inventory.api.views import LocationViewSet, OperatingSystemViewSet, PlanViewSet

router = SimpleRouter()
router.register("plans", PlanViewSet, basename="plan")
router.register("locations", LocationViewSet, basename="location")
router.register("operating-systems", OperatingSystemViewSet, basename="operating-system")
urlpatterns = router.urls
