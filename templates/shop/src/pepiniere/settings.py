"""What a frontend runs with. The site's part is `/etc/shop/shop.json` (`$SHOP_SETTINGS`)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import oscar
from oscar.defaults import *  # noqa: F403

SITE = json.loads(Path(os.environ.get("SHOP_SETTINGS", "/etc/shop/shop.json")).read_text("utf-8"))
BASE = Path(__file__).resolve().parent

SECRET_KEY = SITE["secret_key"]
DEBUG = False
ALLOWED_HOSTS = ["*"]  # the balancer is the only way in, under an address or any forwarded port
SERVER = SITE.get("server", "")

ROOT_URLCONF = "pepiniere.urls"
WSGI_APPLICATION = "pepiniere.wsgi.application"
INSTALLED_APPS = [
    "pepiniere.apps.ShopConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sites",
    "oscar.apps.address.apps.AddressConfig",
    "oscar.apps.shipping.apps.ShippingConfig",
    "pepiniere.apps.CatalogueConfig",
    "oscar.apps.communication.apps.CommunicationConfig",
    "oscar.apps.partner.apps.PartnerConfig",
    "pepiniere.apps.BasketConfig",
    "oscar.apps.payment.apps.PaymentConfig",
    "pepiniere.apps.OfferConfig",
    "oscar.apps.order.apps.OrderConfig",
    "pepiniere.apps.CustomerConfig",
    "pepiniere.apps.SearchConfig",
    "oscar.apps.voucher.apps.VoucherConfig",
    "pepiniere.apps.CheckoutConfig",
]
MIDDLEWARE = [
    "pepiniere.away.DatabaseAway",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "oscar.apps.basket.middleware.BasketMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE / "templates"],
        "OPTIONS": {
            "loaders": [("django.template.loaders.cached.Loader", ["django.template.loaders.filesystem.Loader"])],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "pepiniere.context.shop",
            ],
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.mysql",
        "NAME": SITE["database"]["name"],
        "USER": SITE["database"]["user"],
        "PASSWORD": SITE["database"]["password"],
        "HOST": SITE["database"]["host"],
        "PORT": SITE["database"]["port"],
        # A connection outlives its request, is asked before it is used again, and gives up soon
        # enough that a database which moved to another host is found again by itself: 6 s for a
        # silent one and 3 s for a new connection stay below the balancer's 10 s for a page.
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "charset": "utf8mb4",
            "connect_timeout": 3,
            "read_timeout": 6,
            "write_timeout": 6,
            "isolation_level": "read committed",
            # A row that another order holds is given up before the connection is.
            "init_command": "SET sql_mode='STRICT_TRANS_TABLES', innodb_lock_wait_timeout=4",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
SEARCH = SITE["search"]  # host, port, index

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "TIMEOUT": 60}}
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 7 * 24 * 3600
# Messages travel in a signed cookie: they would otherwise open a session for every basket.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
SITE_ID = 1

LANGUAGE_CODE = "fr"
LOCALE_PATHS = [Path(oscar.__file__).parent / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "Europe/Paris"
STATIC_URL = "/static/"
MEDIA_URL = "/media/"
SILENCED_SYSTEM_CHECKS = ["fields.E210"]  # pictures are drawn when the image is built: no Pillow here

OSCAR_DYNAMIC_CLASS_LOADER = "pepiniere.loading.local_first"
OSCAR_SHOP_NAME = "Pépinière des Quatre Vents"
OSCAR_DEFAULT_CURRENCY = "EUR"
OSCAR_ALLOW_ANON_CHECKOUT = True
OSCAR_HOMEPAGE = "/"
OSCAR_PRODUCTS_PER_PAGE = 24
OSCAR_REQUIRED_ADDRESS_FIELDS = ("first_name", "last_name", "line1", "line4", "postcode", "country")
OSCAR_INITIAL_ORDER_STATUS = "Nouvelle"
OSCAR_ORDER_STATUS_PIPELINE = {"Nouvelle": ("Expédiée", "Annulée"), "Expédiée": (), "Annulée": ()}
OSCAR_EAGER_ALERTS = False
OSCAR_DELETE_IMAGE_FILES = False
OSCAR_OFFERS_INCL_TAX = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"oscar.checkout": {"level": "INFO"}},
}
