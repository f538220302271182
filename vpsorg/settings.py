"""All settings, in the order of .env.example; tests keep the two equal."""

from pathlib import Path

import django_stubs_ext

from core import queues
from core.database import OPTIONS as LIBPQ_OPTIONS
from core.env import (
    env_bool,
    env_choice,
    env_database,
    env_decimal,
    env_endpoint,
    env_hosts,
    env_int,
    env_networks,
    env_optional_key,
    env_optional_secret,
    env_origins,
    env_redis,
    env_secret,
    env_secrets,
    env_store,
    env_str,
)
from servers.states import PUBLIC_STATUSES

django_stubs_ext.monkeypatch()  # so that admin.ModelAdmin[Server] can be written

BASE_DIR = Path(__file__).resolve().parent.parent

# Who we are
SECRET_KEY = env_secret("VPS_SECRET_KEY")
SECRET_KEY_FALLBACKS = env_secrets("VPS_OLD_SECRET_KEYS")
DEBUG = env_bool("VPS_DEBUG", False)
ALLOWED_HOSTS = env_hosts("VPS_ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = env_origins("VPS_TRUSTED_ORIGINS")
HTTPS = env_bool("VPS_HTTPS", False)
LOG_LEVEL = env_choice("VPS_LOG_LEVEL", ["DEBUG", "INFO", "WARNING", "ERROR"], "INFO")
LOG_FORMAT = env_choice("VPS_LOG_FORMAT", ["text", "json"], "text")

# What we stand on
DATABASES = {"default": env_database("DATABASE_URL") | {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}}
DATABASES["default"]["OPTIONS"] = LIBPQ_OPTIONS | DATABASES["default"]["OPTIONS"]
REDIS_URL = env_redis("REDIS_URL")
VPS_METRICS_TOKEN = env_optional_secret("VPS_METRICS_TOKEN")
VPS_IMAGE_DIR = Path(env_str("VPS_IMAGE_DIR", str(BASE_DIR / "var" / "images")))
VPS_BACKUP_KEY = env_optional_key("VPS_BACKUP_KEY")
VPS_BACKUP_STORE = env_store("VPS_BACKUP_STORE", str(BASE_DIR / "var" / "backups"))
VPS_BACKUP_S3_ENDPOINT = env_endpoint("VPS_BACKUP_S3_ENDPOINT")
VPS_BACKUP_S3_REGION = env_str("VPS_BACKUP_S3_REGION", "")
VPS_BACKUP_S3_ACCESS_KEY_ID = env_str("VPS_BACKUP_S3_ACCESS_KEY_ID", "")
VPS_BACKUP_S3_SECRET_ACCESS_KEY = env_str("VPS_BACKUP_S3_SECRET_ACCESS_KEY", "")

VPS_BACKUPS_PER_HOST = env_int("VPS_BACKUPS_PER_HOST", 1, minimum=1)
VPS_BACKUPS_BOOTED_DAILY = env_int("VPS_BACKUPS_BOOTED_DAILY", 1)
VPS_TRIAL_MEMORY = env_int("VPS_TRIAL_MEMORY", 1024, minimum=64)

# What we promise
VPS_MIN_RUNWAY_HOURS = env_int("VPS_MIN_RUNWAY_HOURS", 24)
VPS_BACKUP_WINDOW_MINUTES = env_int("VPS_BACKUP_WINDOW_MINUTES", 180, maximum=1200)
VPS_BACKUPS_DAILY = env_int("VPS_BACKUPS_DAILY", 7, minimum=1)
VPS_BACKUPS_WEEKLY = env_int("VPS_BACKUPS_WEEKLY", 4)
VPS_MAX_MANUAL_BACKUPS = env_int("VPS_MAX_MANUAL_BACKUPS", 5)
VPS_MAX_SNAPSHOTS = env_int("VPS_MAX_SNAPSHOTS", 5)
VPS_BACKUP_PRICE_RATIO = env_decimal("VPS_BACKUP_PRICE_RATIO", "0.20")
VPS_GRACE_HOURS = env_int("VPS_GRACE_HOURS", 72)
VPS_TERMINATE_AFTER_DAYS = env_int("VPS_TERMINATE_AFTER_DAYS", 14)
VPS_SIGNUP_CREDITS = env_decimal("VPS_SIGNUP_CREDITS", "0")
VPS_OPERATION_LEASE = env_int("VPS_OPERATION_LEASE", 60, minimum=1)
VPS_BOOT_TIMEOUT = env_int("VPS_BOOT_TIMEOUT", 300, minimum=1)
VPS_SHUTDOWN_TIMEOUT = env_int("VPS_SHUTDOWN_TIMEOUT", 120, minimum=1)
VPS_ADDRESS_REST = env_int("VPS_ADDRESS_REST", 3600)
VPS_POOL_RESERVE = env_int("VPS_POOL_RESERVE", 5, maximum=100)
VPS_RATE_LIMIT = env_int("VPS_RATE_LIMIT", 600)
VPS_MAX_SERVERS = env_int("VPS_MAX_SERVERS", 100)
VPS_MAX_OPEN_CREATES = env_int("VPS_MAX_OPEN_CREATES", 20)
VPS_MAX_OPEN_RESTORES = env_int("VPS_MAX_OPEN_RESTORES", 2)
VPS_WEBHOOK_PRIVATE_NETWORKS = env_networks("VPS_WEBHOOK_PRIVATE_NETWORKS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.postgres",
    "django.contrib.staticfiles",
    "django_filters",
    "pgtrigger",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "images",
    "plans",
    "accounts",
    "backups",
    "billing",
    "webhooks",
    "inventory",
    "servers",
    "provisioning",
]
MIDDLEWARE = [
    "monitoring.middleware.MonitoringMiddleware",
    "core.request_id.RequestIdMiddleware",
    "accounts.access.acting.ActorMiddleware",
    "accounts.access.rate_limit.RateLimitHeaders",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "DIRS": [BASE_DIR / "core" / "templates"],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "vpsorg.urls"
WSGI_APPLICATION = "vpsorg.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # the admin's own files, without a collectstatic by hand
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# A path without its last slash is a 404 that says so; a redirect would lose the body of a POST.
APPEND_SLASH = False
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.access.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.access.permissions.TokenPermits"],
    "DEFAULT_PARSER_CLASSES": ["core.api.parsing.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["core.api.rendering.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "core.api.rendering.AlwaysJSON",
    "DEFAULT_PAGINATION_CLASS": "core.api.paging.ContractPagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_METADATA_CLASS": "core.api.metadata.AllowedMethods",
    "DEFAULT_THROTTLE_CLASSES": ["accounts.access.rate_limit.TokenRateLimit"],
    "DEFAULT_SCHEMA_CLASS": "core.api.schema.Schema",
    "EXCEPTION_HANDLER": "core.api.errors.render",
    "UNAUTHENTICATED_USER": None,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Virtual private servers",
    "DESCRIPTION": "Every request carries `Authorization: Bearer vps_...`, an API token. Bodies are JSON.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "APPEND_COMPONENTS": {
        "schemas": {"ServerStatus": {"type": "string", "enum": [str(status) for status in PUBLIC_STATUSES]}}
    },
    # Without the default one, which invents names of components for enumerations.
    "POSTPROCESSING_HOOKS": ["core.api.schema.name_integer_formats"],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "SERVERS": [{"url": "/", "description": "This installation."}],
    "TAGS": [
        {
            "name": "servers",
            "description": "Make, read, change, delete and switch servers.",
        },
        {"name": "backups", "description": "Copies of servers' disks: automatic ones, and yours."},
        {"name": "snapshots", "description": "Copies of servers' disks, by name."},
        {"name": "operations", "description": "How far an order got, and why it failed."},
        {"name": "plans", "description": "Sizes and prices."},
        {"name": "locations", "description": "Data centres."},
        {"name": "operating-systems", "description": "What a server can be made with."},
        {"name": "ssh-keys", "description": "Keys that are put on new servers."},
        {"name": "account", "description": "The token's account and its credits."},
        {"name": "webhooks", "description": "URLs that are told of events."},
    ],
    "DISABLE_DOCSTRING_DESCRIPTIONS": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "docExpansion": "list"},
}

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
# A broker that is away or hangs must not hold requests up: Celery would try to connect for six seconds.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 7200,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "max_retries": 1,
    "interval_start": 0,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A message that cannot be sent is not worth a customer's wait: the row is there and the scheduler finds it.
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_TIME_LIMIT = 3600
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_DEFAULT_QUEUE = queues.SHARED
# Customers' receivers may be slow: their queue has workers of its own.
CELERY_TASK_ROUTES = {"webhooks.*": {"queue": queues.WEBHOOKS}}
# Tasks that the scheduler does again and again, and the seconds between the end of one and the next.
PERIODIC_JOBS = {
    "provisioning.reconcile_all": 30,
    "provisioning.sample_all": 60,
    "provisioning.see_to_images_all": 300,
    "servers.meter": 60,
    "servers.take_due_backups": 60,
    "servers.verify_due_backups": 600,
    "servers.boot_due_backups": 3600,
    "servers.remove_expired_backups": 600,
    "billing.make_months": 3600,
    "webhooks.sweep": 5,
    "accounts.forget_answers": 60,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"format": "%(asctime)s %(levelname)s %(request_id)s %(actor)s %(name)s %(message)s"},
        "json": {"()": "core.json_log.JsonFormatter"},
    },
    "filters": {
        "request_id": {"()": "core.request_id.RequestIdFilter"},
        "actor": {"()": "accounts.actors.ActorFilter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": LOG_FORMAT,
            "filters": ["request_id", "actor"],
        }
    },
    "root": {"handlers": ["console"], "level": LOG_LEVEL},
    # Two lines for each message; what operations do is logged by provisioning.
    "loggers": {"celery.app.trace": {"level": "WARNING"}, "celery.worker.strategy": {"level": "WARNING"}},
}
