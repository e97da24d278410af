"""django-oauth-toolkit as an authorization server: a whole Django project in one file, started with its settings as JSON.

    python django_project.py SETTINGS.json

The settings: port, certificate, key, folder, refreshes (a file), issuer, rsa_key, users (their names are addresses), clients.
"""

import json
import sys
from pathlib import Path

import django
from django.conf import settings

import wsgi_server

SETTINGS = json.loads(Path(sys.argv[1]).read_text())
SCOPES = {"openid": "Who you are", "email": "Your address", "mail": "Your mail"}

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="for tests only",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{SETTINGS['folder']}/database",
                           "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE"}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
                    "django.contrib.messages", "oauth2_provider"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware",
                "django.contrib.messages.middleware.MessageMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
                "OPTIONS": {"loaders": [
                    ("django.template.loaders.locmem.Loader", {
                        "registration/login.html": "<form method=post>{% csrf_token %}{{ form }}</form>"}),
                    "django.template.loaders.app_directories.Loader",
                ], "context_processors": ["django.template.context_processors.request",
                                          "django.contrib.auth.context_processors.auth"]}}],
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_ISS_ENDPOINT": SETTINGS["issuer"],
        "OIDC_RSA_PRIVATE_KEY": Path(SETTINGS["rsa_key"]).read_text(),
        "OAUTH2_VALIDATOR_CLASS": f"{__name__}.Validator",
        "OAUTH_DEVICE_VERIFICATION_URI": f"{SETTINGS['issuer']}/device/",
        "OAUTH_DEVICE_VERIFICATION_URI_COMPLETE": lambda code: f"{SETTINGS['issuer']}/device/?user_code={code}",
        "DEVICE_FLOW_INTERVAL": 1,
        "SCOPES": SCOPES,
        "ALLOW_LOCALHOST_LOOPBACK": True,
        "REFRESH_TOKEN_REUSE_PROTECTION": True,
        "DCR_ENABLED": True,
        "DCR_REGISTRATION_PERMISSION_CLASSES": ("oauth2_provider.dcr.AllowAllDCRPermission",),
    },
)
settings.TEMPLATES[0]["APP_DIRS"] = False
sys.modules["django_project"] = sys.modules[__name__]
django.setup()

from django.contrib.auth import get_user_model, views  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402


class Validator(OAuth2Validator):
    """Provides the address of the person who has signed in, in the way that the toolkit's documentation describes."""

    oidc_claim_scope = None

    def get_additional_claims(self, request):
        return {"email": request.user.email, "email_verified": True}


urlpatterns = [
    path("accounts/login/", views.LoginView.as_view()),
    path("", include("oauth2_provider.urls", namespace="oauth2_provider")),
]


def fill():
    """People and clients."""
    call_command("migrate", verbosity=0)
    for address in SETTINGS["users"]:
        get_user_model().objects.create_user(address, address, SETTINGS["password"])
    for client in SETTINGS["clients"]:
        get_application_model().objects.create(**client)


if not Path(SETTINGS["folder"], "database").exists():
    fill()
wsgi_server.serve(wsgi_server.noting(get_wsgi_application(), SETTINGS["refreshes"]), SETTINGS["port"], SETTINGS["certificate"], SETTINGS["key"])
