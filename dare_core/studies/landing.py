"""Landing page: what was asked, and the ledger at a glance."""

from dare_core.studies import settings

Config = settings.LandingConfig
