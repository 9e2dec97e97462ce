"""How good labels are: counts that add up over images and shards, divided once at the end."""
