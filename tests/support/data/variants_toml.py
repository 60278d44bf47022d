"""Passages that the tests' own variants share."""

ALL_TRAIN = """
[split]
split_zoom_offset = 0
validation_share = 0.0
test_share = 0.0
"""

SAR = """
[[modality]]
name = "sar"
sensor = "sentinel-1"
product = "rtc"
bands = ["vv", "vh"]
units = "dB"
range = [[-25.0, 0.0], [-32.0, -5.0]]
"""
