"""Imported by the process that workers are forked from: what is the same for every downlink, and begins no thread."""

from sim.campaign.nursery import COMMON, import_all

import_all(*COMMON, "sim.downlink", "sim.onboard.kept_engine", "payload.codec.lapped.codec", "sim.campaign.warm_pages")
