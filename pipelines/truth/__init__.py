"""Ground truth of published data sets, read from the folders that their publishers describe."""
