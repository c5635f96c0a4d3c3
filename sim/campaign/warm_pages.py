"""Imported by the process that workers are forked from: the template compiled, the formats of pictures known."""

from PIL import Image

from sim.design.page import compile_page
from sim.report.page import TEMPLATE

compile_page(TEMPLATE)
Image.init()
