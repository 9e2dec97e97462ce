"""Every code that a region or an instance can carry, or be left out for, in one table. Imports nothing."""

ABSENT = "R_ABSENT"
BOX_MASK = "R_BOX_MASK"
CONTESTED = "R_CONTESTED"
DOUBLE = "R_DOUBLE"
FILLS_BOX = "R_FILLS_BOX"
FRAGMENTED = "R_FRAGMENTED"
HOLLOW = "R_HOLLOW"
HUGE = "R_HUGE"
LOST_EXCLUSIVE = "R_LOST_EXCLUSIVE"
LOW_AGREEMENT = "R_LOW_AGREEMENT"
LOW_SCORE = "R_LOW_SCORE"
NO_ANSWER = "R_NO_ANSWER"
NO_AREA = "R_NO_AREA"
NO_BOX = "R_NO_BOX"
NO_FEATURE = "R_NO_FEATURE"
NO_MASK = "R_NO_MASK"
RENAMED = "R_RENAMED"
SEGMENTERS_DISAGREE = "R_SEGMENTERS_DISAGREE"
TINY = "R_TINY"
TOUCHES_BORDER = "R_TOUCHES_BORDER"

CARRIED = {
    BOX_MASK: "The mask is the box itself: no mask source had a mask for it, or none was asked.",
    "R_CAPPED": "The image had more regions than it may have; this one is among those kept.",
    CONTESTED: "Another name of its exclusive group fits nearly as well.",
    FILLS_BOX: "The mask fills its tight box: a thing with straight sides, or a box that was taken for a mask.",
    FRAGMENTED: "The mask has many parts: several things in one, or a thing behind others.",
    "R_HOLES_FILLED": "Holes of the region were filled: it covers pixels that its class did not win.",
    HOLLOW: "The mask covers little of its tight box: thin, hollow or scattered.",
    HUGE: "The mask covers nearly the whole image.",
    "R_ISLANDS_JOINED": "Parts too small to stand alone were joined to this region, the nearest of their class.",
    LOW_AGREEMENT: "The detector's box and the mask's tight box overlap little.",
    NO_ANSWER: "The endpoint was asked about it and gave no usable answer: it says what it said before.",
    NO_BOX: "The segmenter shows this thing, and no box covers it.",
    NO_FEATURE: "The box has no area on the expert's grid: its word about it is none.",
    NO_MASK: "The segmenter shows no pixel of the box's class in the box; the mask stands in for one.",
    RENAMED: "The expert gave it another name than the detector.",
    SEGMENTERS_DISAGREE: "A second segmenter shows something else here.",
    TINY: "The mask has few pixels.",
    TOUCHES_BORDER: "The mask touches the image's edge: the thing may go on outside.",
}
"""Codes in `reason_codes` of a record: what they say, for reports."""

LEFT_OUT = {
    ABSENT: "Its class was found to be absent from the image.",
    DOUBLE: "A better mask covers the same pixels.",
    LOST_EXCLUSIVE: "Another name of its exclusive group fits better; that region keeps it as a rival.",
    LOW_SCORE: "Below the least score after all opinions were joined.",
    NO_AREA: "The box covers no pixel of the image.",
    NO_BOX: "A thing of the segmenter's map that no box covers.",
    NO_MASK: "The box has no mask.",
    "R_OVER_CAP": "The image had as many better ones as it may have.",
    "R_TOO_SMALL": "Below the smallest size.",
}
"""Codes counted in an image's notes: why detections or regions have no record."""
