"""The train job: scenes from shards, a program, one loop on one worker or many."""
