"""The chapter on the model, which trains a DARE of its own on a small generated log and judges no claim."""

from dare_core.studies import settings

Config = settings.TheModelConfig
