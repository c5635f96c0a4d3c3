"""Imported by the process that workers are forked from: what is the same for every downlink, and begins no thread."""

import gc

from PIL import Image

import payload.codec.lapped.codec
import sim.downlink
import sim.onboard.kept_engine
from sim.design.page import compile_page
from sim.report.page import TEMPLATE

__all__ = ["payload", "sim"]

compile_page(TEMPLATE)
Image.init()
gc.freeze()  # workers share what is here as long as no collector goes through it
