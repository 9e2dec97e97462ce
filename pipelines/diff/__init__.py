"""Two labelled runs compared: what became of the labels of the same images, how populations drifted, and why."""
