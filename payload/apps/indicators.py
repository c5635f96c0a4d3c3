"""The indicators of the applications that ship, by their number in records: payload and ground read them here."""

from payload.apps.interface import Indicator

WATER = Indicator(1, "water extent", "share of the clear pixels")
VEGETATION_DROP = Indicator(2, "vegetation index drop", "NDVI")
BURNED = Indicator(3, "burned area", "share of the clear pixels")
VESSEL = Indicator(4, "vessel candidate", "reflectance above the water around, near infrared", "target")
INDICATORS = {one.number: one for one in (WATER, VEGETATION_DROP, BURNED, VESSEL)}
