import os

from django.core.wsgi import get_wsgi_application

from core.api.chunked import ChunkedBodies

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpsorg.settings")
application = ChunkedBodies(get_wsgi_application())
