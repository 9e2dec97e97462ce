"""From a decoded image to everything that is said of it: segmenter, detector and region expert joined."""
