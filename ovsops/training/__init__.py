"""Training loops in plain torch: no Ray, no command line. A program says what is learned, the loop how long."""
