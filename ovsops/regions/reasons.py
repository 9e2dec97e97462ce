"""Every code that a region or an instance can carry, or be left out for, in one table. Imports nothing."""

BOX_MASK = "R_BOX_MASK"
DOUBLE = "R_DOUBLE"
FILLS_BOX = "R_FILLS_BOX"
FRAGMENTED = "R_FRAGMENTED"
HOLLOW = "R_HOLLOW"
HUGE = "R_HUGE"
LOW_AGREEMENT = "R_LOW_AGREEMENT"
NO_AREA = "R_NO_AREA"
NO_MASK = "R_NO_MASK"
SEGMENTERS_DISAGREE = "R_SEGMENTERS_DISAGREE"
TINY = "R_TINY"
TOUCHES_BORDER = "R_TOUCHES_BORDER"

CARRIED = {
    BOX_MASK: "The mask is the box itself: no mask source had a mask for it, or none was asked.",
    "R_CAPPED": "The image had more regions than it may have; this one is among those kept.",
    FILLS_BOX: "The mask fills its tight box: a thing with straight sides, or a box that was taken for a mask.",
    FRAGMENTED: "The mask has many parts: several things in one, or a thing behind others.",
    "R_HOLES_FILLED": "Holes of the region were filled: it covers pixels that its class did not win.",
    HOLLOW: "The mask covers little of its tight box: thin, hollow or scattered.",
    HUGE: "The mask covers nearly the whole image.",
    "R_ISLANDS_JOINED": "Parts too small to stand alone were joined to this region, the nearest of their class.",
    LOW_AGREEMENT: "The detector's box and the mask's tight box overlap little.",
    NO_MASK: "The segmenter shows no pixel of the box's class in the box; the mask stands in for one.",
    SEGMENTERS_DISAGREE: "A second segmenter shows something else here.",
    TINY: "The mask has few pixels.",
    TOUCHES_BORDER: "The mask touches the image's edge: the thing may go on outside.",
}
"""Codes in `reason_codes` of a record: what they say, for reports."""

LEFT_OUT = {
    DOUBLE: "A better mask covers the same pixels.",
    NO_AREA: "The box covers no pixel of the image.",
    NO_MASK: "The box has no mask.",
    "R_OVER_CAP": "The image had as many better ones as it may have.",
    "R_TOO_SMALL": "Below the smallest size.",
}
"""Codes counted in an image's notes: why detections or regions have no record."""
