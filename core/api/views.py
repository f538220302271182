"""What all views of the API have in common: a query parameter that a view does not know is refused."""

from collections.abc import Mapping
from typing import Any, ClassVar

from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.views import APIView

from core.api.paging import ContractPagination


class StrictView(APIView):
    """The base of all views.

    ``query_parameters`` names the parameters of each action, besides those of paging.  A script that deletes
    what ``?name=web`` lists must not be shown the whole list.
    """

    query_parameters: ClassVar[Mapping[str, frozenset[str]]] = {}
    list_actions: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if not hasattr(self, (request.method or "").lower()):
            return  # 405: the path has no such method, whatever it is asked
        known = self._known_parameters()
        unknown = [name for name in request.query_params if name not in known]
        if unknown:
            told = f"The parameters are: {', '.join(sorted(known))}." if known else "There are none here."
            raise ValidationError({key: [f"There is no such query parameter. {told}"] for key in unknown})

    def _known_parameters(self) -> frozenset[str]:
        action = getattr(self, "action", None) or (self.request.method or "").lower()
        known = self.query_parameters.get(action, frozenset())
        is_list = action == "list" or action in self.list_actions
        return known | ContractPagination.PARAMETERS if is_list else known
